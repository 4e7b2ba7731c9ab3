"""`distacme evaluate`: episodes of one version of the params."""

import re

import pytest

from distacme.programs import cli
from distacme.programs import evaluate


def run(capsys, *arguments):
  with pytest.raises(SystemExit) as exit_:
    cli.main(['evaluate', *map(str, arguments)])
  captured = capsys.readouterr()
  return exit_.value.code, captured.out + captured.err


def test_it_prints_returns_version_and_episodes(capsys, run_dir):
  code, text = run(capsys, run_dir, '--episodes', 6)
  assert code == 0
  assert re.fullmatch(
    r'mean return \S+ \(min \S+, max 1\) over 6 episodes, '
    r'params version [1-9]\d*\n',
    text,
  )


def test_the_seed_decides_the_episodes(run_dir):
  first, again = (evaluate.evaluate(run_dir, 4, seed=3) for _ in range(2))
  del first['seconds'], again['seconds']
  assert first == again
  assert first['mean_length'] == 9


def test_the_newest_params_may_be_asked_for(capsys, run_dir):
  newest = max(int(p.name) for p in (run_dir / 'checkpoints').glob('[0-9]*'))
  _, text = run(capsys, run_dir, '--newest', '--episodes', 1)
  assert f'params version {newest}\n' in text


@pytest.mark.parametrize(
  'flags, sentence',
  [
    ('--episodes 0', 'distacme: episodes must be at least 1, got 0.'),
    ('--seed -1', 'distacme: seed must be at least 0, got -1.'),
  ],
)
def test_a_mistake_is_answered_in_a_sentence(capsys, run_dir, flags, sentence):
  code, text = run(capsys, run_dir, *flags.split())
  assert code == 2
  assert text.strip() == sentence


def test_what_is_no_run_is_refused(capsys, tmp_path):
  code, text = run(capsys, tmp_path)
  assert code == 2
  assert 'is no run directory' in text

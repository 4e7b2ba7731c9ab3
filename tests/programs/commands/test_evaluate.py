"""`distacme evaluate`: episodes of one version of the params."""

import dataclasses
import json
import re
import shutil

import pytest

from distacme.programs import cli
from distacme.programs import experiment as experiment_lib
from distacme.programs import run_config
from distacme.programs.commands import evaluate
from distacme.testing import legal_agent


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


def test_an_agent_without_a_policy_to_sample_from_is_refused(capsys, run_dir):
  code, text = run(capsys, run_dir, '--sample')
  assert code == 2
  assert text.strip() == (
    'distacme: --sample is for agents whose Config has the field '
    'evaluate_greedily, which that of dqn has not. Leave --sample out.'
  )


@dataclasses.dataclass(frozen=True)
class Config:
  evaluate_greedily: bool = True
  learning_rate: float = 1e-3


def test_to_sample_is_a_setting_of_the_agent():
  experiment = experiment_lib.Experiment(
    run_config.RunConfig(), Config(True, 0.5)
  )
  assert evaluate._sampling(experiment).agent == Config(False, 0.5)


def test_what_was_cut_off_is_said(capsys, run_dir, tmp_path):
  shutil.copytree(run_dir, tmp_path / 'run')
  path = tmp_path / 'run/config.json'
  config = json.loads(path.read_text())
  config['run']['max_eval_episode_steps'] = 4
  path.write_text(json.dumps(config))
  code, text = run(capsys, tmp_path / 'run', '--episodes', 3)
  assert code == 0
  assert 'over 3 episodes, params version ' in text
  assert '; 3 did not end and were cut off\n' in text


def test_what_is_no_run_is_refused(capsys, tmp_path):
  code, text = run(capsys, tmp_path)
  assert code == 2
  assert 'is no run directory' in text


GAME_AGENT = ('--agent', legal_agent.__name__)


@pytest.mark.parametrize('opponent', [None, 'random', 'perfect', 'untrained'])
def test_games_are_played_against_an_opponent(capsys, game_run_dir, opponent):
  flags = ('--opponent', opponent) if opponent else ()
  code, text = run(capsys, game_run_dir, *GAME_AGENT, '--episodes', 30, *flags)
  assert code == 0
  assert 'over 30 episodes, params version ' in text
  games = re.search(r'\ngames: (\d+) won, (\d+) drawn, (\d+) lost\n$', text)
  won, drawn, lost = map(int, games.groups())
  assert won + drawn + lost == 30
  # The run's own is perfect.
  assert (won == 0) == (opponent in (None, 'perfect'))


def test_an_opponent_in_an_environment_for_one_is_refused(capsys, run_dir):
  code, text = run(capsys, run_dir, '--opponent', 'random')
  assert code == 2
  assert (
    "is for games for two, and 'distacme.testing.environments:catch'" in text
  )

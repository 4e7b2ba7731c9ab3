"""`distacme train --seeds`: runs of several seeds are one command."""

import pathlib
import signal
import subprocess

import pytest

from distacme.programs import checks
from distacme.programs import cli
from distacme.programs.commands import train as train_lib
from distacme.programs.seeds import config
from distacme.programs.seeds import one_seed
from distacme.programs.view import curve_groups
from distacme.run import files
from distacme.run import run_directory
from tests.programs import launching

TINY = (
  *('--mode', 'local', '--env', launching.CATCH, '--hidden-sizes', '4'),
  *('--min-replay-size', '50', '--eval-period', '100'),
)


def train(*flags):
  """Returns the exit code of `distacme train` with tiny runs."""
  with pytest.raises(SystemExit) as exit_:
    cli.main(['train', *TINY, '--max-env-steps', '200', *map(str, flags)])
  return exit_.value.code


@pytest.fixture(scope='module', name='trained')
def fixture_trained(tmp_path_factory):
  """The directory of two seeds that have reached their end."""
  path = tmp_path_factory.mktemp('seeds') / 'all'
  code = train('--seeds', '0,1', '--seeds-at-once', '2', '--run-dir', path)
  assert code == 0
  return path


@pytest.mark.parametrize(
  'text, seeds',
  [
    ('0-4', [0, 1, 2, 3, 4]),
    ('0,3,7', [0, 3, 7]),
    ('5', [5]),
    ('0-2, 2-3,9', [0, 1, 2, 3, 9]),
  ],
)
def test_seeds_are_ranges_and_numbers(text, seeds):
  assert config.parse_seeds(text) == seeds


@pytest.mark.parametrize('text', ['x', '4-0', '-1', '0-', '0,,1', '1.5', ' '])
def test_what_are_no_seeds_is_refused(text):
  with pytest.raises(ValueError, match='seeds must be like 0-4 or 0,3,7'):
    config.parse_seeds(text)


def test_every_seed_is_a_run_of_its_own(trained):
  for seed in (0, 1):
    directory = run_directory.RunDirectory(trained / f'seed{seed}')
    assert directory.read_config()['run']['seed'] == seed
    summary = directory.read_summary()
    assert summary.stop.reason == 'step_limit'
    assert summary.counts['learner_steps'] > 0
    assert 'ended: step_limit' in (trained / f'seed{seed}.out').read_text()


def test_the_curves_of_all_are_one_group(trained):
  pytest.importorskip('matplotlib')
  assert (trained / 'curves.png').read_bytes().startswith(b'\x89PNG')
  (group,) = curve_groups.grouped([trained])
  assert len(group.curves) == 2


def test_given_again_only_what_has_not_ended_goes_on(trained, capsys):
  before = [(trained / f'seed{seed}/metrics.jsonl').stat() for seed in (0, 1)]
  assert train('--seeds', '0-2', '--run-dir', trained) == 0
  after = [(trained / f'seed{seed}/metrics.jsonl').stat() for seed in (0, 1)]
  assert [s.st_mtime for s in after] == [s.st_mtime for s in before]
  assert (trained / 'seed2/summary.json').exists()
  text = capsys.readouterr().out
  assert text.count('step_limit') == 3
  assert 'over 3 of 3 seeds' in text
  assert text.count(f'directory of the runs: {trained}\n') == 2


@pytest.mark.parametrize(
  'flags, ended',
  [
    ('--max-env-steps 200', True),
    ('--max-env-steps 300', False),
    ('--max-env-steps 200 --solved-return 0.9', False),
  ],
)
def test_a_seed_that_had_ended_goes_on_if_the_end_is_another(
  trained, flags, ended
):
  experiment, _ = train_lib.parse([*TINY, *flags.split()])
  directory = run_directory.RunDirectory(trained / 'seed0')
  run = one_seed.SeedRun(experiment, directory, [])
  assert run.has_ended() == ended


def test_other_settings_are_no_resumption(trained, capsys):
  flags = ('--seeds', '0-1', '--run-dir', trained, '--learning-rate', '0.5')
  assert train(*flags) == 2
  assert 'learning_rate was' in capsys.readouterr().err


def test_a_setting_that_is_new_since_was_at_its_default(trained):
  directory = run_directory.RunDirectory(trained / 'seed0')
  written = files.read_json(directory.config)
  del written['agent']['dueling']
  files.write_json(directory.config, written)
  experiment, _ = train_lib.parse([*TINY])
  checks.check_resumable(experiment, directory)
  other, _ = train_lib.parse([*TINY, '--dueling'])
  with pytest.raises(ValueError, match='but dueling was False and is True'):
    checks.check_resumable(other, directory)


@pytest.mark.parametrize(
  'flags, sentence',
  [
    ('--seeds 4-0', "seeds must be like 0-4 or 0,3,7, the smaller first, got '4"),
    ('--seeds 0-4 --seed 1', '--seed and --seeds were given together'),
    ('--seeds=0-4 --seed=1', '--seed and --seeds were given together'),
    ('--seeds-at-once 2', "Add for instance '--seeds 0-4'"),
    ('--seeds 0-4 --seeds-at-once 0', 'seeds_at_once must be at least 1, got 0'),
    ('--seeds 0-4 --env gymnasium:CartPol-v1', "Did you mean 'CartPole-v1'"),
    ('--seeds 0-4 --run-dir taken', 'taken exists and is no directory of seeds'),
  ],
)  # fmt: skip
def test_a_mistake_is_answered_before_any_seed_starts(
  capsys, tmp_path, monkeypatch, flags, sentence
):
  monkeypatch.chdir(tmp_path)
  taken = tmp_path / 'taken'
  taken.mkdir()
  (taken / 'thesis.tex').touch()
  assert train(*flags.split()) == 2
  captured = capsys.readouterr()
  text = ' '.join((captured.out + captured.err).replace('│', ' ').split())
  assert sentence in text
  assert sorted(tmp_path.rglob('*')) == [taken, taken / 'thesis.tex']


def test_a_seed_that_fails_does_not_keep_the_others_from_their_end(
  capsys, tmp_path, monkeypatch
):
  monkeypatch.setenv('PYTHONPATH', str(pathlib.Path(__file__).parents[1]))
  monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1])
  monkeypatch.setenv('JAM', str(tmp_path / 'jam'))
  env = 'broken_environments:jammed_once'
  path = tmp_path / 'all'
  code = train('--seeds', '1-2', '--run-dir', path, '--env', env)
  assert code == 1
  text = capsys.readouterr().out
  assert f'seed 1 ended with exit code 1; the last of {path}/seed1.out' in text
  assert '  RuntimeError: the door is jammed' in text
  summary = run_directory.RunDirectory(path / 'seed2').read_summary()
  assert summary.stop.reason == 'step_limit'


@pytest.fixture(name='start')
def fixture_start(tmp_path):
  """Starts seeds without an end, and kills what a failing test leaves."""
  runs = []

  def start(*flags):
    run = launching.Run(tmp_path / 'all', *TINY, *flags, mode='local')
    runs.append(run)
    return run

  yield start
  for run in runs:
    run.__exit__()


def learning(run, seed):
  """Waits until a seed has been evaluated."""
  path = run.run_dir / f'seed{seed}'
  run.wait_for(
    lambda: (
      (path / 'config.json').exists()
      and (path / 'metrics.jsonl').exists()
      and 'mean_return' in (path / 'metrics.jsonl').read_text()
    )
  )


def test_a_signal_ends_all_that_run_in_order_and_starts_no_other(start):
  run = start('--seeds', '0-1')
  learning(run, 0)
  run.process.send_signal(signal.SIGINT)
  assert run.wait()[0] == 130, run.output
  assert not run.left_after(0.5)
  directory = run_directory.RunDirectory(run.run_dir / 'seed0')
  summary = directory.read_summary()
  assert summary.stop.reason == 'interrupted'
  assert directory.last_step()  # saved
  assert not (run.run_dir / 'seed1').exists()
  assert 'interrupted (exit code 130)' in run.output


@pytest.mark.parametrize(
  'signals, code',
  [
    ([signal.SIGKILL], -signal.SIGKILL),
    ([signal.SIGINT, signal.SIGINT], 130),
  ],
)
def test_no_seed_outlives_its_command(start, signals, code):
  run = start('--seeds', '0')
  learning(run, 0)
  for number in signals:
    run.process.send_signal(number)
  assert run.wait()[0] == code, run.output
  assert not run.left_after(20)
  assert 'Traceback' not in run.output


def test_the_process_of_a_seed_takes_the_flags_of_train():
  done = subprocess.run(
    [
      launching.SCRIPT.with_name('python'),
      '-m',
      'distacme.programs.seed_process',
    ]
    + ['--agent', 'nobody'],
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == 2
  assert "no agent is called 'nobody'" in done.stderr

"""A run goes on where it was, from what is whole, and as nothing else."""

import shutil
import signal
import time

import pytest

from distacme.programs import cli
from distacme.run import run_directory
from tests.programs import launching

SMALL = (
  '--hidden-sizes', '64',
  '--min-replay-size', '300',
  '--eval-period', '1000',
  '--max-seconds', '80',
)  # fmt: skip


@pytest.fixture(name='start')
def fixture_start(tmp_path):
  """Starts runs, and kills what a failing test leaves."""
  runs = []

  def start(name, *flags, mode='local', env=launching.CATCH):
    run = launching.Run(tmp_path / name, *SMALL, *flags, env=env, mode=mode)
    runs.append(run)
    return run

  yield start
  for run in runs:
    run.__exit__()


def steps_below(path):
  return sorted(int(p.name) for p in path.glob('*') if p.name.isdigit())


def truncate_largest(path):
  files = [p for p in path.rglob('*') if p.is_file()]
  largest = max(files, key=lambda p: p.stat().st_size)
  largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


@pytest.mark.parametrize(
  'flags, difference',
  [
    (('--learning-rate', '0.5'), 'learning_rate was 0.001 and is 0.5'),
    (('--seed', '4'), 'seed was 0 and is 4'),
  ],
)
def test_another_configuration_is_refused_by_what_differs(
  start, run_dir, tmp_path, flags, difference
):
  shutil.copytree(run_dir, tmp_path / 'run')
  other = start('run', *flags)
  assert other.wait()[0] == 2
  assert difference in other.output


@pytest.mark.parametrize(
  'mode', ['local', pytest.param('processes', marks=pytest.mark.program)]
)
@pytest.mark.parametrize(
  ('name', 'advice'),
  [
    ('config.json', 'Restore the file that the run wrote, or give another'),
    ('counts.json', 'or delete it to count from 0'),
  ],
)
def test_a_run_whose_settings_or_counters_are_damaged_is_refused(
  run_dir, tmp_path, capsys, name, advice, mode
):
  damaged = tmp_path / 'run' / name
  shutil.copytree(run_dir, damaged.parent)
  damaged.write_bytes(damaged.read_bytes()[:20])
  flags = ['--mode', mode, '--env', launching.CATCH, *SMALL]
  with pytest.raises(SystemExit) as exit_:
    cli.main(['train', *flags, '--run-dir', str(damaged.parent)])
  assert exit_.value.code == 2
  said = capsys.readouterr().err
  assert str(damaged) in said
  assert advice in said


@pytest.mark.program
def test_counters_go_on_from_the_checkpoint_that_is_whole(start):
  flags = ('--num-actors', '1', '--checkpoint-period-s', '0.5')
  first = start('run', *flags, '--max-env-steps', '3000', mode='processes')
  assert first.wait()[0] == 0, first.output
  checkpoints = first.run_dir / 'checkpoints'
  before, newest = steps_below(checkpoints)
  saved = run_directory.RunDirectory(first.run_dir).read_counts(before)
  truncate_largest(checkpoints / str(newest))
  # More: both checkpoints may be of the first one's end.
  second = start('run', *flags, '--max-env-steps', '4500', mode='processes')
  assert second.wait()[0] == 0, second.output
  assert f'cannot read the checkpoint {checkpoints / str(newest)}' in (
    second.output
  )
  used = f'{checkpoints / str(before)} is used instead'
  assert second.output.count(used) == 1  # though launcher and learner say it
  counts = second.summary.counts
  acted = second.summary.workers['actor/0'].counts['env_steps']
  assert counts['env_steps'] == saved['env_steps'] + acted
  assert counts['env_steps'] >= 4500


@pytest.mark.program
def test_what_replay_could_not_restore_is_said_once_on_the_terminal(
  start, run_dir, tmp_path
):
  shutil.copytree(run_dir, tmp_path / 'run')
  for path in (tmp_path / 'run' / 'replay').glob('[0-9]*'):
    truncate_largest(path)
  other = start('run', '--max-env-steps', '4500', mode='processes')
  assert other.wait()[0] == 0, other.output
  assert other.output.count('cannot restore replay from') == 1
  assert 'no other: it starts anew' in other.output


@pytest.mark.program
def test_a_run_without_a_whole_checkpoint_is_refused(start, run_dir, tmp_path):
  shutil.copytree(run_dir, tmp_path / 'run')
  for path in (tmp_path / 'run' / 'checkpoints').glob('[0-9]*'):
    truncate_largest(path)
  other = start('run', mode='processes')
  assert other.wait()[0] == 2
  assert 'and there is no other. Restore the files' in other.output


@pytest.mark.program
@pytest.mark.launchpad
@pytest.mark.parametrize(
  'mode, flags',
  [
    ('processes', ()),
    pytest.param(
      'processes', ('--replay-in-learner',), marks=pytest.mark.chaos
    ),
    pytest.param('threads', (), marks=pytest.mark.chaos),
  ],
)
def test_a_terminated_program_goes_on_with_what_replay_held(start, mode, flags):
  flags = ('--num-actors', '1', *flags)
  first = start('run', *flags, mode=mode)
  first.wait_for(lambda: last_replay(first).get('sampled', 0) > 10_000)
  first.process.send_signal(signal.SIGTERM)
  code, _ = first.wait()
  assert code == 143, first.output  # which a cluster may requeue
  assert not first.summary.failures  # nobody had to be killed
  left = last_replay(first)
  counts = first.summary.counts
  resumed_at = time.time()
  more = str(counts['env_steps'] + 1000)
  second = start('run', *flags, '--max-env-steps', more, mode=mode)
  second.wait_for(lambda: last_replay(second)['time'] >= resumed_at)
  rows = [r for r in replay_rows(second) if r['time'] >= resumed_at]
  assert rows[0]['size'] >= left['size']
  assert rows[0]['sampled'] >= left['sampled']
  assert second.wait()[0] == 0, second.output
  # The learner had what to learn from at once, and both sides went on.
  assert second.summary.counts['learner_steps'] > counts['learner_steps']
  # Its first params were the last of the first.
  versions = [
    row['params_version']
    for row in second.metrics()
    if 'params_version' in row and row['time'] >= resumed_at
  ]
  assert versions and min(versions) >= counts['learner_steps']
  assert last_replay(second)['inserted'] > left['inserted'] + 500
  assert last_replay(second)['sampled'] > left['sampled']


def replay_rows(run):
  return [row for row in run.metrics() if row['worker'] == 'replay/0']


def last_replay(run):
  return (replay_rows(run) or [{}])[-1]


@pytest.mark.program
def test_replay_is_saved_while_the_run_goes_on_and_survives_a_kill(start):
  flags = ('--num-actors', '1', '--replay-checkpoint-period-s', '0.5')
  first = start('run', *flags, mode='processes')
  replay = first.run_dir / 'replay'
  first.wait_for(lambda: 3 in steps_below(replay))
  first.wait_for(lambda: last_replay(first).get('size', 0) > 0)
  first.process.kill()
  first.process.wait()
  assert not first.left_after(10)
  assert len(steps_below(replay)) <= 2
  resumed_at = time.time()
  second = start('run', *flags, mode='processes')
  second.wait_for(lambda: last_replay(second)['time'] >= resumed_at)
  (row, *_) = [r for r in replay_rows(second) if r['time'] >= resumed_at]
  assert row['size'] > 0

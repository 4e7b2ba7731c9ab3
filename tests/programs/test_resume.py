"""A run goes on where it was, from what is whole, and as nothing else."""

import importlib.util
import shutil

import pytest

from tests.programs import launching

SMALL = (
  '--hidden-sizes', '32',
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


needs_reverb = pytest.mark.skipif(
  importlib.util.find_spec('launchpad') is None,
  reason='Launchpad and Reverb exist for Python 3.10 only',
)


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


@needs_reverb
def test_counters_go_on_from_the_checkpoint_that_is_whole(start):
  flags = ('--num-actors', '1', '--checkpoint-period-s', '0.5')
  first = start('run', *flags, '--max-env-steps', '3000', mode='processes')
  assert first.wait()[0] == 0, first.output
  checkpoints = first.run_dir / 'checkpoints'
  before, newest = steps_below(checkpoints)
  truncate_largest(checkpoints / str(newest))
  second = start('run', *flags, '--max-env-steps', '3000', mode='processes')
  assert second.wait()[0] == 0, second.output
  assert f'cannot read the checkpoint {checkpoints / str(newest)}' in (
    second.output
  )
  assert f'{checkpoints / str(before)} is used instead' in second.output
  # The steps since then were made once more.
  assert second.summary['workers']['actor/0']['counts']['env_steps'] > 0
  assert second.summary['counts']['env_steps'] >= 3000


@needs_reverb
def test_a_run_without_a_whole_checkpoint_is_refused(start, run_dir, tmp_path):
  shutil.copytree(run_dir, tmp_path / 'run')
  for path in (tmp_path / 'run' / 'checkpoints').glob('[0-9]*'):
    truncate_largest(path)
  other = start('run', mode='processes')
  assert other.wait()[0] == 2
  assert 'and there is no other. Restore the files' in other.output

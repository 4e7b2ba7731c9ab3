"""Settings that hold for every test, before anything imports JAX."""

import os
import pathlib

import hypothesis
import pytest

# Tests measure the framework; an accelerator would add a minute of start-up.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Broadcasting [B] against [B, 1] trains, badly. An error here, in worker
# processes that a test starts as well.
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'

# Most of the time of an agent's tests is compilation. What was compiled is kept for
# other tests, for the processes that tests start, and for the next run; it computes
# the same bits (`programs/compilation_cache.py`). `make clean` deletes it.
COMPILED = pathlib.Path(__file__).parents[1] / 'build' / 'compiled'
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')

# Tests compile far more than they compute: a compiler that tries less hard halves
# the time of an agent's exact tests. Learning checks run what users run.
QUICK_COMPILER = (
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
)


def pytest_addoption(parser):
  """Adds the flags of `make chaos`."""
  group = parser.getgroup('chaos', 'faults of whole programs (-m chaos)')
  group.addoption(
    '--chaos-rounds',
    type=int,
    default=6,
    metavar='N',
    help='how often each kind of worker fails (default: 6)',
  )
  group.addoption(
    '--chaos-seed',
    type=int,
    metavar='N',
    help='of the schedule; printed, another one every time by default',
  )


def pytest_configure(config):
  """Chooses the compiler's effort, before anything imports JAX."""
  from distacme.programs import compilation_cache

  compilation_cache.shrink(COMPILED)
  folder = COMPILED / compilation_cache.machine()
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(folder))
  if not {'learning', 'hours'} & set(config.option.markexpr.split()) or (
    'not' in config.option.markexpr.split()
  ):
    os.environ.setdefault('XLA_FLAGS', QUICK_COMPILER)


# The same examples every time: a test that fails now and then teaches people to
# run it again. HYPOTHESIS_PROFILE=default looks for new ones.
hypothesis.settings.register_profile('repeatable', derandomize=True)
if 'HYPOTHESIS_PROFILE' not in os.environ:
  hypothesis.settings.load_profile('repeatable')


@pytest.fixture(scope='session', name='run_dir')
def fixture_run_dir(tmp_path_factory):
  """Returns the directory of a run that has learnt to catch."""
  from distacme.programs import cli
  from tests.programs import launching

  run_dir = tmp_path_factory.mktemp('afterwards') / 'run'
  flags = f'--mode local --env {launching.CATCH} --hidden-sizes 64'
  # Beyond the first good evaluation: there, one update may undo the next.
  flags += ' --min-replay-size 300 --eval-period 500 --max-env-steps 4000'
  flags += f' --max-eval-share 1 --run-dir {run_dir}'
  with pytest.raises(SystemExit) as exit_:
    cli.main(['train', *flags.split()])
  assert exit_.value.code == 0
  return run_dir


@pytest.fixture(scope='session', name='game_run_dir')
def fixture_game_run_dir(tmp_path_factory):
  """Returns the directory of a run of random, legal moves in tic-tac-toe."""
  pytest.importorskip('pgx')
  from distacme.programs import cli

  run_dir = tmp_path_factory.mktemp('games') / 'run'
  flags = '--mode local --agent distacme.testing.legal_agent'
  flags += ' --env pgx:tic_tac_toe --opponent perfect --eval-episodes 4'
  flags += ' --eval-period 100 --max-env-steps 300 --max-eval-share 1'
  # It goes on in new environments, and so with new opponents, on the way.
  flags += f' --checkpoint-period-steps 50 --run-dir {run_dir}'
  with pytest.raises(SystemExit) as exit_:
    cli.main(['train', *flags.split()])
  assert exit_.value.code == 0
  return run_dir

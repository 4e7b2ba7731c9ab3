"""Settings that hold for every test, before anything imports JAX."""

import os

import hypothesis

# Tests measure the framework; an accelerator would add a minute of start-up.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Broadcasting [B] against [B, 1] trains, badly. An error here, in worker
# processes that a test starts as well.
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'

# Tests compile far more than they compute: a compiler that tries less hard halves
# the time of an agent's exact tests. Learning checks run what users run.
QUICK_COMPILER = (
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
)


def pytest_configure(config):
  """Chooses the compiler's effort, before anything imports JAX."""
  if not {'learning', 'hours'} & set(config.option.markexpr.split()) or (
    'not' in config.option.markexpr.split()
  ):
    os.environ.setdefault('XLA_FLAGS', QUICK_COMPILER)


# The same examples every time: a test that fails now and then teaches people to
# run it again. HYPOTHESIS_PROFILE=default looks for new ones.
hypothesis.settings.register_profile('repeatable', derandomize=True)
if 'HYPOTHESIS_PROFILE' not in os.environ:
  hypothesis.settings.load_profile('repeatable')

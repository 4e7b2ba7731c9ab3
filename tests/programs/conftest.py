"""A run that has learnt to catch, for the tests of what comes afterwards."""

import pytest

from distacme.programs import cli
from tests.programs import launching


@pytest.fixture(scope='session', name='run_dir')
def fixture_run_dir(tmp_path_factory):
  run_dir = tmp_path_factory.mktemp('afterwards') / 'run'
  flags = f'--mode local --env {launching.CATCH} --hidden-sizes 64'
  # Beyond the first good evaluation: there, one update may undo the next.
  flags += ' --min-replay-size 300 --eval-period 500 --max-env-steps 4000'
  flags += f' --max-eval-share 1 --run-dir {run_dir}'
  with pytest.raises(SystemExit) as exit_:
    cli.main(['train', *flags.split()])
  assert exit_.value.code == 0
  return run_dir

"""A disk that is full ends a run with a sentence, and is no traceback."""

import resource

import pytest

from distacme import status
from distacme.programs import program
from distacme.programs import run_config
from distacme.programs.launchers import supervised_run
from distacme.run import files
from distacme.run import run_directory
from tests.programs import launching

PROGRAM = program.make_program(run_config.RunConfig())


@pytest.fixture(name='small_files')
def fixture_small_files():
  """Lets no file of this process and its children grow beyond 60 kB.

  Python ignores the signal. Settings and metrics fit, a checkpoint does not.
  """
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
  yield
  resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
  ('mode', 'period_s'),
  [
    ('local', 0.5),
    ('local', 1000),  # at the end
    pytest.param('threads', 0.5, marks=pytest.mark.program),
    pytest.param('processes', 0.5, marks=pytest.mark.program),
  ],
)
def test_a_run_that_cannot_be_saved_ends_with_what_to_do(
  mode, period_s, tmp_path, small_files
):
  flags = ['--num-actors', '1', '--min-replay-size', '100']
  flags += ['--checkpoint-period-s', f'{period_s}']
  flags += ['--checkpoint-period-steps', '200', '--max-env-steps', '100000']
  if period_s == 1000:
    flags += ['--max-env-steps', '400']
  if mode == 'local':  # or NumPy's half written file complains by itself, too
    flags += ['--replay-checkpoint-period-s', 'None']
  with launching.Run(tmp_path / 'run', *flags, mode=mode) as run:
    code, _ = run.wait()
    assert code == 1, run.output
    assert 'ended: failed' in run.output
    assert f'nothing can be written to {run.run_dir}' in run.output
    assert run.output.count('Make room there, or choose another run_dir') == 1
    assert 'Traceback' not in run.output
    assert run.summary.stop.reason == 'failed'


@pytest.fixture(name='full')
def fixture_full(tmp_path, monkeypatch):
  """A run's directory that takes nothing more."""
  directory = run_directory.RunDirectory(tmp_path)

  def write_json(path, value):
    del value
    raise files.NotWrittenError(path, 'No space left on device')

  monkeypatch.setattr(files, 'write_json', write_json)
  return directory


def test_an_end_that_cannot_be_written_is_shown_and_warned_of(full, caplog):
  shown = []
  run = supervised_run.SupervisedRun(PROGRAM, full, shown.append)
  run.request_stop(status.StopReason.INTERRUPTED)
  seen = run.finish()
  assert shown == [seen]
  assert seen.stop.reason == 'interrupted'
  (record,) = caplog.records
  assert f'nothing can be written to {full.summary} (No space left' in (
    record.getMessage()
  )


def test_an_end_that_nobody_can_tell_is_a_failure(full):
  seen = supervised_run.SupervisedRun(PROGRAM, full, lambda seen: None).finish()
  assert seen.stop.reason == 'failed'
  assert 'ended without saying why' in seen.stop.detail


def test_a_directory_that_takes_no_settings_is_refused(full):
  full.create()
  with pytest.raises(ValueError, match='Make room there'):
    full.begin({})

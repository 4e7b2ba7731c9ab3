"""A disk that is full ends a run with a sentence, and is no traceback."""

import errno
import logging
import resource
import subprocess

import pytest

from distacme import status
from distacme.agents import dqn
from distacme.programs import program
from distacme.programs import run_config
from distacme.programs import training
from distacme.programs.launchers import supervised_run
from distacme.run import files
from distacme.run import metrics
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


def test_a_disk_that_was_full_before_the_run_is_a_sentence(
  tmp_path, monkeypatch, capsys
):
  def open_none(*args, **kwargs):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(metrics, 'MetricsSink', open_none)
  run = training.train(
    dqn.Config(hidden_sizes=(8,)),
    env=launching.CATCH,
    mode='local',
    run_dir=tmp_path / 'run',
  )
  assert run.exit_code == 1
  assert (
    f'nothing can be written to {run.directory} (' in capsys.readouterr().out
  )


def test_a_log_whose_last_lines_find_no_room_is_closed():
  log = training._LogFile('/dev/full')
  log.emit(logging.makeLogRecord({'msg': 'the last words'}))
  log.close()
  assert log.stream is None


@pytest.fixture(name='mount')
def fixture_mount(tmp_path):
  """Returns a function that makes a file system of so many KiB; for root."""
  folder = tmp_path / 'small'
  folder.mkdir()
  mounted = []

  def mount(size):
    command = ['mount', '-t', 'tmpfs', '-o', f'size={size}k', 'tmpfs', folder]
    try:
      subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
      pytest.skip(f'no file system can be mounted here: {error}')
    mounted.append(folder)
    return folder

  yield mount
  for folder in mounted:
    subprocess.run(['umount', '-l', folder], check=True)


# From one that takes no config.json to one that takes all but the curves and the
# summary: another file is the first that finds no room.
@pytest.mark.chaos
@pytest.mark.parametrize('mode', ['local', 'processes'])
@pytest.mark.parametrize(
  'size', [4, 8, 12, 16, 24, 40, 60, 100, 160, 300, 600, 1200]
)
def test_whatever_file_finds_no_room_the_end_is_a_sentence(size, mode, mount):
  flags = (
    '--hidden-sizes',
    '8',
    '--min-replay-size',
    '100',
    '--num-actors',
    '1',
  )
  flags += ('--eval-period', '300', '--max-env-steps', '3000')
  flags += ('--checkpoint-period-s', '0.5', '--checkpoint-period-steps', '200')
  flags += ('--replay-checkpoint-period-s', '1', '--max-eval-share', '1')
  folder = mount(size)
  with launching.Run(
    folder / 'run',
    *flags,
    mode=mode,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  ) as run:
    output, _ = run.process.communicate(timeout=launching.DEADLINE_S)
    assert not run.left_after(1)
  assert run.process.returncode in (1, 2), output
  assert 'No space left on device' in output
  assert 'Traceback' not in output

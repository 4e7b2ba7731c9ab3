"""One run at a time in a directory, and its workers count as it."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from distacme.programs import cli
from distacme.run import lock as lock_lib
from distacme.run import run_directory
from tests.programs import launching


@pytest.fixture(name='directory')
def fixture_directory(tmp_path):
  directory = run_directory.RunDirectory(tmp_path / 'run')
  directory.create()
  return directory


def wait_no_longer_than(monkeypatch, seconds):
  monkeypatch.setattr(lock_lib, '_WAIT_S', seconds)


def train(run_dir, *flags):
  """Returns the exit code of a short run in this process."""
  tiny = f'--mode local --env {launching.CATCH} --hidden-sizes 64'
  tiny += f' --min-replay-size 300 --run-dir {run_dir} --max-env-steps 400'
  with pytest.raises(SystemExit) as exit_:
    cli.main(['train', *tiny.split(), *flags])
  return exit_.value.code


def test_a_second_run_is_refused_and_has_changed_nothing(
  directory, monkeypatch, capsys, caplog
):
  with lock_lib.take(directory):
    wait_no_longer_than(monkeypatch, 0.2)
    assert train(directory.path) == 2
  assert list(directory.path.iterdir()) == [directory.lock]
  who = f'{directory.path} is in use by process {os.getpid()}'
  assert f'{who}: waiting up to 0 s for its end' in caplog.text
  assert f'{who}, still after 0 s. Wait for its end' in capsys.readouterr().err


def test_a_run_that_waited_for_another_begins(directory, monkeypatch):
  lock = lock_lib.take(directory)
  said = threading.Event()
  monkeypatch.setattr(lock_lib._logger, 'warning', lambda *_: said.set())
  other = threading.Thread(
    target=lambda: said.wait(10) and lock.close()  # once it is waited for
  )
  other.start()
  lock_lib.take(directory).close()
  other.join()
  assert said.is_set()


def test_a_run_that_has_ended_leaves_its_directory_to_the_next(directory):
  assert train(directory.path) == 0
  assert train(directory.path, '--max-env-steps', '500') == 0


def test_what_is_refused_moves_no_logs(run_dir, tmp_path, capsys):
  run = tmp_path / 'run'
  shutil.copytree(run_dir, run)
  names = sorted(path.name for path in run.iterdir())
  assert train(run, '--learning-rate', '0.5') == 2
  assert 'learning_rate was 0.001 and is 0.5' in capsys.readouterr().err
  assert sorted(path.name for path in run.iterdir()) == names
  assert train(run, '--max-env-steps', '4000') == 0
  assert (run / 'logs.1').is_dir()


def test_a_file_system_without_locks_is_a_warning(
  directory, monkeypatch, caplog
):
  def no_locks(*_, **__):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(lock_lib, '_flock', no_locks)
  lock_lib.take(directory).close()
  lock_lib.share(directory)
  (record,) = caplog.records
  assert 'cannot be locked ([Errno 37] No locks available): see to it' in (
    record.getMessage()
  )


FORKS = """
import os, pathlib, sys
from distacme.run import lock as lock_lib
from distacme.run import run_directory
lock = lock_lib.take(run_directory.RunDirectory(pathlib.Path(sys.argv[1])))
if os.fork():
  os._exit(0)
print('forked', flush=True)
sys.stdin.read()
"""


def test_what_an_environment_forks_does_not_hold_the_lock(
  directory, monkeypatch
):
  with subprocess.Popen(
    [sys.executable, '-c', FORKS, directory.path],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  ) as process:
    assert process.stdout.readline() == b'forked\n'
    process.wait()
    wait_no_longer_than(monkeypatch, 0.0)
    lock_lib.take(directory).close()


@pytest.mark.program
@pytest.mark.launchpad
def test_the_lock_is_held_until_the_last_worker_has_ended(
  tmp_path, monkeypatch
):
  flags = ('--num-actors', '1', '--min-replay-size', '300')
  with launching.Run(tmp_path / 'run', *flags) as run:
    run.wait_until_learning()
    directory = run_directory.RunDirectory(run.run_dir)
    wait_no_longer_than(monkeypatch, 0.2)
    with pytest.raises(ValueError, match=f'by process {run.process.pid}, st'):
      lock_lib.take(directory)
    learner, actor = run.worker('learner/0'), run.worker('actor/0')
    # Whoever starts a worker again makes a place for its log.
    shutil.rmtree(directory.logs)
    actor.kill()
    run.wait_for(lambda: run.restarted('actor/0', actor))
    learner.send_signal(signal.SIGSTOP)
    run.process.kill()
    run.process.wait()
    assert not run.left_after(20, but=[learner])
    wait_no_longer_than(monkeypatch, 1.0)
    with pytest.raises(ValueError, match=f'by process {learner.pid}, still'):
      lock_lib.take(directory)
    learner.kill()
    lock_lib.take(directory).close()
    assert not run.left_after(0.5)


def test_a_lock_that_cannot_be_opened_is_a_sentence(tmp_path):
  directory = run_directory.RunDirectory(tmp_path)
  directory.lock.mkdir()
  with pytest.raises(ValueError, match='cannot be written to'):
    lock_lib.take(directory)

"""A worker starts by one command, in a process of its own, and ends as it should."""

from concurrent import futures
import contextlib
import dataclasses
import importlib
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import pytest

from distacme import lazy_imports
from distacme.agents import dqn
from distacme.programs import checks
from distacme.programs import experiment as experiment_lib
from distacme.programs import program as program_lib
from distacme.programs import run_config
from distacme.programs.workers import connection
from distacme.programs.workers import main
from distacme.programs.workers import process as process_lib
from distacme.run import endpoints
from distacme.run import run_state
from distacme.variables import client
from distacme.variables import server
from tests.programs import launching


def directory_of_a_run(tmp_path, **settings):
  """Returns the directory of a run that is to start."""
  run = run_config.RunConfig(
    env=launching.CATCH, run_dir=tmp_path / 'run', **settings
  )
  directory, lock = checks.check(experiment_lib.Experiment(run, dqn.Config()))
  lock.close()
  return directory


@contextlib.contextmanager
def started(directory, name):
  """Starts a worker by hand; yields its process."""
  directory.logs.mkdir(exist_ok=True)
  with open(directory.path / 'log', 'a') as log:
    process = subprocess.Popen(
      main.command(directory.path, sys.path, name), stderr=log
    )
  try:
    yield process
  finally:
    process.kill()
    process.wait()


def wait_for_incarnation(directory, number):
  deadline = time.monotonic() + 30
  while True:
    found = endpoints.find(directory.endpoints, 'variables/0')
    if found and found.incarnation == number:
      return found
    assert time.monotonic() < deadline, (directory.path / 'log').read_text()
    time.sleep(0.02)


def test_a_variable_server_started_again_is_found(tmp_path):
  directory = directory_of_a_run(tmp_path)
  alone = program_lib.read(directory)
  alone = dataclasses.replace(alone, workers=(alone['variables/0'],))
  program_lib.write(
    alone, directory
  )  # or it would wait for the others' goodbyes
  with started(directory, 'variables/0'):
    first = wait_for_incarnation(directory, 0)
    client.scale(first, 7)
  with started(directory, 'variables/0'):
    second = wait_for_incarnation(directory, 1)
  assert second == first._replace(incarnation=1)
  with socket.create_server((first.host, first.port)):
    with started(directory, 'variables/0') as process:
      third = wait_for_incarnation(directory, 2)
      assert third.port != first.port
      assert client.status(third).stop is None
      process.send_signal(signal.SIGTERM)
      assert process.wait(30) == 0
  assert directory.read_summary().stop.reason == 'terminated'
  log = (directory.path / 'log').read_text()
  assert f'Cannot listen on {first.address}' in log
  assert 'Another port is used.' in log


def test_a_worker_that_is_not_of_the_program_is_refused(tmp_path):
  directory = directory_of_a_run(tmp_path)
  with started(directory, 'actor/9') as process:
    assert process.wait(30) == 1
  log = (directory.path / 'log').read_text()
  assert "no worker of the program is called 'actor/9'" in log


def test_a_worker_s_process_imports_from_where_its_launcher_does(tmp_path):
  package = tmp_path / 'only here' / 'distacme' / 'programs' / 'workers'
  package.mkdir(parents=True)
  for folder in (package, package.parent, package.parent.parent):
    (folder / '__init__.py').touch()
  (package / 'main.py').write_text('main = print')
  current = tmp_path / 'current'
  current.mkdir()
  for name in ('distacme', 'runpy', 'logging'):
    (current / f'{name}.py').write_text('raise ImportError("the wrong one")')
  path = [str(tmp_path / 'only here'), *sys.path]
  said = subprocess.check_output(
    main.command(tmp_path / 'run', path, 'actor/0'), cwd=current, text=True
  )
  assert said == f"['{tmp_path / 'run'}', 'actor/0']\n"


def test_the_command_needs_a_directory_and_a_name(capsys):
  assert main.main(['run']) == 2
  assert 'RUN_DIR NAME' in capsys.readouterr().out


def test_a_variable_server_that_fails_ends(tmp_path, caplog):
  directory = directory_of_a_run(tmp_path)
  (directory.path / 'metrics.jsonl').mkdir()  # where it cannot write
  codes = []
  thread = threading.Thread(
    target=lambda: codes.append(main.run_worker(directory.path, 'variables/0'))
  )
  thread.start()
  thread.join(timeout=30)
  assert codes == [1]
  assert 'variables/0 failed' in caplog.text
  assert 'metrics.jsonl' in caplog.text


def run_in_thread(directory, name, terminated):
  """Returns the exit code of a worker in a thread that is asked to end."""
  experiment = experiment_lib.Experiment(
    run_config.RunConfig(env=launching.CATCH), dqn.Config()
  )
  with futures.ThreadPoolExecutor(1) as pool:
    running = pool.submit(
      main.run_worker, directory.path, name, experiment, terminated
    )
    terminated.set()
    return running.result(30)


def test_a_thread_that_waits_for_a_server_that_never_comes_can_be_ended(
  tmp_path, caplog
):
  directory = directory_of_a_run(tmp_path)
  assert run_in_thread(directory, 'evaluator/0', threading.Event()) == 0
  assert 'failed' not in caplog.text


def test_a_variable_server_in_a_thread_can_be_ended(tmp_path):
  directory = directory_of_a_run(tmp_path)
  alone = program_lib.read(directory)
  alone = dataclasses.replace(alone, workers=(alone['variables/0'],))
  program_lib.write(alone, directory)
  assert run_in_thread(directory, 'variables/0', threading.Event()) == 0
  assert directory.read_summary().stop.reason == 'terminated'


def test_a_worker_that_is_asked_to_end_stops_whatever_the_run_says(tmp_path):
  served = server.VariableServer(run_state.RunState())
  endpoints.write(tmp_path / 'endpoints', 'variables/0', served.endpoint)
  asked = threading.Event()
  line = connection.Connection(
    'actor/0', tmp_path / 'endpoints', terminated=asked
  )
  assert not line.stopped()
  assert line.status().stop is None  # by its own line
  served.stop(grace_s=0)
  asked.set()
  assert line.stopped()
  line.close()


class Process:
  """Notes how it was told to end, as others are still at work."""

  def __init__(self):
    self.ends = []
    self.ended = threading.Event()

  def on_terminate(self, function):
    pass

  def end(self, code):
    self.ends.append(code)
    self.ended.set()


class Line:
  """A worker's line to a run that goes on."""

  told = None
  terminated = False

  def __init__(self, name, folder, terminated):
    self.name = name

  def terminate(self):
    pass

  def report(self, state=''):
    pass

  def stopped(self):
    return False

  def fail(self, detail):
    Line.told = (self.name, detail)

  def done(self):
    pass

  def close(self):
    pass


@pytest.mark.parametrize('fails', ['learner/0', 'replay/0'])
def test_one_that_fails_ends_the_process_that_it_shares(
  tmp_path, monkeypatch, fails
):
  directory = directory_of_a_run(tmp_path, replay_in_learner=True)
  process = Process()
  monkeypatch.setattr(process_lib, 'take_process', lambda run_dir: process)
  monkeypatch.setattr(connection, 'Connection', Line)
  monkeypatch.setattr('os.environ', {})
  monkeypatch.setattr('sys.path', [])

  def run(context):
    if context.name == fails:
      raise RuntimeError('no room')
    # Until then it would go on, and nobody see that the other failed.
    assert process.ended.wait(10)

  monkeypatch.setattr(
    importlib, 'import_module', lambda path: types.SimpleNamespace(run=run)
  )
  given = experiment_lib.Experiment(run_config.RunConfig(), dqn.Config())
  assert main.run_worker(directory.path, 'learner/0', given) == 1
  assert process.ends[0] == 1
  name, detail = Line.told
  assert name == fails
  assert 'RuntimeError: no room' in detail


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('learner/0', ['loaded', 'learner/0', 'replay/0']),
    ('actor/0', ['actor/0']),
  ],
)
def test_what_hides_tensorflow_is_imported_before_a_lodger_starts(
  tmp_path, monkeypatch, name, expected
):
  directory = directory_of_a_run(tmp_path, replay_in_learner=True)
  order = []
  monkeypatch.setattr(process_lib, 'take_process', lambda run_dir: Process())
  monkeypatch.setattr(connection, 'Connection', Line)
  monkeypatch.setattr('os.environ', {})
  monkeypatch.setattr('sys.path', [])
  monkeypatch.setattr(lazy_imports, 'load_all', lambda: order.append('loaded'))
  module = types.SimpleNamespace(run=lambda context: order.append(context.name))
  monkeypatch.setattr(importlib, 'import_module', lambda path: module)
  given = experiment_lib.Experiment(run_config.RunConfig(), dqn.Config())
  assert main.run_worker(directory.path, name, given) == 0
  assert order[:1] == expected[:1]
  assert sorted(order) == sorted(expected)

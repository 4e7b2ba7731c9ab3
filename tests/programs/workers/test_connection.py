"""Workers of one process, of which one fails."""

import threading

import pytest

from distacme.programs.workers import connection
from distacme.programs.workers import main
from distacme.programs.workers import process as process_lib


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

  def __init__(self, name, address):
    self.name = name

  def terminate(self):
    pass

  def report(self, state=None):
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
def test_one_that_fails_ends_the_process_that_it_shares(monkeypatch, fails):
  process = Process()
  monkeypatch.setattr(process_lib, 'take_process', lambda: process)
  monkeypatch.setattr(connection, 'Connection', Line)

  def run(task, line):
    if task.name == fails:
      raise RuntimeError('no room')
    # Until then it would go on, and nobody see that the other failed.
    assert process.ended.wait(10)

  monkeypatch.setattr(main.Task, 'run', run)
  tasks = [main.Task(name) for name in ('learner/0', 'replay/0')]
  assert main.run_workers('localhost:1', *tasks) == 1
  assert process.ends[0] == 1
  name, detail = Line.told
  assert name == fails
  assert 'RuntimeError: no room' in detail

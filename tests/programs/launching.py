"""Runs `distacme train` as a user does, and watches its processes."""

import os
import pathlib
import subprocess
import sys
import time
import uuid

import psutil

from distacme.run import endpoints
from distacme.run import metrics as metrics_lib
from distacme.run import run_directory

SCRIPT = pathlib.Path(sys.executable).with_name('distacme')
CATCH = 'distacme.testing.environments:catch'
DEADLINE_S = 90.0
# Of the environment, which descendants inherit: even those that nobody looked for
# while their parents lived.
_MARK = 'DISTACME_TEST_RUN'


class Run:
  """A running `distacme train`; a context that leaves no process behind."""

  def __init__(
    self, run_dir, *flags, env=CATCH, mode='processes', command=None, **popen
  ):
    """Starts it, or another command that makes a run in run_dir."""
    self.run_dir = pathlib.Path(run_dir)
    self._output = self.run_dir.parent / f'{self.run_dir.name}.out'
    if command is None:
      command = [SCRIPT, 'train', '--env', env, '--mode', mode]
      command += ['--run-dir', self.run_dir, *flags]
    self._mark = uuid.uuid4().hex
    with open(self._output, 'a') as output:
      self.process = subprocess.Popen(
        [str(part) for part in command],
        **{'stdout': output, 'stderr': subprocess.STDOUT, **popen},
        cwd=self.run_dir.parent,
        env={
          **os.environ,
          'PYTHONPATH': str(pathlib.Path(__file__).parent),
          'PYTHONSAFEPATH': '',  # users do not set it
          _MARK: self._mark,
        },
      )

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    for process in [self.process, *self.family()]:
      try:
        process.kill()
      except psutil.NoSuchProcess:
        pass
    self.process.wait()

  @property
  def output(self):
    return self._output.read_text()

  @property
  def summary(self):
    return run_directory.RunDirectory(self.run_dir).read_summary()

  @property
  def server(self):
    """Returns where the variable server listens; None if it does not yet."""
    return self.endpoint('variables/0')

  def endpoint(self, name):
    """Returns where a service listens; None if it does not yet."""
    return endpoints.find(self.run_dir / 'endpoints', name)

  def metrics(self):
    """Returns what the run has logged so far."""
    path = self.run_dir / metrics_lib.METRICS_FILE
    return metrics_lib.read_metrics(path) if path.exists() else []

  def family(self):
    """Returns all descendants that run, whoever their parent is by now."""
    return [
      process
      for process in psutil.process_iter()
      if process.pid != self.process.pid and self._is_marked(process)
    ]

  def _is_marked(self, process):
    try:
      mark = process.environ().get(_MARK)
    except psutil.Error:  # it has just ended, or is somebody else's
      return False
    return mark == self._mark and alive(process)

  def worker(self, name):
    """Returns the process of a worker: the one that prints into its log."""
    log = str(self.run_dir.resolve() / 'logs' / name)
    for process in self.family():
      try:
        if os.readlink(f'/proc/{process.pid}/fd/1') == log:
          return process
      except FileNotFoundError:  # it has just ended
        pass
    raise LookupError(f'{name} is not among {self.family()}')

  def restarted(self, name, first):
    """Says whether a worker runs in another process than its `first`."""
    try:
      return self.worker(name).pid != first.pid
    except LookupError:
      return False

  def wait_until_learning(self):
    """Waits until the learner has made a step."""

    self.wait_for(
      lambda: any(
        row['worker'] == 'learner/0' and row['learner_steps'] > 0
        for row in self.metrics()
      )
    )

  def wait_for(self, condition, timeout_s=DEADLINE_S):
    """Waits for `condition()` while the run goes on."""
    deadline = time.monotonic() + timeout_s
    while not condition():
      assert self.process.poll() is None, self.output
      assert time.monotonic() < deadline, self.output
      time.sleep(0.05)

  def wait(self, timeout_s=DEADLINE_S):
    """Waits for the end; returns exit code and seconds that it took."""
    start = time.monotonic()
    code = self.process.wait(timeout_s)
    return code, time.monotonic() - start

  def left_after(self, seconds, but=()):
    """Returns the descendants that still run after so many seconds, `but` some."""

    def left():
      return [process for process in self.family() if process not in but]

    deadline = time.monotonic() + seconds
    while left() and time.monotonic() < deadline:
      time.sleep(0.02)
    return left()


def alive(process):
  try:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
  except psutil.NoSuchProcess:
    return False

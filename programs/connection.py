"""What every worker of a program has: its run, and perhaps its process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent import futures
import importlib
import logging
import os
import pathlib
import signal
import sys
import threading
import time
import traceback
from typing import Any, NamedTuple

from distacme import core
from distacme import counting
from distacme import params
from distacme import run_directory
from distacme.runtime import directory_lock
from distacme.runtime import stop_signals

# Names the file in which the launcher looks for warnings.
WARNINGS_VARIABLE = 'DISTACME_WARNINGS'
_GOODBYE_S = 1.0
_STATUS_S = 5.0
_POLL_S = 0.1


class Connection:
  """A worker's line to its run; a `core.Reporter` and a source of params."""

  def __init__(self, name: str, address: str, timeout_s: float = 60.0):
    """Connects to the variable server at `address`; waits for it."""
    from distacme.variables import client

    self.name = name
    self._address = address
    self._client = client.VariableClient(
      address, name, connect_timeout_s=timeout_s
    )
    self._reporter = self._client.reporter()
    self._terminated = threading.Event()
    self.params = params.RemoteParams(self._client)

  def report(
    self,
    counts: Mapping[str, int] | None = None,
    metrics: Mapping[str, float] | None = None,
    state: str = '',
  ) -> core.Directive:
    """See `core.Reporter`; a terminated process stops whatever the run says."""
    directive = self._reporter.report(counts, metrics, state)
    if self.terminated and directive.stop is None:
      return directive._replace(stop=counting.StopReason.TERMINATED.value)
    return directive

  def request_stop(self, reason: str, detail: str = '') -> None:
    """See `core.Reporter`."""
    self._reporter.request_stop(reason, detail)

  def fail(self, detail: str) -> None:
    """See `core.Reporter`; sends what was counted, too."""
    self._reporter.fail(detail)
    self._reporter.flush(_GOODBYE_S)

  def status(self) -> dict[str, Any]:
    """Returns the run's status; see `counting.RunState`."""
    from distacme.variables import client

    return client.status(self._address, timeout_s=_STATUS_S)

  @property
  def terminated(self) -> bool:
    """Whether this worker was ended from outside, by SIGTERM."""
    return self._terminated.is_set()

  def terminate(self) -> None:
    """Makes this worker stop; safe to call from a signal handler."""
    self._terminated.set()

  def stopped(self) -> bool:
    """Whether this worker is to end."""
    return self.report().stop is not None

  def wait_for_params(self) -> bool:
    """Subscribes and waits for params; False if the run stops first."""
    self._client.subscribe()
    self.report(state='waiting for params')
    while not self.stopped():
      if self._client.wait_newer(-1, timeout_s=0.1) is not None:
        return True
    return False

  def wait_for_learning(self) -> bool:
    """Waits for the first learner step, which a resumed run has had.

    Returns:
      Whether there is something to do; False if the run stopped, unless it used
      up its steps and is evaluated once more.
    """
    while True:
      directive = self.report(state='waiting for the learner')
      if directive.counts.get('learner_steps', 0):
        return True
      if directive.stop is not None:
        return directive.stop == counting.StopReason.STEP_LIMIT
      time.sleep(_POLL_S)

  def done(self) -> None:
    """Says goodbye, if there is still somebody to say it to."""
    self.report(state=counting.DONE)
    self._reporter.flush(_GOODBYE_S)

  def close(self) -> None:
    """Ends the threads of the connection."""
    self._client.close()


class WorkerProcess:
  """The process of a worker that has one of its own: logs, signals, its end."""

  def __init__(self) -> None:
    """Takes over the process; to be called in its main thread."""
    from distacme.runtime import launchpad

    self._terminated = False
    self._on_terminate: list[Callable[[], Any]] = []  # nothing to end yet
    # Orbax tells absl about every step it takes.
    logging.getLogger('absl').setLevel(logging.WARNING)
    logging.basicConfig(
      level=logging.INFO,
      format='%(asctime)s %(levelname)s %(name)s: %(message)s',
      force=True,
    )
    if path := os.environ.get(WARNINGS_VARIABLE):
      run_directory.warnings_to(pathlib.Path(path))
    stop_signals.ignore_terminal()
    signal.signal(signal.SIGTERM, lambda *_: self._terminate())
    stop_signals.explain_when_asked()
    directory_lock.share()
    stop_signals.die_with_parent()
    if launchpad.stop_requested():
      self._terminate()

  def end(self, code: int) -> None:
    """Ends the process without waiting for threads.

    Native threads of the libraries may wait for servers that are gone.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

  def on_terminate(self, function: Callable[[], Any]) -> None:
    """Calls `function` when the process is to end; now if it already is."""
    self._on_terminate.append(function)
    if self._terminated:
      function()

  def _terminate(self) -> None:
    if not self._on_terminate:
      self.end(0)
    self._terminated = True
    for function in self._on_terminate:
      function()


def take_process() -> WorkerProcess | None:
  """Returns this worker's process, None if it is a thread among others.

  A launcher of processes runs a worker in the main thread of its process, a
  launcher of threads in another: the program need not say which it is.
  """
  return WorkerProcess() if owns_process() else None


def owns_process() -> bool:
  """Whether this worker has a process of its own."""
  return threading.current_thread() is threading.main_thread()


class Task(NamedTuple):
  """A worker, as data.

  Attributes:
    name: its kind and number, such as actor/3; the kind is the module of
      `distacme.programs.workers` whose `run` is called.
    args: for `run`, after the worker's connection.
  """

  name: str
  args: tuple[Any, ...] = ()

  @property
  def kind(self) -> str:
    """What the worker is: actor for actor/3."""
    return self.name.partition('/')[0]

  def run(self, connection: Connection) -> None:
    """Works until the run stops."""
    # Here and not before: each process imports what its own workers need.
    module = importlib.import_module(f'distacme.programs.workers.{self.kind}')
    module.run(connection, *self.args)


def run_workers(address: str, *tasks: Task) -> int:
  """Runs workers of one process from their connections to their ends.

  Args:
    address: of the variable server.
    *tasks: of the worker that owns the process, if it has one, and of those
      that live beside it, in threads.

  Returns:
    The exit code, 1 after a failure; a process of their own ends here instead.
  """
  process = take_process()
  first, *others = tasks
  with futures.ThreadPoolExecutor(len(tasks)) as pool:
    running = [pool.submit(_run, address, task, process) for task in others]
    code = _run(address, first, process)
    code = max([code, *(other.result() for other in running)])
    if process:  # whose end waits for no thread
      process.end(code)
  return code


def run_service(own_address: str, variables_address: str, *tasks: Task) -> int:
  """Runs workers of a process that listens, whose address each gets first."""
  return run_workers(
    variables_address,
    *(task._replace(args=(own_address, *task.args)) for task in tasks),
  )


def _run(address: str, task: Task, process: WorkerProcess | None) -> int:
  connection: Connection | None = None
  try:
    connection = Connection(task.name, address)
    if process:
      process.on_terminate(connection.terminate)
    connection.report(state='starting')
    task.run(connection)
    connection.done()
    code = 0
  except BaseException as error:  # whoever launched it decides what is next
    code = 1
    _tell(error, task.name, connection, ends_run=process is None)
    if process and not (connection and connection.stopped()):
      # Whoever lives beside it would go on, and the failure not be seen.
      process.end(code)
  if connection and not process:  # a process ends without waiting for threads
    connection.close()
  return code


def _tell(
  error: BaseException,
  name: str,
  connection: Connection | None,
  ends_run: bool,
) -> None:
  """Writes into the log and tells the run why a worker failed."""
  # Such a failure is a sentence, with which the run ends: it is said then.
  in_a_sentence = isinstance(error, run_directory.NotWrittenError)
  detail = (
    str(error) if in_a_sentence else ''.join(traceback.format_exception(error))
  )
  level = logging.INFO if in_a_sentence else logging.ERROR
  logging.log(level, '%s failed:\n%s', name, detail)
  if connection is None or connection.terminated:
    return
  try:
    if not in_a_sentence:
      connection.fail(detail)
    # What is not finite would be so again after a restart.
    if in_a_sentence or ends_run or isinstance(error, FloatingPointError):
      connection.request_stop(counting.StopReason.FAILED.value, detail)
  except ConnectionError as unheard:
    logging.error('%s could not tell its run: %s', name, unheard)

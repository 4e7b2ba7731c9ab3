"""A worker, from its start to its process's end."""

from __future__ import annotations

from concurrent import futures
import importlib
import logging
import traceback
from typing import Any, NamedTuple

from distacme.programs.workers import connection as connection_lib
from distacme.programs.workers import process as process_lib
from distacme.run import files
from distacme.run import status as status_lib


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

  def run(self, connection: connection_lib.Connection) -> None:
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
  process = process_lib.take_process()
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


def _run(
  address: str, task: Task, process: process_lib.WorkerProcess | None
) -> int:
  connection: connection_lib.Connection | None = None
  try:
    connection = connection_lib.Connection(task.name, address)
    if process:
      process.on_terminate(connection.terminate)
    connection.report(state=status_lib.WorkerState.STARTING)
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
  connection: connection_lib.Connection | None,
  ends_run: bool,
) -> None:
  """Writes into the log and tells the run why a worker failed."""
  # Such a failure is a sentence, with which the run ends: it is said then.
  in_a_sentence = isinstance(error, files.NotWrittenError)
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
      connection.request_stop(status_lib.StopReason.FAILED, detail)
  except ConnectionError as unheard:
    logging.error('%s could not tell its run: %s', name, unheard)

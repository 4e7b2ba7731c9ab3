"""Runs a worker from its start to the end of its process.

`python -m distacme.programs.workers.main RUN_DIR NAME` runs a worker in a
process of its own, under any launcher. No heavy module is imported before the
process's signal handlers are set.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent import futures
import dataclasses
import importlib
import logging
import math
import os
import pathlib
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

from distacme.programs.workers import process as process_lib

if TYPE_CHECKING:
  from distacme.programs import experiment as experiment_lib
  from distacme.programs.workers import connection as connection_lib
  from distacme.programs.workers import context as context_lib


def command(
  run_dir: pathlib.Path, import_path: Sequence[str], name: str
) -> list[str]:
  """Returns the command that runs a worker in a process of its own.

  Args:
    run_dir: of the run.
    import_path: folders from which the launcher imports. The launcher may find
      distacme itself in one that it has added, and with `-m` Python looks into
      the current folder first.
    name: of the worker.
  """
  start = (
    f'import sys; sys.path[:] = {list(import_path)!r}; '
    'from distacme.programs.workers import main; '
    'sys.exit(main.main(sys.argv[1:]))'
  )
  return [sys.executable, '-c', start, str(run_dir), name]


def main(arguments: list[str]) -> int:
  """Runs the worker that the arguments name."""
  if len(arguments) != 2:
    print('usage: python -m distacme.programs.workers.main RUN_DIR NAME')
    return 2
  return run_worker(pathlib.Path(arguments[0]).resolve(), arguments[1])


def run_worker(
  run_dir: pathlib.Path,
  name: str,
  experiment: experiment_lib.Experiment | None = None,
  terminated: threading.Event | None = None,
) -> int:
  """Runs a worker, and the workers that lodge in its process, to their ends.

  Args:
    run_dir: of the run, which has config.json and program.json.
    name: of the worker.
    experiment: of the run, for threads of the process that has the experiment;
      else the experiment is read from the run directory.
    terminated: set, for such a thread, once it is to stop whatever the run says.

  Returns:
    The exit code, 1 after a failure. In a process of the workers' own, the
    process ends instead of a return.
  """
  process = process_lib.take_process(run_dir)
  try:
    contexts = _contexts(run_dir, name, process, experiment)
    if len(contexts) > 1:
      _import_all(contexts[0])
  except Exception:
    logging.exception('%s cannot start', name)
    if process:
      process.end(1)
    return 1
  if terminated is not None:
    contexts = [
      dataclasses.replace(context, terminated=terminated)
      for context in contexts
    ]
  first, *others = contexts
  with futures.ThreadPoolExecutor(len(contexts)) as pool:
    running = [pool.submit(_run, context) for context in others]
    code = _run(first)
    code = max([code, *(other.result() for other in running)])
    if process:  # whose end waits for no thread
      process.end(code)
  return code


def _contexts(
  run_dir: pathlib.Path,
  name: str,
  process: process_lib.WorkerProcess | None,
  experiment: experiment_lib.Experiment | None,
) -> list[context_lib.Context]:
  """Returns the contexts of a worker and of its lodgers, the worker's first."""
  from distacme.programs import program as program_lib
  from distacme.programs.workers import context as context_lib
  from distacme.run import run_directory

  directory = run_directory.RunDirectory(run_dir)
  program = program_lib.read(directory)
  spec = program[name]
  if process:
    # As the launcher would set them, who may not have been the one who started it.
    os.environ.update(spec.env)
    added = program.import_path
    sys.path[:] = [*added, *(path for path in sys.path if path not in added)]
  return [
    context_lib.Context(one, directory, program, process, given=experiment)
    for one in (name, *program.lodgers(name))
  ]


def _module(context: context_lib.Context) -> Any:
  """Returns the module of a worker; each process imports those of its own."""
  return importlib.import_module(
    f'distacme.programs.workers.{context.spec.kind}'
  )


def _import_all(context: context_lib.Context) -> None:
  """Imports now, in one thread, what a worker would import when it is used.

  Which hides TensorFlow meanwhile, and a lodger may import it.
  """
  from distacme import lazy_imports

  _module(context)
  _ = context.experiment  # whose agent says what else
  lazy_imports.load_all()


def _run(context: context_lib.Context) -> int:
  """Runs one worker to its end; returns the worker's exit code."""
  try:
    return _run_to_its_end(context)
  finally:
    if not context.process:  # a process ends without waiting for threads
      _close(context)


def _close(context: context_lib.Context) -> None:
  """Closes what a worker of a thread has opened; a failure is only said."""
  try:
    context.opened.close()
  except Exception:  # of an environment, or of files that cannot be written
    logging.warning('%s could not close all', context.name, exc_info=True)


def _run_to_its_end(context: context_lib.Context) -> int:
  line: connection_lib.Connection | None = None
  process = context.process
  try:
    # Before the first heartbeat, after which a worker that is silent seems to
    # hang.
    module = _module(context)
    if not context.spec.listens:  # services need neither agent nor environment
      context = dataclasses.replace(context, given=context.experiment)
    if context.spec.needs:
      line = _connect(context)
      context.opened.callback(line.close)
      context = dataclasses.replace(context, line=line)
    module.run(context)
    if line:
      line.done()
    code = 0
  except BaseException as error:  # whoever launched it decides what is next
    if line is None and context.terminated.is_set():
      return 0  # it was asked to end before it could begin
    code = 1
    _tell(error, context.name, line, ends_run=process is None)
    if process and not (line and line.stopped()):
      # Whoever lives beside it would go on, and the failure not be seen.
      process.end(code)
  return code


def _connect(context: context_lib.Context) -> connection_lib.Connection:
  """Returns the worker's connection to the run, after a first report."""
  from distacme import status as status_lib
  from distacme.programs.workers import connection as connection_lib

  # On a cluster the server's job may wait in a queue, or for its lost host to be
  # noticed; the supervision of this worker's job looks whether it will come.
  patience = {'timeout_s': math.inf, 'lost_after_s': math.inf}
  line = connection_lib.Connection(
    context.name,
    context.directory.endpoints,
    terminated=context.terminated,
    **(patience if context.on_cluster else {}),
  )
  if context.process:
    context.process.on_terminate(line.terminate)
  line.report(state=status_lib.WorkerState.STARTING)
  return line


def _tell(
  error: BaseException,
  name: str,
  line: connection_lib.Connection | None,
  ends_run: bool,
) -> None:
  """Writes a worker's failure into the log, and reports it to the run."""
  from distacme import status as status_lib
  from distacme.run import files

  # Such a failure is a sentence, with which the run ends: it is said then.
  in_a_sentence = isinstance(
    error, (files.NotWrittenError, status_lib.NotFiniteError)
  )
  detail = (
    str(error) if in_a_sentence else ''.join(traceback.format_exception(error))
  )
  level = logging.INFO if in_a_sentence else logging.ERROR
  logging.log(level, '%s failed:\n%s', name, detail)
  if line is None or line.terminated:
    return
  try:
    failed = status_lib.StopReason.FAILED
    # A run that is ending for another reason does not say why this worker failed.
    if not in_a_sentence or line.report().stop not in (None, failed):
      line.fail(detail)
    # As after NaN that JAX's own checks found: it would be so after a restart.
    if in_a_sentence or ends_run or isinstance(error, FloatingPointError):
      line.request_stop(status_lib.StopReason.FAILED, detail)
  except ConnectionError as unheard:
    logging.error('%s could not tell its run: %s', name, unheard)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))

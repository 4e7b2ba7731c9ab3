"""Handles the process that a worker owns: logs, signals and the end."""

from __future__ import annotations

from collections.abc import Callable
import logging
import os
import pathlib
import signal
import sys
import threading
from typing import Any

from distacme.run import lock
from distacme.run import notices
from distacme.run import run_directory
from distacme.runtime import process_tree
from distacme.runtime import signals


class WorkerProcess:
  """The process of a worker that has its own: logs, signals and the end."""

  def __init__(self, run_dir: pathlib.Path) -> None:
    """Takes over the process; to be called in the process's main thread.

    Args:
      run_dir: of the run that the worker belongs to.
    """
    self._terminated = False
    self._on_terminate: list[Callable[[], Any]] = []  # nothing to end yet
    signal.signal(signal.SIGTERM, lambda *_: self._terminate())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    signals.ignore_terminal()
    logging.basicConfig(
      level=logging.INFO,
      format='%(asctime)s %(levelname)s %(name)s: %(message)s',
      force=True,
    )
    # Orbax tells absl about every step it takes, and of what it raises as well.
    for handler in logging.getLogger().handlers:
      handler.addFilter(lambda record: record.name != 'absl')
    directory = run_directory.RunDirectory(run_dir)
    notices.warnings_to(directory.warnings)
    signals.explain_crashes()
    signals.explain_when_asked()
    lock.share(directory)
    process_tree.die_with_parent()

  def end(self, code: int) -> None:
    """Ends the process without waiting for threads.

    Native threads of the libraries may wait for servers that are gone.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

  def on_terminate(self, function: Callable[[], Any]) -> None:
    """Calls `function` when the process is to end; at once if it already is."""
    self._on_terminate.append(function)
    if self._terminated:
      function()

  def _terminate(self) -> None:
    if not self._on_terminate:
      self.end(0)
    self._terminated = True
    for function in self._on_terminate:
      function()


def take_process(run_dir: pathlib.Path) -> WorkerProcess | None:
  """Returns this worker's process, None if the worker is a thread among others.

  A launcher of processes runs a worker in the main thread of the worker's
  process, a launcher of threads in another thread: the program need not name
  the launcher.
  """
  if threading.current_thread() is threading.main_thread():
    return WorkerProcess(run_dir)
  return None

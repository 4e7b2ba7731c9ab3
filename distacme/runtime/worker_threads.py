"""Workers as threads of this process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
import threading

from distacme.runtime import supervision
from distacme.runtime import topology

# Runs a worker by its name, until its end; returns its exit code.
RunWorker = Callable[[str], int]


def start_all(
  program: topology.Program, run: RunWorker
) -> list[supervision.Worker]:
  """Starts every worker that does not live with another one."""
  return [_start(spec.name, run) for spec in program.owners()]


def _start(name: str, run: RunWorker) -> supervision.Worker:
  ended: futures.Future[int] = futures.Future()

  def run_to_the_end() -> None:
    try:
      ended.set_result(run(name))
    except BaseException as error:
      ended.set_exception(error)

  threading.Thread(target=run_to_the_end, name=name, daemon=True).start()
  return worker(name, ended)


def worker(name: str, ended: futures.Future[int]) -> supervision.Worker:
  """Returns what supervision needs to know of a thread.

  Args:
    name: of the worker.
    ended: done once the thread has ended, with its exit code.
  """

  def exit_code() -> int | None:
    if not ended.done():
      return None
    return 1 if ended.exception() or ended.result() else 0

  def nothing() -> None:
    """Threads end by themselves or not at all; their launcher may ask them."""

  return supervision.Worker(
    name,
    exit_code,
    terminate=nothing,
    kill=nothing,
    explain=nothing,
    log=None,
    restart=None,
  )

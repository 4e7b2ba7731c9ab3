"""Launchpad: the nodes of a program, and its workers as threads or processes.

The only module that imports launchpad. Of Launchpad's own parts it uses the
program, its nodes and late-bound addresses, and both local launchers. It does
not use Courier, which unpickles whatever a peer sends, nor the launchers'
supervision, which takes a killed worker for one that is done and needs 10 s to
stop (launchpad 0.5.2, launch/worker_manager.py).
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Mapping
import contextlib
import functools
import io
import math
import pathlib
import signal
import subprocess
import time
from typing import Any, NamedTuple, TypeAlias

from absl import flags
import launchpad as lp
from launchpad import address as lp_address
from launchpad.launch.run_locally import launch_local_output_to_files
from launchpad.nodes import base
from launchpad.nodes.python import local_multi_processing
from launchpad.nodes.python import node as lp_node

from distacme.runtime import stop_signals

Program: TypeAlias = lp.Program


class AddressHandle(base.Handle[str]):
  """Stands for the address of a service until the launcher has bound it."""

  def __init__(self, address: lp_address.Address):
    self._address = address

  def dereference(self) -> str:
    """Returns host:port."""
    return str(self._address.resolve())


class WorkerNode(lp_node.PyNode[Any, Any]):
  """Runs a function with arguments of which some may be handles."""


class ServiceNode(WorkerNode):
  """A worker that listens: its function gets its own address first."""

  def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any):
    address = lp_address.Address()
    super().__init__(function, AddressHandle(address), *args, **kwargs)
    self._own_address = address
    self.allocate_address(address)

  def create_handle(self) -> AddressHandle:
    """Returns what other nodes know this one by."""
    return self._track_handle(AddressHandle(self._own_address))


class Worker(NamedTuple):
  """A running worker.

  Attributes:
    name: group and number.
    exit_code: returns None while it runs, 0 if it is done.
    terminate: asks it to end (SIGTERM).
    kill: makes it. Threads have neither.
    log: the file of what it printed.
  """

  name: str
  exit_code: Callable[[], int | None]
  terminate: Callable[[], None]
  kill: Callable[[], None]
  log: pathlib.Path | None


def launch_processes(
  program: Program,
  logs: pathlib.Path,
  environment: Mapping[str, Mapping[str, str]],
) -> list[Worker]:
  """Starts every node as a process of its own, through `launchpad.launch`.

  Args:
    program: to launch.
    logs: directory for what each worker prints.
    environment: environment variables by group.
  """
  resources = {
    group: local_multi_processing.PythonProcess(
      env={**variables, **stop_signals.parent_variable()}
    )
    for group, variables in environment.items()
  }
  # Launchpad reads the directory from the environment, once, at import.
  launch_local_output_to_files._LOGGING_DIR = str(logs)
  manager = _launch(
    program, 'local_mp', local_resources=resources, terminal='output_to_files'
  )
  return [
    Worker(name, process.poll, process.terminate, process.kill, logs / name)
    for name, process in _members(manager)
    if isinstance(process, subprocess.Popen)
  ]


def launch_threads(program: Program) -> list[Worker]:
  """Starts every node as a thread, through `launchpad.launch`."""
  manager = _launch(program, 'local_mt')

  def exit_code(thread_worker: Any) -> int | None:
    if thread_worker.thread.is_alive():
      return None
    failed = thread_worker.future.exception() or thread_worker.future.result()
    return 1 if failed else 0

  def nothing() -> None:
    """Threads end by themselves or not at all."""

  return [
    Worker(name, functools.partial(exit_code, thread), nothing, nothing, None)
    for name, thread in _members(manager)
  ]


def _launch(program: Program, launch_type: str, **kwargs: Any) -> Any:
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['distacme'])  # not sys.argv: those flags are not absl's
  # No countdown to SIGKILL, which would take the launcher with it.
  flags.FLAGS['lp_termination_notice_secs'].value = -1
  handlers = {
    number: signal.getsignal(number)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
  }
  with contextlib.redirect_stdout(io.StringIO()):
    manager = lp.launch(program, launch_type=launch_type, **kwargs)
  for number, handler in handlers.items():
    signal.signal(number, handler)
  # `wait` below does this, and says what went wrong once.
  atexit.unregister(manager.wait)
  return manager


def _members(manager: Any) -> Iterable[tuple[str, Any]]:
  """Yields the name and the Popen or ThreadWorker of each worker.

  Launchpad offers no public way to them; the version is pinned.
  """
  for label, workers in manager._active_workers.items():
    for index, worker in enumerate(workers):
      name = label if len(workers) == 1 and '/' in label else f'{label}/{index}'
      yield name, worker


def service_address(program: Program, group: str) -> str:
  """Returns where the service of a launched program listens."""
  (node,) = program.groups[group]
  return str(node.create_handle().dereference())


def service_addresses(program: Program) -> dict[str, str]:
  """Returns where every service of a launched program listens, by group."""
  return {
    group: service_address(program, group)
    for group, nodes in program.groups.items()
    if any(isinstance(node, ServiceNode) for node in nodes)
  }


def wait(
  workers: list[Worker],
  *,
  on_failure: Callable[[Worker, str], None],
  stopping: Callable[[], bool],
  poll: Callable[[], None],
  grace_s: float,
  period_s: float = 0.05,
) -> None:
  """Waits until all workers have ended.

  Args:
    workers: to wait for.
    on_failure: called, with the worker and how it ended, for each that ends
      with another exit code than 0, or not at all; makes the others stop.
    stopping: whether the run is to end.
    poll: called between looks.
    grace_s: seconds after which workers of a run that is to end are killed,
      first asked by a signal at half that time.
    period_s: seconds between looks.
  """
  running = list(workers)
  asked = False
  stop_at = math.inf
  while running:
    for worker in list(running):
      code = worker.exit_code()
      if code is not None:
        running.remove(worker)
        # One that had not begun yet when it was asked to end did nothing wrong.
        if code and not (code == -signal.SIGTERM and stopping()):
          on_failure(
            worker, f'signal {-code}' if code < 0 else f'exit code {code}'
          )
    if stopping():
      stop_at = min(stop_at, time.monotonic())
    waited = time.monotonic() - stop_at
    if waited > grace_s / 2 and not asked:
      asked = True
      for worker in running:
        worker.terminate()
    if waited > grace_s:
      for worker in running:
        on_failure(worker, f'no end {grace_s:.0f} s after it was to stop')
        worker.kill()
      return
    poll()
    time.sleep(period_s)


def stop_requested() -> bool:
  """Whether this worker's process got SIGTERM while Launchpad prepared it."""
  return bool(lp.wait_for_stop(0))

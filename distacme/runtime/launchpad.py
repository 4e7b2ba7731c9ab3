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
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from typing import Any, TypeAlias

from absl import flags
import launchpad as lp
from launchpad import address as lp_address
from launchpad.launch.run_locally import launch_local_output_to_files
from launchpad.nodes import base
from launchpad.nodes.python import local_multi_processing
from launchpad.nodes.python import node as lp_node

from distacme.runtime import process_tree
from distacme.runtime import signals
from distacme.runtime import supervision

Program: TypeAlias = lp.Program


class AddressHandle(base.Handle[str]):
  """Stands for the address of a service until the launcher has bound it."""

  def __init__(self, address: lp_address.Address):
    self._address = address

  def dereference(self) -> str:
    """Returns host:port, the host as a number.

    Launchpad says localhost, which a host may resolve to ::1 alone, or not at all;
    every service listens on 127.0.0.1.
    """
    host, _, port = str(self._address.resolve()).rpartition(':')
    return f'{"127.0.0.1" if host == "localhost" else host}:{port}'


class _WithImportPath:
  """A function that, unpickled, finds the modules that it would find here."""

  def __init__(self, function: Callable[[], Any]):
    self._function = function

  def __call__(self) -> Any:
    return self._function()

  def __reduce__(self) -> Any:
    # Unpickled in this order: what the function needs is imported from there.
    return _second, (_ImportPath(), self._function)


class _ImportPath:
  """The path of this process, which becomes that of the one that unpickles it."""

  def __reduce__(self) -> Any:
    path = [
      # '' and '.' are folders that are there; some loaders leave mere names.
      os.path.abspath(entry) if not entry or os.path.exists(entry) else entry
      for entry in sys.path
    ]
    return _import_from, (path,)


def _import_from(path: list[str]) -> None:
  # Nothing of its own: a process of Launchpad looks among its modules first.
  sys.path[:] = path


def _second(first: Any, second: Any) -> Any:
  del first
  return second


class WorkerNode(lp_node.PyNode[Any, Any]):
  """Runs a function with arguments of which some may be handles."""

  @property
  def function(self) -> Callable[[], Any]:
    """What runs in the worker, which imports from where this process does."""
    return _WithImportPath(super().function)


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


def launch_processes(
  program: Program,
  logs: pathlib.Path,
  environment: Mapping[str, Mapping[str, str]],
) -> list[supervision.Worker]:
  """Starts every node as a process of its own, through `launchpad.launch`.

  Args:
    program: to launch.
    logs: directory for what each worker prints.
    environment: environment variables by group; that of a node that is added to a
      program, labelled 'actor/5', is 'actor'.
  """
  resources = {
    label: local_multi_processing.PythonProcess(
      env={
        **environment[label.partition('/')[0]],
        **process_tree.parent_variable(),
      }
    )
    for label in program.groups
  }
  # Launchpad reads the directory from the environment, once, at import.
  fresh = logs / 'new'
  launch_local_output_to_files._LOGGING_DIR = str(fresh)
  with signals.children_deaf():
    manager = _launch(
      program, 'local_mp', local_resources=resources, terminal='output_to_files'
    )
  workers = []
  for title, process in _members(manager):
    # 'actor/5/0' is the only node labelled 'actor/5'.
    name = '/'.join(title.split('/')[:2])
    log = logs / name
    log.parent.mkdir(exist_ok=True)
    if log.exists():  # of one that was there before
      log.rename(log.with_name(f'{log.name}.before'))
    (fresh / title).rename(log)  # it goes on writing there
    workers.append(_Process(process, log).worker(name))
  shutil.rmtree(fresh)
  return workers


class _Process:
  """A process that Launchpad started and that can be started again."""

  def __init__(self, first: subprocess.Popen[bytes], log: pathlib.Path):
    self._process = first
    self._log = log
    # Launchpad does not keep it, and runs on Linux only.
    entries = pathlib.Path(f'/proc/{first.pid}/environ').read_bytes()
    self._environment = dict(
      entry.split(b'=', 1) for entry in entries.split(b'\0') if entry
    )

  def worker(self, name: str) -> supervision.Worker:
    return supervision.Worker(
      name,
      exit_code=lambda: self._process.poll(),
      terminate=lambda: self._process.terminate(),
      kill=lambda: self._process.kill(),
      explain=lambda: self._process.send_signal(signals.EXPLAIN),
      log=self._log,
      restart=self._restart,
    )

  def _restart(self) -> None:
    self._log.parent.mkdir(parents=True, exist_ok=True)  # or a user moved it
    with open(self._log, 'a') as output, signals.children_deaf():
      self._process = subprocess.Popen(
        self._process.args,
        env=self._environment,
        stdout=output,
        stderr=output,
      )


def launch_threads(program: Program) -> list[supervision.Worker]:
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
    supervision.Worker(
      name,
      functools.partial(exit_code, thread),
      terminate=nothing,
      kill=nothing,
      explain=nothing,
      log=None,
      restart=None,
    )
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
  # `supervision` does this, and says what went wrong once.
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


def stop_requested() -> bool:
  """Whether this worker's process got SIGTERM while Launchpad prepared it."""
  return bool(lp.wait_for_stop(0))

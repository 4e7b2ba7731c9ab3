"""Starts a program's workers by Launchpad, as threads or processes.

No other module imports launchpad. This module turns a `topology.Program` into a
`launchpad.Program` and launches that. Three parts of Launchpad are not used. One is
addresses, since our workers find each other by the run directory. Another is Courier,
which unpickles data from any peer. The third is the launchers' supervision, which
takes a killed worker for a done one and needs 10 s to stop (launchpad 0.5.2,
launch/worker_manager.py).
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Mapping, Sequence
import contextlib
import functools
import io
import pathlib
import shutil
import threading
from typing import Any

from absl import flags
import launchpad as lp
from launchpad.launch import worker_manager
from launchpad.launch.local_multi_processing import commands
from launchpad.launch.run_locally import launch_local_output_to_files
from launchpad.nodes.python import node as lp_node

from distacme.runtime import process_tree
from distacme.runtime import signals
from distacme.runtime import subprocesses
from distacme.runtime import supervision
from distacme.runtime import topology
from distacme.runtime import worker_threads


def launch_processes(
  program: topology.Program,
  command: subprocesses.Command,
  logs: pathlib.Path,
  family: process_tree.Family,
) -> list[supervision.Worker]:
  """Starts every worker that has a process of its own; see `runtime.subprocesses.start_all`.

  The commands are those that restarts use: the workers' processes have none of
  Launchpad's modules, handlers or files.
  """
  launched = _make_program(
    program,
    lambda spec: _Process(
      command(spec.name), subprocesses.environment(spec, family)
    ),
  )
  # Launchpad reads the directory from the environment, once, at import.
  fresh = logs / 'new'
  launch_local_output_to_files._LOGGING_DIR = str(fresh)
  with signals.children_deaf():
    manager = _launch(launched, 'local_mp', terminal='output_to_files')
  workers = []
  for name, process in _members(manager):
    log = logs / name
    log.parent.mkdir(exist_ok=True)
    (fresh / name).rename(log)  # the process goes on writing there
    workers.append(
      subprocesses.Process(
        program[name], command, logs, family, process
      ).worker(name)
    )
  shutil.rmtree(fresh)
  return workers


class _Process(lp_node.PyNode):
  """A node that is a command.

  Launchpad's own processes import Launchpad first, half a second of a core each, and
  unpickle a function.
  """

  def __init__(self, command: Sequence[str], environment: Mapping[str, str]):
    super().__init__(lambda: None)
    self.command = command
    self.environment = environment

  @staticmethod
  def to_executables(
    nodes: Sequence[_Process], label: str, launch_context: Any
  ) -> list[commands.Command]:
    """Returns the commands of the nodes of a label."""
    return [
      commands.Command(
        list(node.command), node.environment, f'{label}/{number}'
      )
      for number, node in enumerate(nodes)
    ]


def launch_threads(
  program: topology.Program, run: worker_threads.RunWorker
) -> list[supervision.Worker]:
  """Starts every worker as a thread of this process; see `runtime.worker_threads.start_all`."""
  launched = _make_program(
    program,
    lambda spec: lp_node.PyNode(functools.partial(run, spec.name)),
  )
  manager = _launch(launched, 'local_mt')
  return [
    worker_threads.worker(name, thread.future)
    for name, thread in _members(manager)
  ]


def _make_program(
  program: topology.Program,
  make_node: Callable[[topology.WorkerSpec], lp_node.PyNode],
) -> lp.Program:
  """Returns Launchpad's program, with a node for each process or thread.

  Args:
    program: the program as a topology.
    make_node: returns a worker's node.
  """
  launched = lp.Program('distacme')
  for spec in program.owners():
    launched.add_node(make_node(spec), label=spec.kind)
  return launched


def _launch(program: lp.Program, launch_type: str, **kwargs: Any) -> Any:
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['distacme'])  # not sys.argv, which has other flags
  # Signals are the launcher's: a second one would be lost in Launchpad's handlers.
  worker_manager._register_signal_handler = lambda number, handler: None
  with contextlib.redirect_stdout(io.StringIO()):
    manager = lp.launch(program, launch_type=launch_type, **kwargs)
  # `supervision` waits, and reports errors once.
  atexit.unregister(manager.wait)
  waits: list[Any] = threading._threading_atexits  # type: ignore[attr-defined]
  waits[:] = [call for call in waits if call.func != manager.wait]
  return manager


def _members(manager: Any) -> Iterable[tuple[str, Any]]:
  """Yields the name and the Popen or ThreadWorker of each worker.

  Launchpad has no public access to these; the version is pinned.
  """
  for label, workers in manager._active_workers.items():
    for index, worker in enumerate(workers):
      # A process's label has its number.
      yield label if '/' in label else f'{label}/{index}', worker

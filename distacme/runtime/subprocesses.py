"""Starts workers as processes of this host, by `subprocess`, and restarts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import os
import pathlib
import subprocess

from distacme.runtime import process_tree
from distacme.runtime import signals
from distacme.runtime import supervision
from distacme.runtime import topology

# Returns the command line of a worker's process, given the worker's name.
Command = Callable[[str], Sequence[str]]


class Process:
  """The process of a worker; restarts use the same command."""

  def __init__(
    self,
    spec: topology.WorkerSpec,
    command: Command,
    logs: pathlib.Path,
    first: subprocess.Popen[bytes] | None = None,
  ):
    """Starts the process, or takes over a started one.

    Args:
      spec: of the worker.
      command: of the worker's process.
      logs: directory for the process's output, a file named after the worker.
      first: the process, if it was started already.
    """
    self._command = command(spec.name)
    self._environment = environment(spec)
    self._log = logs / spec.name
    self._process = first or self._start('w')

  def worker(self, name: str) -> supervision.Worker:
    """Returns the process's worker for supervision."""
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
    self._process = self._start('a')

  def _start(self, mode: str) -> subprocess.Popen[bytes]:
    self._log.parent.mkdir(parents=True, exist_ok=True)  # if a user moved it
    with open(self._log, mode) as output, signals.children_deaf():
      return subprocess.Popen(
        self._command,
        env={**os.environ, **self._environment},
        stdout=output,
        stderr=output,
      )


def environment(spec: topology.WorkerSpec) -> Mapping[str, str]:
  """Returns variables for a worker's process, to add to the launcher's."""
  return {**spec.env, **process_tree.parent_variable()}


def start(
  spec: topology.WorkerSpec, command: Command, logs: pathlib.Path
) -> supervision.Worker:
  """Starts a worker as a process.

  Args:
    spec: of the worker.
    command: of the worker's process.
    logs: directory for the process's output.
  """
  log = logs / spec.name
  if log.exists():  # of an earlier worker of that name
    log.rename(log.with_name(f'{log.name}.before'))
  return Process(spec, command, logs).worker(spec.name)


def start_all(
  program: topology.Program, command: Command, logs: pathlib.Path
) -> list[supervision.Worker]:
  """Starts every worker that has a process of its own."""
  return [start(spec, command, logs) for spec in program.owners()]

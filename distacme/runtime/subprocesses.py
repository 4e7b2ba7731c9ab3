"""Starts workers as processes of this host, by `subprocess`, and restarts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import os
import pathlib
import subprocess
from typing import Literal

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
    family: process_tree.Family,
    first: subprocess.Popen[bytes] | None = None,
    mode: Literal['w', 'a'] = 'w',
  ):
    """Starts the process, or takes over a started one.

    Args:
      spec: of the worker.
      command: of its process.
      logs: directory; what the process prints goes into a file by its name.
      family: that the process belongs to.
      first: the process, if it was started.
      mode: 'a' to go on in the log of an earlier process.
    """
    self._command = command(spec.name)
    self._environment = environment(spec, family)
    self._log = logs / spec.name
    self._process = first or self._start(mode)

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


def environment(
  spec: topology.WorkerSpec, family: process_tree.Family
) -> Mapping[str, str]:
  """Returns the variables that a worker's process has besides its launcher's."""
  return {**spec.env, **family.variables()}


def start(
  spec: topology.WorkerSpec,
  command: Command,
  logs: pathlib.Path,
  family: process_tree.Family,
) -> supervision.Worker:
  """Starts a worker as a process.

  Args:
    spec: of the worker.
    command: of its process.
    logs: directory for what it prints.
    family: that the process belongs to.
  """
  log = logs / spec.name
  if log.exists():  # of an earlier worker of that name
    log.rename(log.with_name(f'{log.name}.before'))
  return Process(spec, command, logs, family).worker(spec.name)


def start_all(
  program: topology.Program,
  command: Command,
  logs: pathlib.Path,
  family: process_tree.Family,
) -> list[supervision.Worker]:
  """Starts every worker that has a process of its own."""
  return [start(spec, command, logs, family) for spec in program.owners()]

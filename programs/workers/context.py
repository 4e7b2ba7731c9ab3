"""Gives a worker its run: name, directory, program, line and experiment."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from distacme.programs import program as program_lib
from distacme.programs.workers import process as process_lib
from distacme.run import endpoints
from distacme.run import run_directory
from distacme.runtime import topology

if TYPE_CHECKING:  # heavy modules that not every worker needs
  from distacme.programs import experiment as experiment_lib
  from distacme.programs.workers import connection as connection_lib


# The address of this worker's host for workers on other hosts, where there are any.
ADVERTISED = 'DISTACME_HOST'


class Interface(NamedTuple):
  """The interface of a service, and the address that it tells clients."""

  host: str
  advertised: str


@dataclasses.dataclass(frozen=True)
class Context:
  """A worker's place in its run.

  Attributes:
    name: of the worker, e.g. 'actor/3'.
    directory: of the run.
    program: all workers of the run.
    process: of the worker; None for a worker that is a thread among others.
    line: the connection to the run; None for the variable server, which is the
      connection's other end.
    given: the experiment, in a process that has the experiment already.
    terminated: set once a thread is to stop whatever the run says.
    opened: closes what the worker has opened, where the worker is a thread, also
      after a failure; the end of a process closes it all anyway.
  """

  name: str
  directory: run_directory.RunDirectory
  program: topology.Program
  process: process_lib.WorkerProcess | None
  line: connection_lib.Connection | None = None
  given: experiment_lib.Experiment | None = None
  terminated: threading.Event = dataclasses.field(
    default_factory=threading.Event
  )
  opened: contextlib.ExitStack = dataclasses.field(
    default_factory=contextlib.ExitStack
  )

  @property
  def spec(self) -> topology.WorkerSpec:
    """The worker's description in the program."""
    return self.program[self.name]

  @property
  def index(self) -> int:
    """The worker's number among the workers of its kind."""
    return self.spec.index

  @property
  def owns_process(self) -> bool:
    """True if this worker and its lodgers have the process to themselves."""
    return self.process is not None

  @property
  def connection(self) -> connection_lib.Connection:
    """The connection to the run."""
    assert self.line is not None, (
      f'{self.name} does not need {program_lib.VARIABLES}'
    )
    return self.line

  @functools.cached_property
  def config(self) -> dict[str, Any]:
    """The content of the run's config.json."""
    return self.directory.read_config()

  @functools.cached_property
  def experiment(self) -> experiment_lib.Experiment:
    """The run's experiment; imports the agent and the user's functions."""
    if self.given is not None:
      return dataclasses.replace(
        self.given, resumed_from=self.config['resumed_from']
      )
    from distacme.programs import recorded_run

    return recorded_run.read_experiment(self.directory)

  def find(self, service: str) -> endpoints.Endpoint | None:
    """Returns a service's endpoint once the service listens; None at a stop."""
    return endpoints.wait(
      self.directory.endpoints, service, self.connection.stopped
    )

  def listened(self, name: str = '') -> endpoints.Endpoint | None:
    """Returns this worker's endpoint before a restart, None at first.

    Args:
      name: of a further endpoint of this worker.
    """
    return endpoints.find(self.directory.endpoints, name or self.name)

  @property
  def interface(self) -> Interface:
    """The interface on which this worker's services listen."""
    if self.on_cluster:
      return Interface('0.0.0.0', os.environ[ADVERTISED])
    return Interface('127.0.0.1', '')

  @property
  def on_cluster(self) -> bool:
    """True if workers of the run may be on other hosts."""
    return bool(os.environ.get(ADVERTISED))

  def listens(self, endpoint: endpoints.Endpoint, name: str = '') -> None:
    """Lets other workers find this worker's endpoint.

    Args:
      endpoint: of this worker.
      name: of a further endpoint of this worker.
    """
    endpoints.write(self.directory.endpoints, name or self.name, endpoint)

"""What a worker knows of its run, when it starts."""

from __future__ import annotations

import dataclasses
import functools
import threading
from typing import TYPE_CHECKING, Any

from distacme.programs import program as program_lib
from distacme.programs.workers import process as process_lib
from distacme.run import endpoints
from distacme.run import run_directory
from distacme.runtime import topology

if TYPE_CHECKING:  # heavy, and not every worker needs them
  from distacme.programs import experiment as experiment_lib
  from distacme.programs.workers import connection as connection_lib


@dataclasses.dataclass(frozen=True)
class Context:
  """A worker's place in its run.

  Attributes:
    name: of the worker, e.g. 'actor/3'.
    directory: of the run.
    program: all workers of the run.
    process: of the worker; None for a thread among others.
    line: to the run; None for the variable server, which is the other end.
    given: the experiment, in a process that has it already.
    terminated: set once a thread among others is to stop whatever the run says.
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

  @property
  def spec(self) -> topology.WorkerSpec:
    """Returns the worker as the program describes it."""
    return self.program[self.name]

  @property
  def index(self) -> int:
    """Returns the worker's number among those of its kind."""
    return self.spec.index

  @property
  def owns_process(self) -> bool:
    """Whether no worker but this one, or a lodger, lives in this process."""
    return self.process is not None

  @property
  def connection(self) -> connection_lib.Connection:
    """Returns the line to the run."""
    assert self.line is not None, (
      f'{self.name} does not need {program_lib.VARIABLES}'
    )
    return self.line

  @functools.cached_property
  def config(self) -> dict[str, Any]:
    """Returns what config.json says of the run."""
    return self.directory.read_config()

  @functools.cached_property
  def experiment(self) -> experiment_lib.Experiment:
    """Returns the run's experiment; imports the agent and the user's functions."""
    if self.given is not None:
      return dataclasses.replace(
        self.given, resumed_from=self.config['resumed_from']
      )
    from distacme.programs import recorded_run

    return recorded_run.read_experiment(self.directory)

  def find(self, service: str) -> endpoints.Endpoint | None:
    """Returns where a service listens, once it does; None if the run stops."""
    return endpoints.wait(
      self.directory.endpoints, service, self.connection.stopped
    )

  def listened(self) -> endpoints.Endpoint | None:
    """Returns where this worker listened before it was restarted, if it was."""
    return endpoints.find(self.directory.endpoints, self.name)

  def listens(self, endpoint: endpoints.Endpoint) -> None:
    """Lets other workers find this one."""
    endpoints.write(self.directory.endpoints, self.name, endpoint)

"""Lists the modes of a run, a launcher each; no other module knows modes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import importlib
import importlib.util
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
  from distacme import status
  from distacme.programs import experiment as experiment_lib
  from distacme.programs import run_config
  from distacme.run import run_directory
  from distacme.runtime import signals
  from distacme.runtime import topology

Mode = Literal['local', 'threads', 'processes', 'slurm', 'kubernetes']


class Launcher(NamedTuple):
  """A way to start a run.

  Attributes:
    module: the path of a module with a function
      `run(experiment, directory, show, stops)` as below; the module is imported when a
      run is started.
    has_services: True if workers talk to a variable server and a replay server;
      else one thread owns all.
    has_processes: True if each worker has a process, and so a log of its own.
    scales: True if actors come and go while the run goes on.
    remote: True if workers run on the hosts of a cluster. `run` then returns when
      they have been submitted, and the run goes on without this process.
    shares_disk: True if workers write into the run directory that the user sees;
      else their module has the functions `forward`, `request_stop` and
      `log_command`, too.
  """

  module: str
  has_services: bool = True
  has_processes: bool = False
  scales: bool = False
  remote: bool = False
  shares_disk: bool = True

  def check_installed(self) -> None:
    """Checks that the libraries of this mode are installed.

    Raises:
      ImportError: if the workers need a library that is not installed.
    """
    if self.has_services and importlib.util.find_spec('grpc') is None:
      raise ImportError(
        'workers side by side talk over gRPC, which is not installed. Run: '
        "pip install 'grpcio>=1.60', or run with '--mode local'."
      )

  def check(
    self,
    run: run_config.RunConfig,
    program: topology.Program,
    directory: run_directory.RunDirectory,
  ) -> None:
    """Checks that the cluster of a remote mode can take a program.

    Raises:
      ValueError: if it cannot, or a run in the directory goes on there.
    """
    if self.remote:
      self._module().check(run, program, directory)

  def job_states(
    self, directory: run_directory.RunDirectory
  ) -> Mapping[str, str]:
    """Returns the states of a run's jobs in the cluster's words, by worker.

    Jobs that have ended are not among them.

    Raises:
      ValueError: if the cluster's engine does not answer.
    """
    found: Mapping[str, str] = self._module().job_states(directory)
    return found

  def cancel(self, directory: run_directory.RunDirectory) -> None:
    """Cancels all jobs of a run in a cluster."""
    self._module().cancel(directory)

  def forward(
    self, directory: run_directory.RunDirectory, arguments: Sequence[str]
  ) -> int | None:
    """Runs a command where a run writes its files, if that is not here.

    Args:
      directory: of the run, here.
      arguments: of `distacme`, to which the run directory there is added.

    Returns:
      The command's exit code; None if the files are here, or cannot be reached.
    """
    if self.shares_disk:
      return None
    code: int | None = self._module().forward(directory, arguments)
    return code

  def request_stop(self, directory: run_directory.RunDirectory) -> bool | None:
    """Asks a run to end whose files are not here.

    Returns:
      Whether it could be asked; None if the files are here.
    """
    if self.shares_disk:
      return None
    asked: bool = self._module().request_stop(directory)
    return asked

  def log_command(
    self, directory: run_directory.RunDirectory, worker: str, follow: bool
  ) -> list[str]:
    """Returns the command that prints the log of a worker of a cluster's job.

    Args:
      directory: of the run.
      worker: by name.
      follow: whether to go on with what the worker logs from now on.
    """
    command: list[str] = self._module().log_command(directory, worker, follow)
    return command

  def scale(
    self, directory: run_directory.RunDirectory, num_actors: int
  ) -> None:
    """Sets the number of actors of a run in a cluster.

    Raises:
      ValueError: if the cluster refuses.
    """
    self._module().scale(directory, num_actors)

  def _module(self) -> Any:
    return importlib.import_module(self.module)

  def run(
    self,
    experiment: experiment_lib.Experiment,
    directory: run_directory.RunDirectory,
    show: Callable[[status.Status], None],
    stops: signals.StopRequests,
  ) -> status.Status:
    """Runs an experiment to its end; returns the last status.

    Args:
      experiment: the settings of the run.
      directory: of the run.
      show: called with the run's status now and then.
      stops: ends the run, of which nothing may have begun yet.

    Raises:
      signals.Stopped: if the run was to end before it began, or at once.
    """
    ended: status.Status = self._module().run(
      experiment, directory, show, stops
    )
    return ended


_HERE = 'distacme.programs.launchers'
LAUNCHERS: dict[str, Launcher] = {
  'local': Launcher(f'{_HERE}.one_process', has_services=False),
  'threads': Launcher(f'{_HERE}.threads'),
  'processes': Launcher(f'{_HERE}.processes', has_processes=True, scales=True),
  **{
    engine: Launcher(
      f'distacme.deploy.{engine}',
      has_processes=True,
      scales=True,
      remote=True,
      shares_disk=shares_disk,
    )
    for engine, shares_disk in (('slurm', True), ('kubernetes', False))
  },
}


def find(mode: str) -> Launcher:
  """Returns the launcher of a mode.

  Raises:
    ValueError: if there is no such mode.
  """
  if mode not in LAUNCHERS:
    raise ValueError(
      f'no mode is called {mode!r}. Known: {", ".join(LAUNCHERS)}.'
    )
  return LAUNCHERS[mode]


def remote() -> list[str]:
  """Returns the modes of a cluster."""
  return [mode for mode, launcher in LAUNCHERS.items() if launcher.remote]


def scaling() -> list[str]:
  """Returns the modes in which actors come and go."""
  return [mode for mode, launcher in LAUNCHERS.items() if launcher.scales]

"""How runs can be started: one entry for each mode, and nothing else knows modes."""

from __future__ import annotations

from collections.abc import Callable
import importlib
import importlib.util
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
  from distacme import status
  from distacme.programs import experiment as experiment_lib
  from distacme.run import run_directory

Mode = Literal['local', 'threads', 'processes']


class Launcher(NamedTuple):
  """A way to start a run.

  Attributes:
    module: its path, imported when a run is started, with a function
      `run(experiment, directory, show)` as below.
    has_services: whether workers talk to a variable server and a replay server;
      else one thread owns all.
    has_processes: whether each worker has a process, and so a log of its own.
    scales: whether actors come and go while the run goes on.
    remote: whether workers run on other hosts, which find no pickle of ours.
  """

  module: str
  has_services: bool = True
  has_processes: bool = False
  scales: bool = False
  remote: bool = False

  def check_installed(self) -> None:
    """Refuses to start workers that cannot work together here.

    Raises:
      ImportError: if they need what is not installed.
    """
    if self.has_services and importlib.util.find_spec('reverb') is None:
      raise ImportError(
        'workers side by side need a replay server, and Reverb, the only one '
        'that there is, is not installed. Use Python 3.10 on Linux and install '
        "'distacme[launch]', or run with '--mode local'."
      )

  def run(
    self,
    experiment: experiment_lib.Experiment,
    directory: run_directory.RunDirectory,
    show: Callable[[status.Status], None],
  ) -> status.Status:
    """Runs an experiment to its end; returns the last status.

    Args:
      experiment: to run.
      directory: of the run.
      show: called with the run's status now and then.
    """
    ended: status.Status = importlib.import_module(self.module).run(
      experiment, directory, show
    )
    return ended


_HERE = 'distacme.programs.launchers'
LAUNCHERS: dict[str, Launcher] = {
  'local': Launcher(f'{_HERE}.one_process', has_services=False),
  'threads': Launcher(f'{_HERE}.threads'),
  'processes': Launcher(f'{_HERE}.processes', has_processes=True, scales=True),
}


def find(mode: str) -> Launcher:
  """Returns the launcher of a mode.

  Raises:
    ValueError: if there is none.
  """
  if mode not in LAUNCHERS:
    raise ValueError(
      f'no mode is called {mode!r}. Known: {", ".join(LAUNCHERS)}.'
    )
  return LAUNCHERS[mode]


def scaling() -> list[str]:
  """Returns the modes in which actors come and go."""
  return [mode for mode, launcher in LAUNCHERS.items() if launcher.scales]

"""Runs an experiment in whichever mode it asks for, and says how it ended."""

from __future__ import annotations

from collections.abc import Callable
import logging
import os
import pathlib
from typing import IO, Any, NamedTuple

from distacme.programs import checks
from distacme.programs import experiment as experiment_lib
from distacme.programs import presets
from distacme.run import run_directory
from distacme.run import status as status_lib
from distacme.runtime import signals

Runner = Callable[..., status_lib.Status]


def train(
  config: Any,
  *,
  env: str | Callable[[int], Any],
  network: Any = None,
  **settings: Any,
) -> int:
  """Trains an agent, as the command `distacme train` does.

  Call it below `if __name__ == '__main__':`, since the workers of a program are
  processes of their own.

  Args:
    config: the agent's, e.g. `dqn.Config()`; its module is the agent.
    env: a name (`distacme.environments.make`), or a function of a seed that
      returns a dm_env.Environment or a gymnasium.Env.
    network: a function with Haiku modules, as the agent describes it.
    **settings: fields of `distacme.programs.experiment.RunConfig`, e.g. mode,
      num_actors, seed, max_env_steps, solved_return, run_dir; but for preset,
      since `config` says it all: give `presets.config(agent, env)` for that.

  Returns:
    0 if the run reached its end, else what `runtime.signals.exit_code` says.

  Raises:
    ValueError: if agent, environment, network and settings do not fit.
  """
  if 'preset' in settings:
    raise ValueError(
      f'preset={settings["preset"]!r} is for the command line. Give '
      'config=distacme.programs.presets.config(agent, env) instead.'
    )
  agent = type(config).__module__.removeprefix('distacme.agents.')
  if 'run_dir' in settings:
    settings['run_dir'] = pathlib.Path(settings['run_dir'])
  experiment = experiment_lib.Experiment(
    experiment_lib.RunConfig(
      agent=agent,
      env=_name(env),
      network=_name(network),
      preset=presets.NONE,
      **settings,
    ),
    config,
    environment=None if isinstance(env, str) else env,
    network=network,
  )
  return prepare(experiment).run()


def _name(given: Any) -> str:
  """Returns what config.json says of a name, of a function or of nothing."""
  if isinstance(given, str):
    return given
  return (
    '' if given is None else getattr(given, '__name__', type(given).__name__)
  )


class PreparedRun(NamedTuple):
  """A run that has been checked and may start."""

  experiment: experiment_lib.Experiment
  directory: run_directory.RunDirectory
  lock: IO[str]  # of the directory, closed when the run has ended
  runner: Runner

  def run(self) -> int:
    """Runs to the end with a display around it; returns the exit code."""
    with self.lock:
      return self._run()

  def _run(self) -> int:
    from distacme.programs.view import plotting
    from distacme.programs.view import progress
    from distacme.programs.view import terminal

    terminal.say(f'run directory: {self.directory.path}')
    run = self.experiment.run
    if preset := presets.find(run.agent, run.env, run.preset):
      holds = preset.in_force(run, self.experiment.agent)
      terminal.say(f'preset {preset.name}: {holds}')
    terminal.say(run.evaluation)
    if self.experiment.run.mode != 'processes':  # whose workers have logs
      _log_to(self.directory.logs / 'all')
    with self.directory.running(), progress.Display() as display:
      status = self.runner(self.experiment, self.directory, display.show)
    terminal.say(progress.ending(status))
    assert status.stop is not None  # it has ended
    if status.stop.reason != status_lib.StopReason.TERMINATED:
      plotting.draw_if_possible(self.directory.path)  # else it is to be gone
    terminal.say(f'run directory: {self.directory.path}')
    terminal.flush()
    code = signals.exit_code(status.stop.reason)
    if status.failures:
      code = code or 1
      if self.experiment.run.mode == 'threads':
        os._exit(code)  # a thread that is stuck would keep the interpreter
    return code


def prepare(experiment: experiment_lib.Experiment) -> PreparedRun:
  """Checks everything that can be checked before any worker starts.

  Raises:
    ValueError: if something about the experiment does not fit.
    ImportError: if the mode needs what is not installed.
  """
  run = runner(experiment.run.mode)
  directory, lock = checks.check(experiment)
  return PreparedRun(experiment, directory, lock, run)


def runner(mode: str) -> Runner:
  """Returns what runs an experiment in `mode`.

  Raises:
    ImportError: if that needs what is not installed.
  """
  import jax

  if mode == 'local':
    from distacme.programs.launchers import one_process
    from distacme.programs.workers import devices

    devices.use_one_core()
    return one_process.run
  try:
    from distacme.programs.launchers import this_host
  except ImportError as error:
    raise ImportError(
      f'mode {mode!r} needs Launchpad, which cannot be imported ({error}). '
      "Use Python 3.10 on Linux and install 'distacme[launch]', or run with "
      "'--mode local'."
    ) from error
  if mode == 'processes':
    # The launcher checks the agent; the accelerator is the learner's.
    jax.config.update('jax_platforms', 'cpu')
  return this_host.run


class _LogFile(logging.FileHandler):
  """A log of what is on the terminal as well."""

  def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
    """Says nothing: where it cannot be written, neither can the rest be."""


def _log_to(path: pathlib.Path) -> None:
  """Writes what is logged in this process into a file, too."""
  handler = _LogFile(path)
  handler.setFormatter(
    logging.Formatter('%(asctime)s %(levelname)s %(name)s: %(message)s')
  )
  logging.getLogger().addHandler(handler)
  # What prints warnings where no other handler is.
  assert logging.lastResort is not None
  logging.getLogger().addHandler(logging.lastResort)

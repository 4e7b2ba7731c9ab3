"""Runs an experiment in the mode of its settings, and reports the run's end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import logging
import os
import pathlib
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from distacme import status as status_lib
from distacme.programs import checks
from distacme.programs import experiment as experiment_lib
from distacme.programs import modes
from distacme.programs import presets
from distacme.programs import replay_transports
from distacme.programs import run_config
from distacme.programs.workers import devices
from distacme.run import curves
from distacme.run import notices
from distacme.run import run_directory
from distacme.runtime import signals

if TYPE_CHECKING:
  from distacme.acting import greedy_policy


def train(
  config: Any,
  *,
  env: str | Callable[[int], Any],
  network: Any = None,
  demonstrations: Any = None,
  **settings: Any,
) -> Run:
  """Trains an agent, as the command `distacme train` does.

  The caller's process goes on afterwards, with JAX's settings as they were. Call
  this function below `if __name__ == '__main__':`, since the workers of a program are
  processes of their own.

  Args:
    config: the agent's settings, e.g. `dqn.Config()`; the module of the class
      is the agent.
    env: a name (`distacme.environments.make`), or a function of a seed that
      returns a dm_env.Environment or a gymnasium.Env.
    network: a function with Haiku modules, as the agent describes the function,
      or its name, 'package.module:function'.
    demonstrations: recorded episodes, for agents that learn from them: what
      `distacme.demonstrations.from_episodes` returns, a function that returns it,
      the folder or the ID of a Minari dataset, or 'package.module:function'.
    **settings: fields of `distacme.programs.run_config.RunConfig`, e.g. mode,
      num_actors, seed, max_env_steps, solved_return, run_dir. A preset is not
      among them, since `config` holds all settings of the agent: for a preset,
      give `presets.config(agent, env)` as `config`.

  Returns:
    The run, which has ended, or goes on in a cluster.

  Raises:
    ValueError: if agent, environment, network and settings do not fit.
  """
  if 'preset' in settings:
    raise ValueError(
      f'preset={settings["preset"]!r} is for the command line. Give '
      'config=distacme.programs.presets.config(agent, env) instead.'
    )
  if isinstance(demonstrations, os.PathLike):
    demonstrations = os.fspath(demonstrations)
  agent = type(config).__module__.removeprefix('distacme.agents.')
  for name in ('run_dir', 'cluster'):
    if settings.get(name) is not None:
      settings[name] = pathlib.Path(settings[name])
  experiment = experiment_lib.Experiment(
    run_config.RunConfig(
      agent=agent,
      env=_name(env),
      network=_name(network),
      demonstrations=_name(demonstrations),
      preset=presets.NONE,
      **(run_config.defaults_for(config) | settings),
    ),
    config,
    environment=None if isinstance(env, str) else env,
    network=None if isinstance(network, str) else network,
    demonstrations=(
      None if isinstance(demonstrations, str) else demonstrations
    ),
  )
  return prepare(experiment).run()


def _name(given: Any) -> str:
  """Returns the text of config.json for a name, a function or None."""
  if isinstance(given, str):
    return given
  return (
    '' if given is None else getattr(given, '__name__', type(given).__name__)
  )


@dataclasses.dataclass(frozen=True)
class Run:
  """A run that has ended, or that goes on in a cluster.

  Attributes:
    directory: the directory of the run's files.
    exit_code: 0 if the run reached its end or was submitted, else the code of
      `runtime.signals.exit_code`.
    experiment: the run's settings.
  """

  directory: pathlib.Path
  exit_code: int
  experiment: experiment_lib.Experiment = dataclasses.field(repr=False)

  def curve(self) -> curves.Curve:
    """Returns the mean returns of the run's evaluations.

    Raises:
      ValueError: if the run was not evaluated.
    """
    return curves.read_curve(self.directory)

  def policy(self, best: bool = True) -> greedy_policy.GreedyPolicy:
    """Returns the run's learnt policy, as a function of one observation.

    Args:
      best: whether to take the params of the best evaluation, if there was one,
        rather than those of the newest checkpoint.

    Raises:
      ValueError: if the run ended before it saved any params.
    """
    from distacme.programs import loading

    return loading.load_policy(
      self.directory,
      best,
      env=self.experiment.environment,
      network=self.experiment.network,
      trust_run_dir=True,  # this process has made it
    )


class PreparedRun(NamedTuple):
  """A run that has been checked and may start."""

  experiment: experiment_lib.Experiment
  directory: run_directory.RunDirectory
  lock: IO[str]  # of the directory, closed when the run has ended
  launcher: modes.Launcher

  @property
  def is_remote(self) -> bool:
    """True if the run goes on in a cluster, which may refuse it."""
    return self.launcher.remote

  def run(self) -> Run:
    """Runs to the end and shows progress."""
    with self.lock:
      code = self._run()
    return Run(self.directory.path, code, self.experiment)

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
    if self._has_replay_service and run.transport == 'reverb':
      terminal.say(replay_transports.OPEN_TO_ALL)
    for part in self.directory.read_config()['pickles']:
      terminal.say(
        f'the {part} cannot be imported by its name: workers read it from a '
        f'pickle in {self.directory.pickles}, which only this user may open'
      )
    with signals.StopRequests() as stops:
      status = self._launch(stops)
      if self.launcher.remote:
        terminal.say(_goes_on(self.directory.path, run.dry_run))
        return 0
      assert status.stop is not None  # it has ended
      # A signal now only cuts short what is said of the end.
      with contextlib.suppress(signals.Stopped):
        terminal.say(progress.ending(status))
        # A terminated process is to be gone.
        if status.stop.reason != status_lib.StopReason.TERMINATED:
          plotting.draw_if_possible(self.directory.path)
        terminal.say(f'run directory: {self.directory.path}')
    terminal.flush()
    code = signals.exit_code(status.stop.reason)
    if status.failures:
      code = code or 1
    return code

  @property
  def _has_replay_service(self) -> bool:
    """True if the run's program has a replay worker."""
    from distacme.programs import program

    return self.launcher.has_services and program.REPLAY in program.read(
      self.directory
    )

  def _launch(self, stops: signals.StopRequests) -> status_lib.Status:
    """Runs to the end; returns the last status."""
    from distacme.programs.view import plotting
    from distacme.programs.view import progress

    try:
      with contextlib.ExitStack() as stack:
        if not self.launcher.has_processes:  # whose workers have logs
          stack.enter_context(_logged_to(self.directory.logs / 'all'))
        if self.launcher.remote:  # it goes on without this process
          return self.launcher.run(
            self.experiment, self.directory, lambda status: None, stops
          )
        stack.enter_context(self.directory.running())
        display = stack.enter_context(progress.Display())

        def show(status: status_lib.Status) -> None:
          if status.stop is not None and self.launcher.has_processes:
            plotting.prepare()
          display.show(status)

        return self.launcher.run(self.experiment, self.directory, show, stops)
    except signals.Stopped as stopped:
      status = self.directory.read_summary()
      if status is None:  # nothing had begun
        status = status_lib.Status(
          seconds=0.0,
          counts=self.directory.read_config()['resumed_from'],
          stop=status_lib.Stop(stopped.reason),
        )
        self.directory.write_summary(status)
      return status


def _goes_on(path: pathlib.Path, dry_run: bool) -> str:
  """Returns a line about a run that goes on without this process."""
  if dry_run:
    return f'run directory: {path}'
  return (
    f'run directory: {path}\n'
    f"the run goes on in the cluster: 'distacme watch {path}' shows it, and "
    'status, logs, scale and stop take the same directory'
  )


def prepare(experiment: experiment_lib.Experiment) -> PreparedRun:
  """Checks an experiment before any worker starts; makes the run's directory.

  Raises:
    ValueError: if agent, environment, network and settings do not fit.
    ImportError: if the mode needs a library that is not installed.
  """
  notices.forget()
  launcher = modes.find(experiment.run.mode)
  launcher.check_installed()
  with (
    # Where workers have processes, the accelerator is the learner's.
    devices.on_the_cpu() if launcher.has_processes else contextlib.nullcontext()
  ):
    directory, lock = checks.check(experiment)
  return PreparedRun(experiment, directory, lock, launcher)


class _LogFile(logging.FileHandler):
  """A log file of messages that are on the terminal, too."""

  def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
    """Ignores the error: if the log cannot be written, no other file can be."""

  def close(self) -> None:
    """Closes the file, whose last lines a full disk may not take."""
    with contextlib.suppress(OSError):
      super().close()


@contextlib.contextmanager
def _logged_to(path: pathlib.Path) -> Iterator[None]:
  """Writes this process's log messages into a file, too, within a context."""
  handler = _LogFile(path)
  handler.setFormatter(
    logging.Formatter('%(asctime)s %(levelname)s %(name)s: %(message)s')
  )
  root = logging.getLogger()
  added: list[logging.Handler] = [handler]
  if not root.handlers and logging.lastResort is not None:
    # It prints warnings only where no other handler is.
    added.append(logging.lastResort)
  for each in added:
    root.addHandler(each)
  try:
    yield
  finally:
    for each in added:
      root.removeHandler(each)
    handler.close()

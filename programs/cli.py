"""The command line: `distacme train ...`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import sys
from typing import Any

from distacme import run_directory
from distacme.programs import config as config_lib
from distacme.runtime import stop_signals

_USAGE = """\
usage: distacme COMMAND [OPTIONS]

commands:
  train    train an agent in an environment

'distacme COMMAND --help' lists a command's options.
"""


def main(arguments: Sequence[str] | None = None) -> None:
  """Runs a command and exits with its code."""
  command, *rest = list(sys.argv[1:] if arguments is None else arguments) or [
    ''
  ]
  commands = {'train': train}
  if command in ('-h', '--help'):
    print(_USAGE)
    sys.exit(0)
  if command not in commands:
    print(
      f'distacme: unknown command {command!r}.\n\n{_USAGE}', file=sys.stderr
    )
    sys.exit(2)
  sys.exit(commands[command](rest))


def train(arguments: Sequence[str]) -> int:
  """Trains an agent; returns the exit code."""
  try:
    experiment = parse_experiment(arguments)
    directory = config_lib.prepare(experiment)
    run = _runner(experiment.run.mode)
  except (ValueError, ImportError) as error:
    print(f'distacme: {error}', file=sys.stderr)
    return 2
  return run_and_report(experiment, directory, run)


Runner = Callable[..., dict[str, Any]]


def _runner(mode: str) -> Runner:
  if mode == 'local':
    from distacme.programs import local

    return local.run
  try:
    from distacme.programs import train as train_lib
  except ImportError as error:
    raise ImportError(
      f'mode {mode!r} needs Launchpad, which cannot be imported ({error}). '
      "Use Python 3.10 on Linux and install 'distacme[launch]', or run with "
      "'--mode local'."
    ) from error
  return train_lib.run


def run_and_report(
  experiment: config_lib.Experiment,
  directory: run_directory.RunDirectory,
  run: Runner,
) -> int:
  """Runs an experiment with a display around it; returns the exit code."""
  from distacme.programs import display as display_lib

  print(f'run directory: {directory.path}', flush=True)
  with display_lib.Display() as display:
    status = run(experiment, directory, display.show)
  stop = status['stop']
  counts = status['counts']
  who = f' ({stop["worker"]})' if stop.get('worker') else ''
  print(
    f'ended: {stop["reason"]}{who} after {status["seconds"]:.1f} s, '
    f'{counts.get("env_steps", 0):,} environment steps, '
    f'{counts.get("learner_steps", 0):,} learner steps'
  )
  if stop.get('detail'):
    print(stop['detail'].rstrip())
  print(f'run directory: {directory.path}', flush=True)
  return stop_signals.exit_code(stop['reason'])


def parse_experiment(arguments: Sequence[str]) -> config_lib.Experiment:
  """Returns what the flags say: every field of run and agent is one.

  Raises:
    ValueError: if the agent is unknown or a value is impossible.
  """
  import tyro

  name = _agent_name(arguments)
  config = config_lib.agent_module(name).Config
  flags = dataclasses.make_dataclass(
    'Flags',
    [
      ('run', config_lib.RunConfig, config_lib.RunConfig(agent=name)),
      ('agent_config', config, config()),
    ],
    frozen=True,
  )
  unprefixed: Any = tyro.conf.OmitArgPrefixes
  parsed: Any = tyro.cli(
    unprefixed[flags],
    prog='distacme train',
    description=f'Trains {name} in an environment.',
    args=list(arguments),
  )
  return config_lib.Experiment(parsed.run, parsed.agent_config)


def _agent_name(arguments: Sequence[str]) -> str:
  """Returns --agent, which decides the other flags, or its default."""
  name = config_lib.RunConfig.agent
  for flag, value in zip(arguments, [*arguments[1:], ''], strict=True):
    if flag == '--agent':
      name = value
    elif flag.startswith('--agent='):
      name = flag.partition('=')[2]
  return name

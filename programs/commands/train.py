"""`distacme train`: parses the flags and starts the run that they describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from distacme.programs import agents_by_name
from distacme.programs import compilation_cache
from distacme.programs import experiment as experiment_lib
from distacme.programs import modes
from distacme.programs import presets
from distacme.programs import refusals
from distacme.programs import run_config
from distacme.programs.seeds import config as config_lib
from distacme.programs.workers import devices
from distacme.runtime import signals


def main(arguments: Sequence[str]) -> int:
  """Trains an agent; returns the exit code."""
  compilation_cache.use()
  signals.explain_crashes()
  prepared = refusals.in_a_sentence(lambda: _prepare(arguments))
  if isinstance(prepared, int):
    return prepared
  if prepared.is_remote:
    # A cluster may refuse what was written; no worker of ours has run.
    ended = refusals.in_a_sentence(prepared.run)
  else:
    ended = prepared.run()
  return ended if isinstance(ended, int) else ended.exit_code


def _prepare(arguments: Sequence[str]) -> Any:
  """Returns the run, or the runs of several seeds, that the flags describe."""
  from distacme.programs import training
  from distacme.programs.seeds import all_seeds

  experiment, several = parse(arguments)
  if several.seeds:
    return all_seeds.prepare(experiment, several, arguments)
  if not modes.find(experiment.run.mode).has_services:
    devices.use_one_core()  # learner and actor share one core
  return training.prepare(experiment)


def parse(
  arguments: Sequence[str],
) -> tuple[experiment_lib.Experiment, config_lib.SeedsConfig]:
  """Returns the experiment of the flags; each field of run and agent is a flag.

  Raises:
    ValueError: if the agent is unknown or a value is impossible.
  """
  run = run_config.RunConfig
  name = _value_of('--agent', arguments, run.agent)
  config = agents_by_name.agent_module(name).Config()
  defaults: dict[str, Any] = {'agent': name, **run_config.defaults_for(config)}
  preset = presets.find(
    name,
    _value_of('--env', arguments, run.env),
    _value_of('--preset', arguments, run.preset),
  )
  if preset:
    defaults |= preset.run
    config = dataclasses.replace(config, **preset.settings)
  parsed = _parse(defaults, config, arguments, _description(name, preset))
  # Flags of the agent may decide whether anybody acts.
  of_flags = run_config.defaults_for(parsed.agent)
  if not of_flags.items() <= defaults.items():
    parsed = _parse(
      defaults | of_flags, config, arguments, _description(name, preset)
    )
  experiment = experiment_lib.Experiment(parsed.run, parsed.agent)
  return experiment, parsed.seeds


def _parse(
  defaults: Mapping[str, Any],
  config: Any,
  arguments: Sequence[str],
  description: str,
) -> Any:
  """Returns the values of the flags, as fields run, seeds and agent."""
  import tyro

  run = run_config.RunConfig
  flags = dataclasses.make_dataclass(
    'Flags',
    [
      ('run', run, run(**defaults)),
      ('seeds', config_lib.SeedsConfig, config_lib.SeedsConfig()),
      ('agent', type(config), config),
    ],
    frozen=True,
  )
  unprefixed: Any = tyro.conf.OmitArgPrefixes
  return tyro.cli(
    unprefixed[flags],
    prog='distacme train',
    description=description,
    args=list(arguments),
  )


def _description(agent: str, preset: presets.Preset | None) -> str:
  if preset is None:
    return f'Trains {agent} in an environment.'
  return (
    f'Trains {agent} in an environment. Defaults are those of the preset '
    f'{preset.name}.'
  )


def _value_of(flag: str, arguments: Sequence[str], default: str) -> str:
  """Returns the value of a flag that decides the defaults of other flags."""
  value = default
  for given, following in zip(arguments, [*arguments, ''][1:], strict=True):
    if given == flag:
      value = following
    elif given.startswith(f'{flag}='):
      value = given.partition('=')[2]
  return value

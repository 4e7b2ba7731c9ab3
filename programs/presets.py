"""Settings that suit an agent in an environment better than its defaults.

`distacme train` takes the first whose environment is the run's (`--preset`); flags
go over it. In Python: `presets.config('ppo', 'atari:Pong')`.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import fnmatch
from typing import Any, NamedTuple

AUTO, NONE = 'auto', 'none'


class Preset(NamedTuple):
  """Settings of one agent for some environments.

  Attributes:
    agent: its name.
    name: what --preset calls it.
    environments: names of those it is for, with * for anything.
    settings: fields of the agent's Config.
    run: fields of RunConfig.
  """

  agent: str
  name: str
  environments: tuple[str, ...]
  settings: Mapping[str, Any]
  run: Mapping[str, Any] = {}

  def __str__(self) -> str:
    """Returns the flags that it stands for."""
    return ' '.join(
      f'--{name.replace("_", "-")} {_as_flag(value)}'
      for name, value in {**self.run, **self.settings}.items()
    )


def _as_flag(value: Any) -> str:
  return ' '.join(map(str, value)) if isinstance(value, tuple) else str(value)


_ATARI = ('atari:*',)

PRESETS = (
  # Schulman et al. 2017, table 5, but with smaller convolutions, in which a policy
  # moves less for the same step size: hence a higher one, and more steps.
  Preset(
    'ppo',
    'atari',
    _ATARI,
    {
      'num_epochs': 3,
      'num_minibatches': 8,
      'entropy_weight': 0.01,
      'max_abs_reward': 1.0,
      'hidden_sizes': (256,),
      'convolutions': 'shallow',
    },
    {'envs_per_actor': 8, 'eval_period': 200_000, 'eval_episodes': 3},
  ),
)


def of_agent(agent: str) -> list[Preset]:
  """Returns an agent's presets."""
  return [preset for preset in PRESETS if preset.agent == agent]


def find(agent: str, env: str, name: str = AUTO) -> Preset | None:
  """Returns the preset of an agent that is called `name`, if there is one.

  Args:
    agent: its name.
    env: the environment's.
    name: of the preset; or AUTO for the first that is for the environment, or
      NONE for none.

  Raises:
    ValueError: if the agent has none of that name.
  """
  known = of_agent(agent)
  if name == NONE:
    return None
  if name == AUTO:
    for preset in known:
      if any(fnmatch.fnmatchcase(env, e) for e in preset.environments):
        return preset
    return None
  for preset in known:
    if preset.name == name:
      return preset
  raise ValueError(
    f'{agent} has no preset {name!r}. Known: '
    f'{", ".join([AUTO, NONE, *(preset.name for preset in known)])}.'
  )


def config(agent: str, env: str, name: str = AUTO) -> Any:
  """Returns an agent's Config for an environment; see `find`.

  Raises:
    ValueError: if there is no such agent, or preset of it.
  """
  from distacme.programs import config as config_lib

  preset = find(agent, env, name)
  made = config_lib.agent_module(agent).Config()
  return dataclasses.replace(made, **preset.settings) if preset else made

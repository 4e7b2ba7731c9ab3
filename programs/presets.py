"""Settings that suit an agent in an environment better than its defaults.

`distacme train` takes the first preset for the run's environment (`--preset`);
flags override the preset. In Python: `presets.config('ppo', 'atari:Pong')`.
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
    agent: the agent's name.
    name: the preset's name for --preset.
    environments: names of environments, with * for any characters.
    settings: fields of the agent's Config.
    run: fields of RunConfig.
  """

  agent: str
  name: str
  environments: tuple[str, ...]
  settings: Mapping[str, Any]
  run: Mapping[str, Any] = {}

  def in_force(self, run: Any, settings: Any) -> Preset:
    """Returns this preset with the settings that the two configs follow."""
    return self._replace(
      run={k: v for k, v in self.run.items() if getattr(run, k) == v},
      settings={
        k: v for k, v in self.settings.items() if getattr(settings, k) == v
      },
    )

  def __str__(self) -> str:
    """Returns the flags of these settings."""
    return ' '.join(
      _as_flag(name, value)
      for name, value in {**self.run, **self.settings}.items()
    )


def _as_flag(name: str, value: Any) -> str:
  flag = name.replace('_', '-')
  if isinstance(value, bool):
    return f'--{flag}' if value else f'--no-{flag}'
  values = value if isinstance(value, tuple) else (value,)
  return ' '.join([f'--{flag}', *map(str, values)])


_ATARI = ('atari:*',)
_CONTROL = ('dm_control:*',)
# Games that end with 1, 0 or -1; others of pgx have larger rewards.
_GAMES = (
  'pgx:tic_tac_toe',
  'pgx:connect_four',
  'pgx:othello',
  'pgx:hex',
  'pgx:go_9x9',
  'pgx:gardner_chess',
  'pgx:animal_shogi',
)
# The same with large observations: a step of chess takes 90 kB.
_LARGE_GAMES = ('pgx:chess', 'pgx:shogi', 'pgx:go_19x19')
# The control suite's episodes have 1,000 steps and rewards in [0, 1].
_CONTROL_RUN = {'eval_period': 10_000, 'eval_episodes': 10}

PRESETS = (
  # After Schulman et al. 2017, table 5, with smaller convolutions, in which a policy
  # moves less in a step: the step size is 1e-3 and does not fall, there are three
  # epochs of eight minibatches for three of four, ratios are clipped by 0.2, not 0.1,
  # and values weigh half as much.
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
  # The settings of rl-zoo (Raffin 2020), with a quarter of its batch size.
  Preset(
    'ppo',
    'lunar-lander',
    ('gymnasium:LunarLander*',),
    {
      'discount': 0.999,
      'gae_lambda': 0.98,
      'unroll_length': 256,
      'batch_size': 16,
      'queue_size': 16,
      'num_minibatches': 64,
      'entropy_weight': 0.01,
      'learning_rate': 3e-4,
    },
    {'envs_per_actor': 16, 'eval_period': 50_000},
  ),
  # Espeholt et al. 2018, table G.1, but for the step size, which does not fall, Adam,
  # and returns, which are normalised.
  Preset(
    'impala',
    'atari',
    _ATARI,
    {
      'batch_size': 32,
      'queue_size': 64,
      'max_abs_reward': 1.0,
      'learning_rate': 6e-4,
      'hidden_sizes': (256,),
    },
    {'envs_per_actor': 8, 'eval_period': 200_000, 'eval_episodes': 3},
  ),
  # Horgan et al. 2018; settings that are not in that paper are from Hessel et al.
  # 2018 (Rainbow). Replay fits one machine: a step takes about 7 kB.
  Preset(
    'dqn',
    'atari',
    _ATARI,
    {
      'max_abs_reward': 1.0,
      'learning_rate': 6.25e-5,
      'adam_epsilon': 1.5e-4,
      'target_update_period': 2_000,
      'hidden_sizes': (512,),
      'dueling': True,
      'batch_size': 32,
      'samples_per_insert': 8.0,
      'min_replay_size': 20_000,
      'max_replay_size': 500_000,
    },
    {'envs_per_actor': 4, 'eval_period': 200_000, 'eval_episodes': 3},
  ),
  # Young and Tian 2019 (MinAtar), but for Adam and our settings of Ape-X.
  Preset(
    'dqn',
    'minatar',
    ('minatar:*',),
    {
      'learning_rate': 2.5e-4,
      'target_update_period': 1_000,
      'hidden_sizes': (128,),
      'batch_size': 32,
      'samples_per_insert': 8.0,
      'min_replay_size': 5_000,
    },
    {'envs_per_actor': 4, 'eval_period': 50_000},
  ),
  # A random action costs 10 here: returns over several such steps are noise.
  Preset(
    'dqn',
    'taxi',
    ('gymnasium:Taxi*',),
    {'n_step': 1, 'hidden_sizes': (128,)},
  ),
  # Silver et al. 2018: games end with their outcome, which is the target of all values
  # (longer games bootstrap). Many games make the search's batches large.
  Preset(
    'mcts',
    'games',
    _GAMES,
    {'discount': 1.0, 'n_step': 512, 'max_abs_value': 1.0},
    {'envs_per_actor': 32, 'eval_period': 10_000},
  ),
  Preset(
    'mcts',
    'large-games',
    _LARGE_GAMES,
    {
      'discount': 1.0,
      'n_step': 128,
      'max_abs_value': 1.0,
      'max_replay_size': 10_000,
    },
    {'envs_per_actor': 8, 'eval_period': 10_000},
  ),
  Preset(
    'muzero',
    'games',
    _GAMES,
    {'discount': 1.0, 'max_abs_value': 1.0},
    {'envs_per_actor': 32, 'eval_period': 10_000},
  ),
  # Kapturowski et al. 2019, table 2, at half its batch, sequence and memory.
  Preset(
    'r2d2',
    'atari',
    _ATARI,
    {
      'learning_rate': 1e-4,
      'target_update_period': 2_500,
      'burn_in_length': 20,
      'hidden_sizes': (512,),
      'lstm_size': 256,
      'min_replay_size': 500,
      'samples_per_insert': 2.0,
    },
    {'envs_per_actor': 8, 'eval_period': 200_000, 'eval_episodes': 3},
  ),
  # Five steps at once, as in Acme: rewards are many, and values far away.
  Preset(
    'ddpg',
    'dm-control',
    _CONTROL,
    {'n_step': 5, 'target_step_size': 0.01, 'samples_per_insert': 64.0},
    _CONTROL_RUN,
  ),
  # A quarter of the batch size and half the actions make a run take minutes
  # rather than half an hour.
  Preset(
    'mpo',
    'dm-control',
    _CONTROL,
    {'batch_size': 64, 'samples_per_insert': 16.0, 'num_action_samples': 10},
    {'envs_per_actor': 8, **_CONTROL_RUN},
  ),
  Preset(
    'dmpo',
    'dm-control',
    _CONTROL,
    {
      'batch_size': 64,
      'samples_per_insert': 16.0,
      'num_action_samples': 10,
      'n_step': 5,
      'policy_learning_rate': 5e-4,
      'critic_learning_rate': 5e-4,
      'min_value': 0.0,
      'max_value': 100.0,
    },
    {'envs_per_actor': 8, **_CONTROL_RUN},
  ),
)


def of_agent(agent: str) -> list[Preset]:
  """Returns an agent's presets."""
  return [preset for preset in PRESETS if preset.agent == agent]


def find(agent: str, env: str, name: str = AUTO) -> Preset | None:
  """Returns the preset of an agent that is called `name`, if there is one.

  Args:
    agent: the agent's name.
    env: the environment's name.
    name: of the preset; or AUTO for the first that is for the environment, or
      NONE for no preset.

  Raises:
    ValueError: if the agent has no preset of that name.
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
    ValueError: if there is no such agent, or the agent has no such preset.
  """
  from distacme.programs import agents_by_name

  preset = find(agent, env, name)
  made = agents_by_name.agent_module(agent).Config()
  return dataclasses.replace(made, **preset.settings) if preset else made

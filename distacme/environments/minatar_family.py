"""Makes MinAtar's games on a grid (https://arxiv.org/abs/1903.03176).

Observations are bool [10, 10, channels], one channel for each kind of object.
Defaults are those of MinAtar: actions stick with a chance of 0.1, games become
harder as they go on, and all 6 actions are there. Episodes terminate and are
never truncated.
"""

from __future__ import annotations

import colorsys
import dataclasses
import importlib.machinery
import importlib.util
import pathlib
import pkgutil
from typing import Any

import dm_env
import numpy as np

from distacme import specs
from distacme.environments import hints
from distacme.environments import name_options
from distacme.environments import rendering

_NUM_ACTIONS = 6


@dataclasses.dataclass(frozen=True)
class Options:
  """Options after the name of a game: 'minatar:breakout?sticky_actions=0'."""

  sticky_actions: float = 0.1
  """Chance that a step repeats the last action."""
  difficulty_ramping: bool = True
  """Whether games become harder as they go on."""
  minimal_actions: bool = False
  """Whether to leave out the actions that the game ignores."""

  def __post_init__(self) -> None:
    if not 0.0 <= self.sticky_actions < 1.0:
      raise ValueError(
        f'sticky_actions must be in [0, 1), got {self.sticky_actions}.'
      )


def make(text: str, seed: int, render: bool = False) -> dm_env.Environment:
  """Returns a game: 'breakout' or 'breakout?option=value&option=value'.

  Raises:
    ValueError: if there is no such game or option, or MinAtar is not installed.
  """
  del render  # `MinAtar.render` costs nothing if unused.
  name, options = name_options.parse('minatar', text, Options)
  return MinAtar(_game(name, options), options, seed)


class MinAtar(dm_env.Environment):
  """Adapts one game to dm_env.Environment."""

  metadata = {'render_fps': 10}  # slow enough to follow

  def __init__(self, game: Any, options: Options, seed: int):
    """Takes an `Env` of one of MinAtar's modules."""
    self._game = game
    self._random = game.random = np.random.RandomState(seed)
    self._sticky_actions = options.sticky_actions
    self._actions = list(range(_NUM_ACTIONS))
    if options.minimal_actions:
      self._actions = game.minimal_action_set()
    self._previous_action = 0
    self._over = True  # The next step starts an episode.

  def reset(self) -> dm_env.TimeStep:
    """Starts an episode."""
    self._game.reset()
    self._previous_action = 0
    self._over = False
    return dm_env.restart(self._game.state())

  def step(self, action: int) -> dm_env.TimeStep:
    """Takes a step, or starts an episode if the last one is over."""
    if self._over:
      return self.reset()
    if self._random.rand() >= self._sticky_actions:
      self._previous_action = self._actions[int(action)]
    reward, self._over = self._game.act(self._previous_action)
    return dm_env.TimeStep(
      dm_env.StepType.LAST if self._over else dm_env.StepType.MID,
      np.float32(reward),
      np.float32(not self._over),
      self._game.state(),
    )

  def render(self) -> np.ndarray:
    """Returns the grid, uint8 [H, W, 3], each channel in its own colour."""
    state = self._game.state()
    channels = state.shape[-1]
    palette = np.array(
      [(0, 0, 0)]
      + [colorsys.hsv_to_rgb(c / channels, 0.7, 1.0) for c in range(channels)]
    )
    # Where objects meet, the later channel covers the others.
    last = (state * np.arange(1, channels + 1)).max(axis=-1)
    pixels = np.rint(palette[last] * 255.0).astype(np.uint8)
    return rendering.enlarge(pixels)

  def observation_spec(self) -> specs.Array:
    """Returns the spec of the grid."""
    return specs.Array(self._game.state_shape(), np.bool_, 'observation')

  def action_spec(self) -> specs.DiscreteArray:
    """Returns the spec of 6 actions, or of those that the game uses."""
    return specs.DiscreteArray(len(self._actions), name='action')

  def reward_spec(self) -> specs.Array:
    """Returns the spec of a float32."""
    return specs.Array((), np.float32, 'reward')

  def discount_spec(self) -> specs.BoundedArray:
    """Returns the spec of a float32 in [0, 1]."""
    return specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount')


def _game(name: str, options: Options) -> Any:
  """Returns the `Env` of MinAtar's module `name`.

  Loads the module's file by its path: the package itself imports seaborn and
  pandas to draw, which takes 4 s and 100 MB. Games need numpy only.
  """
  package = importlib.util.find_spec('minatar')
  if package is None or not package.submodule_search_locations:
    raise ValueError(
      f"Environment 'minatar:{name}' needs minatar, which cannot be imported "
      "(there is no such package). Run: pip install 'distacme[envs]'"
    )
  folder = pathlib.Path(package.submodule_search_locations[0], 'environments')
  known = [module.name for module in pkgutil.iter_modules([str(folder)])]
  if name not in known:
    raise ValueError(
      f"No environment is called 'minatar:{name}'. "
      f'{hints.did_you_mean(name, known)}Known: {", ".join(known)}. Known '
      f'options: {name_options.describe(Options)}.'
    )
  spec = importlib.machinery.PathFinder.find_spec(name, [str(folder)])
  assert spec is not None and spec.loader is not None  # `known` has it.
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.Env(ramping=options.difficulty_ramping)

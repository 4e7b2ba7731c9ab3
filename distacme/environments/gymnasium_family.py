"""Makes gymnasium's environments by name: 'gymnasium:CartPole-v1'."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import os
import sys
from typing import Any
import warnings

from distacme.environments import gymnasium_adapters
from distacme.environments import gymnasium_ids
from distacme.environments import headless

# Gymnasium's vector of CartPole takes 43 us a step, one row of a loop 9 us.
_FEWEST_NATIVE_ROWS = 5


def make(
  text: str, seed: int, render: bool = False
) -> gymnasium_adapters.SingleEnvironment:
  """Returns the environment that `gymnasium.make` makes of an id and options.

  Args:
    text: like 'FrozenLake-v1' or
      'FrozenLake-v1?is_slippery=false&max_episode_steps=50'; options are
      arguments of the environment's constructor, and the steps after which an
      episode is truncated.
    seed: for the first reset.
    render: whether the environment gets a method `render`.

  Raises:
    ValueError: if there is no such environment or option, or a package is
      missing, or `render` asks an environment without pictures for them.
  """
  spec = gymnasium_ids.find_spec(text)
  import gymnasium

  # A step is faster without Gymnasium's checker, which `environments.checks`
  # replaces, and without its order enforcer: `SingleEnvironment` keeps order.
  spec = dataclasses.replace(spec, order_enforce=False)
  if render:
    environment = _make_with_pictures(text, spec)
  else:
    with gymnasium_ids.failures_explained(text, spec):
      environment = gymnasium.make(spec, disable_env_checker=True)
  return gymnasium_adapters.SingleEnvironment(environment, seed)


def make_native_vector(
  text: str, seeds: Sequence[int]
) -> gymnasium_adapters.NativeVector | None:
  """Returns the environment's own vector version; None if a loop is better.

  All rows draw from one generator, seeded with the first of `seeds`.

  Raises:
    ValueError: as `make`.
  """
  spec = gymnasium_ids.find_spec(text)
  num_envs = len(seeds)
  if spec.vector_entry_point is None or num_envs < _FEWEST_NATIVE_ROWS:
    return None
  import gymnasium

  with gymnasium_ids.failures_explained(text, spec):
    if not gymnasium_ids.vector_takes(spec):
      return None
    environment = gymnasium.make_vec(
      spec, num_envs, vectorization_mode='vector_entry_point'
    )
  if gymnasium_adapters.resets_at_next_step(environment) and _is_vector_of(
    environment, spec
  ):
    return gymnasium_adapters.NativeVector(environment, seeds[0])
  environment.close()
  return None


def _make_with_pictures(text: str, spec: Any) -> Any:
  """Returns a gymnasium.Env whose `render` returns an array.

  Draws once, since missing packages show with the first picture only.
  """
  import gymnasium

  if not {'DISPLAY', 'WAYLAND_DISPLAY'} & set(os.environ):
    # Without a driver SDL, which draws some environments, seeks a display.
    os.environ.setdefault('SDL_VIDEODRIVER', 'dummy')
  with (
    gymnasium_ids.failures_explained(text, spec),
    warnings.catch_warnings(),
  ):
    warnings.filterwarnings('ignore', '.*not in the possible render_modes')
    environment = gymnasium.make(
      spec,
      disable_env_checker=True,
      render_mode=gymnasium_adapters.PICTURES,
    )
  modes = environment.metadata.get('render_modes')
  if gymnasium_adapters.PICTURES not in (modes or ()):
    raise ValueError(
      f"Environment 'gymnasium:{spec.id}' cannot be rendered: its render modes "
      f'are {modes}. Add {gymnasium_adapters.PICTURES!r} to the render_modes '
      'of its metadata, and let render() return a uint8 array [height, width, '
      '3] in that mode.'
    )
  with gymnasium_ids.failures_explained(text, spec):
    environment.reset()
    if 'mujoco' in sys.modules:
      with headless.failures_explained(f'gymnasium:{spec.id}'):
        headless.choose_renderer(f'gymnasium:{spec.id}')
        environment.render()
    else:
      environment.render()
  return environment


def _is_vector_of(environment: Any, spec: Any) -> bool:
  """Returns whether rows have the spaces of `make`'s environment.

  Those of 'ALE/Pong-v5' have not: its vector version stacks small pictures.
  """
  import gymnasium

  single = gymnasium.make(spec, disable_env_checker=True)
  same: bool = (
    environment.single_observation_space == single.observation_space
    and environment.single_action_space == single.action_space
  )
  single.close()
  return same

"""Draws environments for videos: pictures are uint8 [height, width, 3]."""

from __future__ import annotations

from typing import Any

import dm_env
import numpy as np

from distacme import specs
from distacme import types
from distacme.environments import wrappers

_LEAST_SIDE = 160  # pixels of a drawn grid's longer side, at least


def with_render(name: str, environment: dm_env.Environment) -> Any:
  """Returns `environment` with a method `render() -> uint8 [H, W, 3]`.

  Prefers the environment's own `render`. Draws observed grids in grey, such as
  that of bsuite's catch.

  Raises:
    ValueError: if the environment has neither `render` nor a grid.
  """
  if callable(getattr(environment, 'render', None)):
    return environment
  spec = environment.observation_spec()
  if is_grid(spec):
    return DrawnGrid(environment)
  raise ValueError(
    f'Environment {name!r} cannot be rendered: it has no method render(), and '
    'what it observes is no grid that could be drawn instead. Give it a method '
    'render() that returns a uint8 array [height, width, 3]; make a '
    "gymnasium.Env with render_mode='rgb_array'."
  )


def is_grid(spec: types.NestedSpec) -> bool:
  """Returns whether `spec` is of a 2-D array of several rows and columns."""
  return (
    isinstance(spec, specs.Array)
    and len(spec.shape) == 2
    and min(spec.shape) > 1
  )


def draw_grid(spec: specs.Array, grid: np.ndarray) -> np.ndarray:
  """Returns a grey picture of `grid`: the least value black, the largest white.

  Least and largest are the bounds of `spec`, if finite, else those of `grid`.
  """
  low, high = np.min(grid), np.max(grid)
  if isinstance(spec, specs.BoundedArray):
    bounds = np.min(spec.minimum), np.max(spec.maximum)
    if np.isfinite(bounds).all():
      low, high = bounds
  grey = (grid.astype(np.float64) - low) / max(float(high) - float(low), 1e-9)
  pixels = np.rint(np.clip(grey, 0.0, 1.0) * 255.0).astype(np.uint8)
  return enlarge(np.repeat(pixels[..., np.newaxis], 3, axis=-1))


def enlarge(picture: np.ndarray) -> np.ndarray:
  """Returns `picture` [H, W, 3] with each pixel enlarged to a square."""
  factor = -(-_LEAST_SIDE // max(picture.shape[:2]))
  return picture.repeat(factor, axis=0).repeat(factor, axis=1)


class DrawnGrid(wrappers.Wrapper):
  """Renders an environment as the grid that it observes."""

  def __init__(self, environment: dm_env.Environment):
    super().__init__(environment)
    self._grid = np.zeros(self._observation_spec.shape)

  def render(self) -> np.ndarray:
    """Returns a picture of the last observation."""
    return draw_grid(self._observation_spec, self._grid)

  def _timestep(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    self._grid = np.array(timestep.observation)
    return timestep

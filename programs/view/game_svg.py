"""Draws one game as an animated SVG, by pgx's own pictures."""

from __future__ import annotations

import pathlib
from typing import Any

import dm_env

from distacme import core
from distacme import types
from distacme.environments import vector

_FAMILY = 'pgx:'
_SECONDS = 1.0  # for each position


def check(path: pathlib.Path, env: str) -> None:
  """Refuses a file that could not be written, or an environment that is no game.

  Raises:
    ValueError: if the file's suffix is not .svg, its directory does not exist, or
      the environment is none of pgx's games that it draws.
  """
  if path.suffix != '.svg':
    raise ValueError(
      f'svg must be a .svg file, got {str(path)!r}. Write for instance '
      f'{str(path.with_suffix(".svg"))!r}.'
    )
  if not path.parent.is_dir():
    raise ValueError(
      f'{path.parent} is no directory. Make it, or choose another --svg.'
    )
  if not env.startswith(_FAMILY) or env.startswith(f'{_FAMILY}minatar'):
    raise ValueError(
      f"an SVG is drawn by pgx, of a game like 'pgx:connect_four', got {env!r}. "
      'Write a --video.'
    )


class Drawn(vector.VectorWrapper):
  """Draws the first episode of the first row of a vector of pgx's games."""

  def __init__(
    self,
    environment: core.VectorEnvironment,
    path: pathlib.Path,
    max_steps: int,
  ):
    """Takes the vector.

    Args:
      environment: whose states are pgx's.
      path: of the SVG.
      max_steps: after which the SVG ends, even if the episode goes on.
    """
    super().__init__(environment)
    self._path = path
    self._max_steps = max_steps
    self._states: list[Any] = []
    self._done = False

  def close(self) -> None:
    """Writes the game so far, if it is not over."""
    self._end()
    super().close()

  def _timestep(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    import jax
    import numpy as np

    if self._done:
      return timestep
    kind = timestep.step_type[0]
    if kind == types.FIRST and self._states:  # it was reset before its end
      self._end()
      return timestep
    state = self._environment.state
    self._states.append(jax.tree.map(lambda leaf: np.asarray(leaf)[0], state))
    if kind == types.LAST or len(self._states) > self._max_steps:
      self._end()
    return timestep

  def _end(self) -> None:
    import pgx

    if self._states and not self._done:
      pgx.save_svg_animation(
        self._states, self._path, frame_duration_seconds=_SECONDS
      )
    self._done = True

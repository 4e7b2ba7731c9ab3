"""Frames of stacked observations on their way into replay."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Any

import dm_env
import numpy as np

from distacme.replay.items import frames as frames_lib
from distacme.replay.writers import inserter as inserter_lib


def make_history(
  layout: frames_lib.FrameLayout | None,
  num_envs: int,
  inserter: inserter_lib.Inserter,
) -> FrameHistory | None:
  """Returns the history of environments whose frames travel by themselves."""
  return None if layout is None else FrameHistory(layout, num_envs, inserter)


class FrameHistory:
  """The last frames of every environment, as the inserter knows them."""

  def __init__(
    self,
    layout: frames_lib.FrameLayout,
    num_envs: int,
    inserter: inserter_lib.Inserter,
  ):
    self._layout = layout
    self._inserter = inserter
    keep = layout.moments + layout.stack - 1
    # Each with how many frames its stack has from before it, in its episode.
    self._frames = [
      collections.deque[tuple[int, Any]](maxlen=keep) for _ in range(num_envs)
    ]
    self._seen: dm_env.TimeStep | None = None

  def without_frames(
    self, timestep: dm_env.TimeStep, next_timestep: dm_env.TimeStep
  ) -> tuple[dm_env.TimeStep, dm_env.TimeStep]:
    """Inserts what is new to see in two timesteps; returns them without it."""
    before = self._seen or self._see(timestep)
    self._seen = self._see(next_timestep)
    return before, self._seen

  def name(
    self, rows: np.ndarray, envs: Iterable[int], moments: Iterable[int]
  ) -> list[list[Any]]:
    """Returns the frames of windows, and notes in their rows how old they are.

    Args:
      rows: [K], written to.
      envs: [K] environments of which they are.
      moments: [K] last observations that they hold.
    """
    named = []
    for row, (env, count) in enumerate(zip(envs, moments, strict=True)):
      history = list(self._frames[env])
      before = history[-count][0]
      rows[frames_lib.FRAMES_BEFORE][row] = before
      named.append([frame for _, frame in history[-count - before :]])
    return named

  def _see(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    observation = timestep.observation
    frames = self._inserter.insert_frames(self._layout.newest(observation))
    for history, frame, kind in zip(
      self._frames, frames, timestep.step_type.tolist(), strict=True
    ):
      before = 0  # The others of an episode's first observation are blank.
      if history and kind != dm_env.StepType.FIRST:
        before = min(history[-1][0] + 1, self._layout.stack - 1)
      history.append((before, frame))
    return timestep._replace(
      observation=self._layout.without_frames(observation)
    )

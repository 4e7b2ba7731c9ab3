"""Checkpoints with Orbax: the learner's state, and the best params."""

from __future__ import annotations

import math
import pathlib
from typing import Any, NamedTuple

import jax

from distacme import core
from distacme import run_directory
from distacme import types


class Restored(NamedTuple):
  """A checkpoint read back."""

  steps: int
  state: Any


class Checkpointer:
  """Saves a nest of arrays under a step number; one thread.

  Saving returns once the arrays are copied to the host; writing goes on in the
  background. A checkpoint is complete or absent, whenever the process dies.
  """

  def __init__(self, directory: pathlib.Path, max_to_keep: int = 2):
    """Opens or creates `directory`."""
    # Here and not above: it takes half a second, and few processes save.
    from orbax import checkpoint as ocp

    self._ocp = ocp
    self._manager = ocp.CheckpointManager(
      directory.resolve(),
      options=ocp.CheckpointManagerOptions(
        max_to_keep=max_to_keep, create=True
      ),
    )

  def save(self, steps: int, state: types.NestedArray) -> None:
    """Saves `state`; does nothing if there is one for `steps` already."""
    if steps != self._manager.latest_step():
      self._manager.save(steps, args=self._ocp.args.StandardSave(state))

  def restore(self, like: types.NestedArray) -> Restored | None:
    """Returns the newest checkpoint, or None if there is none.

    Args:
      like: a nest of the same structure, of arrays or their shapes.

    Raises:
      ValueError: if the checkpoint has another structure or other shapes.
    """
    steps = self._manager.latest_step()
    if steps is None:
      return None
    like = jax.tree.map(self._ocp.utils.to_shape_dtype_struct, like)
    state = self._manager.restore(
      steps, args=self._ocp.args.StandardRestore(like)
    )
    return Restored(steps, state)

  def close(self) -> None:
    """Waits until everything is written."""
    self._manager.wait_until_finished()
    self._manager.close()


class BestParams:
  """Keeps the params of the best evaluation of a run, and their score."""

  def __init__(self, directory: pathlib.Path):
    """Reads the best score so far, if the run is resumed."""
    self._directory = directory
    self._score = directory / 'score.json'
    self._checkpointer: Checkpointer | None = None
    self.mean_return = -math.inf
    if self._score.exists():
      self.mean_return = run_directory.read_json(self._score)['mean_return']

  def offer(self, params: core.VersionedParams, mean_return: float) -> None:
    """Keeps `params` if they are better than the best."""
    if mean_return <= self.mean_return:
      return
    if self._checkpointer is None:
      self._checkpointer = Checkpointer(self._directory, max_to_keep=1)
    self.mean_return = mean_return
    self._checkpointer.save(params.version, params.params)
    score = {'params_version': params.version, 'mean_return': mean_return}
    run_directory.write_json(self._score, score)

  def close(self) -> None:
    """Waits until everything is written."""
    if self._checkpointer is not None:
      self._checkpointer.close()

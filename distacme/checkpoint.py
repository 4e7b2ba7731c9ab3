"""Checkpoints with Orbax: the learner's state, and the best params."""

from __future__ import annotations

import logging
import math
import pathlib
import threading
from typing import Any, NamedTuple

import jax
import numpy as np

from distacme import core
from distacme import run_directory
from distacme import types

# Orbax 0.11 numbers its operations per process: two managers that write at the
# same time take each other's signals and delete each other's files. Each waits
# for the other's last write.
_WRITING = threading.Lock()
_last_writer: Any = None


class Restored(NamedTuple):
  """A checkpoint read back."""

  steps: int
  state: Any


class Checkpointer:
  """Saves a nest of arrays under a step number; one thread.

  Saving returns once the arrays are copied to the host; writing goes on in the
  background. A checkpoint is complete or absent, whenever the process dies.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    max_to_keep: int = 2,
    read_only: bool = False,
  ):
    """Opens `directory`, and creates it unless it is only to be read.

    Args:
      directory: of the checkpoints.
      max_to_keep: of them; older ones are deleted.
      read_only: whether a run that goes on may be writing there meanwhile.
    """
    # Here and not above: it takes half a second, and few processes save.
    from orbax import checkpoint as ocp

    if read_only:
      logging.getLogger('absl').addFilter(_is_news)
    self._ocp = ocp
    self._manager = ocp.CheckpointManager(
      directory.resolve(),
      options=ocp.CheckpointManagerOptions(
        max_to_keep=None if read_only else max_to_keep,
        create=not read_only,
        read_only=read_only,
        save_interval_steps=0 if read_only else 1,
      ),
      item_handlers=ocp.StandardCheckpointHandler(),
    )

  def save(self, steps: int, state: types.NestedArray) -> None:
    """Saves `state`; does nothing if there is one for `steps` already.

    Checkpoints of later steps go: the run was resumed before them.
    """
    global _last_writer
    if steps == self._manager.latest_step():
      return
    with _WRITING:
      if _last_writer not in (None, self._manager):
        _last_writer.wait_until_finished()
      later = [step for step in self._manager.all_steps() if step > steps]
      self._manager.save(
        steps, args=self._ocp.args.StandardSave(state), force=bool(later)
      )
      _last_writer = self._manager
      if later:
        self._manager.wait_until_finished()
        for step in set(later) & set(self._manager.all_steps()):
          self._manager.delete(step)

  def restore(self, like: types.NestedArray) -> Restored | None:
    """Returns the newest checkpoint, or None if there is none.

    Args:
      like: a nest of the same structure, of arrays or their shapes.

    Raises:
      ValueError: if the checkpoint has another structure or other arrays.
    """
    steps = self._manager.latest_step()
    if steps is None:
      return None
    like = jax.tree.map(self._ocp.utils.to_shape_dtype_struct, like)
    self._check_fits(steps, like)
    state = self._manager.restore(
      steps, args=self._ocp.args.StandardRestore(like)
    )
    return Restored(steps, state)

  def _check_fits(self, steps: int, like: types.NestedArray) -> None:
    """Compares a checkpoint with what it is to fill; Orbax casts in silence."""
    saved, wanted = (
      {
        '/'.join(path): f'{np.dtype(leaf.dtype)} {tuple(leaf.shape)}'
        for path, leaf in self._ocp.tree.to_flat_dict(nest).items()
      }
      for nest in (self._manager.item_metadata(steps), like)
    )
    different = [
      f'{path}: {saved.get(path, "nothing")} saved, '
      f'{wanted.get(path, "nothing")} needed'
      for path in sorted(saved.keys() | wanted.keys())
      if saved.get(path) != wanted.get(path)
    ]
    if different:
      raise ValueError(
        f'the checkpoint {self._manager.directory / str(steps)} is of another '
        f'agent, network or environment ({"; ".join(different[:4])}'
        f'{"; ..." if different[4:] else ""}). Use the settings that it was '
        'saved with, or another run directory.'
      )

  def wait(self) -> None:
    """Waits until everything is written."""
    with _WRITING:
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits until everything is written, and lets go of the directory."""
    global _last_writer
    with _WRITING:
      self._manager.wait_until_finished()
      if _last_writer is self._manager:
        _last_writer = None
    self._manager.close()


def _is_news(record: logging.LogRecord) -> bool:
  """Leaves out that what was opened to be read is only to be read."""
  return 'directory is read only' not in record.getMessage()


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
    if not mean_return > self.mean_return:  # nor if it is not a number
      return
    if self._checkpointer is None:
      self._checkpointer = Checkpointer(self._directory, max_to_keep=1)
    self.mean_return = mean_return
    self._checkpointer.save(params.version, params.params)
    self._checkpointer.wait()  # or the score of what is not there might stay
    score = {'params_version': params.version, 'mean_return': mean_return}
    run_directory.write_json(self._score, score)

  def close(self) -> None:
    """Waits until everything is written."""
    if self._checkpointer is not None:
      self._checkpointer.close()

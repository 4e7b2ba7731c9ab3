"""Checkpoints with Orbax: the learner's state, and the best params."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import pathlib
import sys
import threading
import traceback
from typing import Any, NamedTuple
import zlib

import jax
import numpy as np

from distacme import core
from distacme import types
from distacme.run import files
from distacme.run import notices
from distacme.run import run_directory

# Orbax 0.11 numbers its operations per process: two managers that write at the same
# time take each other's signals and delete each other's files. So each manager waits
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
  background. A checkpoint is complete or absent, even if the process dies. Damage by
  a disk shows when a checkpoint is restored; then an older one is restored instead.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    max_to_keep: int = 2,
    read_only: bool = False,
  ):
    """Opens `directory`, and creates it unless `read_only`.

    Args:
      directory: of the checkpoints.
      max_to_keep: number of checkpoints; older ones are deleted.
      read_only: whether only to read; another run may be writing there.

    Raises:
      NotWrittenError: if the directory cannot be written to.
      ValueError: if a file is so damaged that Orbax refuses the directory.
    """
    # Not at the top: this import takes half a second, and few processes save.
    from orbax import checkpoint as ocp

    run_directory.check_path(directory.resolve(), read_only)
    logging.getLogger('absl').addFilter(_is_not_raised)
    logging.getLogger('asyncio').addFilter(_is_not_given_up)
    _ignore_late_answers()
    if read_only:
      logging.getLogger('absl').addFilter(_is_news)
    self._ocp = ocp
    # Orbax checks its indices, but not the arrays.
    self._checksums = directory / 'checksums.json'
    self._unreadable: set[int] = set()
    # The first saved checkpoint, until it has been read back.
    self._unproved: tuple[int, types.NestedArray] | None = None
    self._proved = False
    options = ocp.CheckpointManagerOptions(
      max_to_keep=None if read_only else max_to_keep,
      create=not read_only,
      read_only=read_only,
      save_interval_steps=0 if read_only else 1,
    )
    try:
      self._manager = ocp.CheckpointManager(
        directory.resolve(),
        options=options,
        item_handlers=ocp.StandardCheckpointHandler(),
      )
    except Exception as error:  # Orbax skips most damage, and not all
      if isinstance(error, OSError) and not read_only:
        raise files.NotWrittenError(directory, error) from error
      raise ValueError(
        f'the checkpoints in {directory} cannot be opened '
        f'({_first_line(error)}). Restore the files, or move the damaged '
        'checkpoint away.'
      ) from error

  def save(self, steps: int, state: types.NestedArray) -> None:
    """Saves `state`; does nothing if there is a checkpoint of `steps` already.

    Checkpoints of later steps are deleted: the run was resumed before them.

    Raises:
      NotWrittenError: if this checkpoint or the previous one cannot be written.
    """
    global _last_writer
    if steps in set(self._manager.all_steps()) - self._unreadable:
      return
    with _WRITING, self._failure_explained():
      if _last_writer not in (None, self._manager):
        _last_writer.wait_until_finished()
      if steps in self._unreadable & set(self._manager.all_steps()):
        self._manager.delete(steps)
      later = [step for step in self._manager.all_steps() if step > steps]
      if self._unproved:
        self._wait()
      self._write_checksum(steps, state)
      self._manager.save(
        steps, args=self._ocp.args.StandardSave(state), force=bool(later)
      )
      if not self._proved:
        self._unproved = steps, jax.tree.map(_on_host, state)
      self._unreadable.discard(steps)
      _last_writer = self._manager
      if later:
        self._manager.wait_until_finished()
        for step in set(later) & set(self._manager.all_steps()):
          self._manager.delete(step)

  def _failure_explained(self) -> contextlib.AbstractContextManager[None]:
    """Makes a sentence of Orbax's error if Orbax cannot write."""
    # Orbax's C++ raises a ValueError.
    return files.writing_to(self._manager.directory, ValueError)

  def _write_checksum(self, steps: int, state: types.NestedArray) -> None:
    kept = map(str, self._manager.all_steps())
    known = self._read_checksums()
    checksums = {step: known[step] for step in kept if step in known}
    checksums[str(steps)] = _checksum(state)
    files.write_json(self._checksums, checksums)

  def _read_checksums(self) -> dict[str, int]:
    known: dict[str, int] | None = files.read_if_whole(
      self._checksums, dict, 'checkpoints there are read unchecked'
    )
    return known or {}  # {} for a run from before there were checksums

  def restore(self, like: types.NestedArray) -> Restored | None:
    """Returns the newest whole checkpoint, or None if there is no checkpoint.

    A damaged checkpoint is skipped, with a warning that names the one used.

    Args:
      like: a nest of the same structure, of arrays or their shapes.

    Raises:
      ValueError: if the checkpoint has another structure or other arrays, or
        there are checkpoints but none is whole.
    """
    like = jax.tree.map(self._ocp.utils.to_shape_dtype_struct, like)
    damaged: list[str] = []
    for steps in sorted(self._manager.all_steps(), reverse=True):
      try:
        state = self._read(steps, like)
      except _DamagedError as error:
        self._unreadable.add(steps)
        damaged.append(f'{self._manager.directory / str(steps)} ({error})')
        continue
      if damaged:
        notices.warn_once(
          f'cannot read the checkpoint {" nor ".join(damaged)}; '
          f'{self._manager.directory / str(steps)} is used instead.'
        )
      return Restored(steps, state)
    if damaged:
      raise ValueError(
        f'cannot read the checkpoint {" nor ".join(damaged)}, and there is no '
        'other. Restore the files, or choose another run directory.'
      )
    return None

  def _read(self, steps: int, like: types.NestedArray) -> Any:
    """Returns a checkpoint's state.

    Raises:
      _DamagedError: if the checkpoint is damaged.
      ValueError: if the checkpoint has another structure.
    """
    # Orbax and TensorStore raise many kinds of errors for a damaged file.
    try:
      saved = self._manager.item_metadata(steps)
      saved = self._ocp.tree.to_flat_dict(saved) if saved else {}
    except Exception as error:
      raise _DamagedError(_first_line(error)) from error
    if not saved:
      raise _DamagedError('it does not say what it holds')
    self._check_fits(steps, saved, like)
    try:
      state = self._manager.restore(
        steps, args=self._ocp.args.StandardRestore(like)
      )
    except Exception as error:
      raise _DamagedError(_first_line(error)) from error
    if self._read_checksums().get(str(steps)) not in (None, _checksum(state)):
      raise _DamagedError('its arrays are not those that were saved')
    return state

  def _check_fits(
    self, steps: int, saved: dict[Any, Any], like: types.NestedArray
  ) -> None:
    """Checks that a checkpoint has the form of `like`; Orbax casts silently."""
    saved, wanted = (
      {
        '/'.join(path): f'{np.dtype(leaf.dtype)} {tuple(leaf.shape)}'
        for path, leaf in nest.items()
      }
      for nest in (saved, self._ocp.tree.to_flat_dict(like))
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

  def _wait(self) -> None:
    """Waits until everything is written, and reads the first checkpoint back.

    Some file systems and paths do not return the written bytes. Without this test
    the error would show only when a checkpoint is needed.

    Raises:
      NotWrittenError: if the checkpoint differs from the saved state.
      Exception: Orbax's, if the checkpoint was not written.
    """
    unproved, self._unproved = self._unproved, None
    self._manager.wait_until_finished()
    if unproved is None:
      return
    steps, like = unproved
    self._proved = True
    try:
      self._manager.reload()
      if steps not in self._manager.all_steps():
        raise _DamagedError('it is not there')
      self._read(steps, like)
    except _DamagedError as error:
      path = self._manager.directory / str(steps)
      raise files.NotWrittenError(
        path, f'it was written, and cannot be read back: {error}'
      ) from error

  def wait(self) -> None:
    """Waits until everything is written; raises NotWrittenError if not."""
    with _WRITING, self._failure_explained():
      self._wait()

  def close(self) -> None:
    """Waits like `wait`, and closes the directory."""
    global _last_writer
    with _WRITING, self._failure_explained():
      if _last_writer is self._manager:
        _last_writer = None
      try:
        self._wait()
      finally:
        self._manager.close()  # which raises what was not raised before


def _on_host(leaf: Any) -> np.ndarray:
  """Returns host memory to read an array into, so that no device's is used."""
  return np.empty(leaf.shape, leaf.dtype)


class _DamagedError(Exception):
  """A checkpoint differs from the saved state."""


def _first_line(error: Exception) -> str:
  return f'{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}'


def _checksum(state: types.NestedArray) -> int:
  """Returns a sum of all bytes; 0.1 s for 100 MB."""
  checksum = 0
  for leaf in jax.tree.leaves(state):
    data = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)
    checksum = zlib.crc32(data.data, checksum)
  return checksum


def read(directory: pathlib.Path, like: types.NestedArray) -> Restored | None:
  """Returns a directory's newest whole checkpoint, or None if there is none.

  The arrays are put on this process's first device: by default Orbax asks for the
  device that saved them. A run may be writing to the directory meanwhile.

  Args:
    directory: of the checkpoints.
    like: a nest of arrays or their shapes.

  Raises:
    ValueError: see `Checkpointer.restore`.
  """
  if not directory.is_dir():
    return None
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  like = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
    like,
  )
  checkpointer = Checkpointer(directory, read_only=True)
  try:
    return checkpointer.restore(like)
  finally:
    checkpointer.close()


def _is_news(record: logging.LogRecord) -> bool:
  """Drops Orbax's notice that a read-only manager is read-only."""
  return 'directory is read only' not in record.getMessage()


def _is_not_raised(record: logging.LogRecord) -> bool:
  """Drops the logged tracebacks of errors that Orbax raises as well."""
  return not (record.exc_info and 'orbax' in record.pathname)


def _is_not_given_up(record: logging.LogRecord) -> bool:
  """Drops errors that Orbax logs after it has given all up for a failure."""
  trace = record.exc_info and record.exc_info[2]
  return not trace or not any(
    'orbax' in frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace)
  )


@functools.cache
def _ignore_late_answers() -> None:
  """Silences errors of TensorStore's threads after Orbax closed the event loop.

  Orbax gives all reads or writes up when one fails. The unfinished ones then raise
  in threads where no caller can catch the error, or in coroutines that nobody waits
  for. Python would print a traceback for each.
  """
  before = sys.unraisablehook

  def hook(unraisable: Any) -> None:
    code = getattr(unraisable.object, 'cr_code', None)  # of a coroutine
    given_up = code is not None and 'orbax' in code.co_filename
    if not given_up and str(unraisable.exc_value) != 'Event loop is closed':
      before(unraisable)

  sys.unraisablehook = hook


class BestParams:
  """Keeps the params of the best evaluation of a run, and their score."""

  def __init__(self, directory: pathlib.Path):
    """Reads the best score so far, if the run is resumed."""
    self._directory = directory
    self._score = directory / 'score.json'
    self._checkpointer: Checkpointer | None = None
    best = files.read_if_whole(
      self._score,
      lambda score: float(score['mean_return']),
      'the next evaluation counts as the best',
    )
    self.mean_return = -math.inf if best is None else best
    kept = directory.glob('[0-9]*') if not self._score.exists() else ()
    if any(kept):
      notices.warn_once(
        f'{self._score} is gone: the next evaluation counts as the best.'
      )

  def offer(self, params: core.VersionedParams, mean_return: float) -> None:
    """Saves `params` if their score is better than the best."""
    if not mean_return > self.mean_return:  # false for NaN, too
      return
    if self._checkpointer is None:
      self._checkpointer = Checkpointer(self._directory, max_to_keep=1)
    self.mean_return = mean_return
    self._checkpointer.save(params.version, params.params)
    self._checkpointer.wait()  # else the score of absent params might stay
    score = {'params_version': params.version, 'mean_return': mean_return}
    files.write_json(self._score, score)

  def close(self) -> None:
    """Waits until everything is written."""
    if self._checkpointer is not None:
      self._checkpointer.close()

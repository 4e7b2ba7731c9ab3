"""Writes the metrics of all workers into the run directory, and reads them."""

from __future__ import annotations

from collections.abc import Mapping
import errno
import functools
import json
import logging
import math
import os
import pathlib
import re
import threading
import time
from typing import Any

import numpy as np

from distacme import status

METRICS_FILE = 'metrics.jsonl'
TENSORBOARD_DIR = 'tensorboard'
_MAX_WARNINGS = 100  # of metrics that are not finite

# JSON has no such numbers. Protobuf's JSON has the same words for them, and Python's
# float() reads the words.
_NON_FINITE = ('NaN', 'Infinity', '-Infinity')


def worker_kind(worker: str) -> str:
  """Returns a worker's name without the number: 'actor' for 'actor/3'."""
  return re.sub(r'[-_/.:]?\d+$', '', worker) or worker


class MetricsSink:
  """Appends metrics to `metrics.jsonl` and to TensorBoard; thread-safe.

  A line of `metrics.jsonl` is one report of one worker, one flat JSON object:
  `time` (unix seconds), `seconds` (since the run's start), `worker`, the run's
  counters at that moment under their names (`env_steps`, ...), and the metrics.
  A metric named like another field is written as `kind/name`, e.g.
  `learner/seconds`. NaN and infinities are written as the strings "NaN",
  "Infinity" and "-Infinity", so that every JSON reader can read the file;
  `read_metrics` turns them back into floats. A line is readable once `write`
  has returned.

  TensorBoard shows one curve per kind and metric (`actor/episode_return`), over the
  run's clock: all workers of a kind are in it, since a file of events each would take
  three descriptors and two threads of each of a thousand actors. Values that are not
  finite are left out.
  """

  def __init__(
    self,
    run_dir: str | os.PathLike[str],
    tensorboard: bool = True,
    clock: status.Clock = 'env_steps',
    resumed_at: int = 0,
  ) -> None:
    """Opens the files, and appends to those of a resumed run.

    Args:
      run_dir: made if it does not exist.
      tensorboard: whether to write TensorBoard events; needs tensorboardX.
      clock: the counter over which TensorBoard shows curves.
      resumed_at: step of the clock that the run goes on from. TensorBoard hides
        events of later steps, which are lost to the run.
    """
    run_dir = pathlib.Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    self._lock = threading.Lock()
    self._file = open(run_dir / METRICS_FILE, 'a+b', buffering=0)
    self._end_torn_line()
    self._clock = clock
    self._warned: set[str] = set()
    self._tensorboard = (
      _TensorBoard(run_dir / TENSORBOARD_DIR, resumed_at)
      if tensorboard
      else None
    )

  def write(
    self,
    worker: str,
    seconds: float,
    counts: Mapping[str, int],
    metrics: Mapping[str, float],
  ) -> None:
    """Writes one report.

    Args:
      worker: name of the reporting worker, e.g. 'actor/0'.
      seconds: since the run's start.
      counts: the run's counters now.
      metrics: scalars.
    """
    kind = worker_kind(worker)
    metrics = {name: float(value) for name, value in metrics.items()}
    row: dict[str, Any] = {
      'time': time.time(),
      'seconds': seconds,
      'worker': worker,
      **counts,
    }
    for name, value in metrics.items():
      key = f'{kind}/{name}' if name in row else name
      row[key] = value if math.isfinite(value) else _spell(value)
    line = json.dumps(row, allow_nan=False).encode() + b'\n'
    with self._lock:
      try:
        self._file.write(line)
      except OSError as error:  # it lacks the file's name
        raise OSError(error.errno, error.strerror, self._file.name) from error
      if self._tensorboard:
        step = counts.get(self._clock, 0)
        self._tensorboard.write(kind, step, metrics)
      self._warn_once(worker, kind, metrics)

  def close(self) -> None:
    """Flushes TensorBoard's events, and closes the files; again, does nothing."""
    with self._lock:
      self._file.close()
      if self._tensorboard:
        self._tensorboard.close()

  def _end_torn_line(self) -> None:
    # A killed run may have left half a line; the next line must not be glued to it.
    if self._file.seek(0, os.SEEK_END):
      self._file.seek(-1, os.SEEK_END)
      if self._file.read(1) != b'\n':
        self._file.write(b'\n')

  def _warn_once(
    self, worker: str, kind: str, metrics: Mapping[str, float]
  ) -> None:
    for name, value in metrics.items():
      tag = f'{kind}/{name}'
      if math.isfinite(value) or tag in self._warned:
        continue
      if len(self._warned) >= _MAX_WARNINGS:
        return
      self._warned.add(tag)
      logging.getLogger(__name__).warning(
        'Metric %s of %s is %s; it is logged as that, and this is said once.',
        tag,
        worker,
        value,
      )


class _TensorBoard:
  """One file of events, whatever the number of workers."""

  def __init__(self, directory: pathlib.Path, resumed_at: int) -> None:
    try:
      import tensorboardX
    except ImportError as error:
      raise ImportError(
        'TensorBoard events need tensorboardX, which is not installed: run'
        ' `pip install tensorboardX`, or pass tensorboard=False.'
      ) from error
    _silence_writers()
    self._directory = directory
    purge_step = resumed_at + 1 if directory.exists() else None
    self._writer = tensorboardX.SummaryWriter(
      str(directory), flush_secs=1, purge_step=purge_step
    )
    self._events = self._writer.file_writer.event_writer

  def write(self, kind: str, step: int, metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
      if not self._is_alive():
        raise OSError(errno.EIO, 'its writer has ended', str(self._directory))
      if math.isfinite(value):
        # An array, since tensorboardX 2.6 wraps a float in an array of shape [1], and
        # NumPy deprecates the conversion of such an array to a float.
        scalar = np.asarray(value)
        self._writer.add_scalar(f'{kind}/{name}', scalar, step)

  def close(self) -> None:
    try:
      if self._is_alive():
        self._writer.close()
    except OSError as error:
      raise OSError(
        error.errno, error.strerror, str(self._directory)
      ) from error
    finally:
      # Else what could not be written is tried again, and printed, at exit.
      self._events._closed = True

  def _is_alive(self) -> bool:
    """Returns whether the thread of the tensorboardX writer still writes.

    A full disk ends the thread (tensorboardX 2.6). Ten calls later its queue is full,
    and a call would wait for ever.
    """
    return bool(not self._events._closed and self._events._worker.is_alive())


@functools.cache
def _silence_writers() -> None:
  """Drops the tracebacks of tensorboardX's threads that a full disk ends.

  `_TensorBoard` finds the end of such a thread, and raises.
  """
  before = threading.excepthook

  def hook(arguments: threading.ExceptHookArgs) -> None:
    of = type(arguments.thread).__module__
    if not (
      of.startswith('tensorboardX.')
      and isinstance(arguments.exc_value, OSError)
    ):
      before(arguments)

  threading.excepthook = hook


class MetricsReader:
  """Reads the new lines of `metrics.jsonl` at each call; one thread."""

  def __init__(self, path: str | os.PathLike[str]) -> None:
    """Takes the file, which need not exist yet, or its run directory."""
    path = pathlib.Path(path)
    self._path = path / METRICS_FILE if path.is_dir() else path
    self._offset = 0

  def read(self) -> list[dict[str, Any]]:
    """Returns a dict for each report since the last call, oldest first.

    Lines cut short by a crash are skipped. A line that is still being written is
    left for the next call.
    """
    with open(self._path, 'rb') as file:
      file.seek(self._offset)
      data = file.read()
    data = data[: data.rfind(b'\n') + 1]
    self._offset += len(data)
    rows = []
    for line in data.splitlines():
      try:
        row = json.loads(line)
      except ValueError:
        continue
      if isinstance(row, dict):
        rows.append({k: _parse(k, v) for k, v in row.items()})
    return rows


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Reads `metrics.jsonl`, also while a run writes it.

  Args:
    path: the file, or its run directory.

  Returns:
    One dict per report, oldest first. Lines cut short by a crash are skipped.
  """
  return MetricsReader(path).read()


def _spell(value: float) -> str:
  if math.isnan(value):
    return 'NaN'
  return 'Infinity' if value > 0 else '-Infinity'


def _parse(key: str, value: Any) -> Any:
  if key != 'worker' and value in _NON_FINITE:
    return float(value)
  return value

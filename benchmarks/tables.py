"""Measures the tables of replay: their speed, their memory and their checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import functools
import gc
import pathlib
import tempfile
import threading
import time

import numpy as np
import psutil

from benchmarks import harness
from distacme import replay_spec
from distacme import specs
from distacme.replay import batch
from distacme.replay import form as form_lib
from distacme.replay import packs
from distacme.replay import store as store_lib
from distacme.replay.items import frames as frames_lib
from distacme.replay.items import rows as rows_lib
from distacme.replay.shared_memory import slots as slots_lib

_PACK = 32
_CARTPOLE = specs.Array((4,), np.float32)
_PONG = specs.FrameStack((84, 84, 4), np.uint8, 0, 255)
_STEPS = 3
_RANDOM = np.random.default_rng(0)


def main() -> None:
  """Measures and reports."""
  _contents('a million transitions of CartPole', _CARTPOLE, 1_000_000, 100.0)
  frames_mb = 100_000 * 84 * 84 / 1e6
  _contents('100,000 stacks of Pong', _PONG, 100_000, 1.3 * frames_mb)
  _transitions()
  _stacks()


def _layout(observation: specs.Array) -> rows_lib.RowLayout:
  return rows_lib.make_layout(
    replay_spec.NStep(_STEPS, 0.99),
    specs.EnvironmentSpec(
      observations=observation,
      actions=specs.DiscreteArray(6),
      rewards=specs.Array((), np.float32),
      discounts=specs.BoundedArray((), np.float32, 0.0, 1.0),
    ),
  )


def _spec(max_size: int, batch_size: int) -> replay_spec.ReplaySpec:
  return replay_spec.single(
    replay_spec.NStep(_STEPS, 0.99),
    batch_size=batch_size,
    max_size=max_size,
    min_size=1_000,
    samples_per_insert=None,
    priority_exponent=0.6,
  )


def _packs(layout: rows_lib.RowLayout) -> Iterator[packs.Pack]:
  """Yields packs of an actor as they come from its line, without end."""
  number = 0  # of frames
  while True:
    rows = np.zeros(_PACK, layout.dtype)
    frames = None
    if layout.frames is not None:
      rows[frames_lib.FRAMES_BEFORE] = layout.frames.stack - 1
      size, named = layout.frames.dtype.itemsize, layout.frames.stack + _STEPS
      windows = number + np.arange(_PACK)[:, None] + np.arange(named)
      new = _PACK if number else _PACK + named - 1
      first = number + named - 1 if number else 0
      frames = packs.Frames(
        stream=1,
        first=first,
        oldest=number,
        new=np.full((new, size), number % 251, np.uint8),
        lengths=np.full(_PACK, named, np.uint32),
        named=windows.reshape(-1).astype(np.uint64),
      )
      number += _PACK
    items = rows.view(np.uint8).reshape(_PACK, -1)
    priorities = _RANDOM.random(_PACK)
    yield packs.decode(
      packs.encode(packs.Pack((0,), items, priorities, frames))
    )


def _fill(
  store: store_lib.Store, coming: Iterator[packs.Pack], items: int
) -> None:
  for _ in range(-(-items // _PACK)):
    store.insert(next(coming))


def _memory_mb() -> float:
  gc.collect()
  return psutil.Process().memory_info().rss / 1e6


def _contents(
  name: str, observation: specs.Array, items: int, at_most_mb: float
) -> None:
  """Measures memory and checkpoints of a full table."""
  coming = _packs(_layout(observation))
  next(coming)
  spec = _spec(items, 32)
  with tempfile.TemporaryDirectory() as folder:
    before_mb = _memory_mb()
    store = store_lib.Store(spec, pathlib.Path(folder))
    _fill(store, _packs(_layout(observation)), items + _PACK)
    harness.number(
      f'replay, memory of {name}',
      [_memory_mb() - before_mb],
      unit='MB',
      at_most=at_most_mb,
    )
    saving, pauses, loading = [], [], []
    for _ in range(3):
      with _inserting(store, coming) as longest:
        saving.append(_seconds(store.save))
      pauses.append(longest())
    del store
    for _ in range(3):
      loading.append(
        _seconds(lambda: store_lib.Store(spec, pathlib.Path(folder)))
      )
  for what, values, at_most in (
    ('saving', saving, 5.0),
    ('longest insert while saving', pauses, 0.2),
    ('loading', loading, 10.0),
  ):
    harness.number(f'replay, {what} {name}', values, unit='s', at_most=at_most)


def _seconds(call: Callable[[], object]) -> float:
  start = time.perf_counter()
  call()
  return time.perf_counter() - start


@contextlib.contextmanager
def _inserting(
  store: store_lib.Store, coming: Iterator[packs.Pack]
) -> Iterator[Callable[[], float]]:
  """Inserts from a thread meanwhile; yields a function: the longest of these."""
  some = [next(coming) for _ in range(8)]
  done = threading.Event()
  taken: list[float] = []

  def insert() -> None:
    while not done.wait(0.002):
      pack = some[len(taken) % len(some)]
      taken.append(_seconds(functools.partial(store.insert, pack)))

  thread = threading.Thread(target=insert)
  thread.start()
  try:
    yield lambda: max(taken)
  finally:
    done.set()
    thread.join()


def _transitions() -> None:
  """Measures drawing, priorities and inserts together, in one thread."""
  coming = _packs(_layout(_CARTPOLE))
  store = store_lib.Store(_spec(100_000, 256))
  _fill(store, coming, 110_000)
  some = [next(coming) for _ in range(8)]
  priorities = _RANDOM.random(1024)

  def step() -> int:
    drawn = []
    for pack in some[:4]:
      batch_ = store.draw()
      assert batch_ is not None
      drawn.append(batch_)
      store.insert(pack)
    store.update_priorities(
      np.concatenate([each.tables for each in drawn]),
      np.concatenate([each.keys for each in drawn]),
      priorities,
    )
    return 1024

  # Of this thread: what else the machine does is not the tables' doing.
  rates = harness.rates(
    {'ours': harness.repeated(step, 4)}, clock=time.thread_time
  )
  harness.number(
    'replay, prioritized transitions drawn, updated and a pack inserted',
    rates['ours'],
    unit='samples/CPU-s',
    at_least=400_000,
  )


def _stacks() -> None:
  """Measures batches of Pong through shared memory, beside bare copies."""
  layout = _layout(_PONG)
  assert layout.frames is not None
  store = store_lib.Store(_spec(20_000, 32))
  _fill(store, _packs(layout), 20_000)
  form = form_lib.Form(
    items=32,
    item_bytes=layout.itemsize,
    max_frames=32 * layout.frames.slots,
    frame_bytes=layout.frames.dtype.itemsize,
  )
  ours = slots_lib.Slots(form, 2)
  theirs = slots_lib.Slots(form, 2, ours.file)
  source = np.ones(
    (32 * layout.frames.slots, layout.frames.dtype.itemsize), np.uint8
  )
  target = np.ones_like(source)

  def give() -> int:
    drawn = store.draw()
    assert drawn is not None
    ours.write(0, drawn)
    return 1

  def take() -> int:
    batch.read(layout, theirs.read(0))
    return 1

  def copy() -> int:
    np.copyto(target, source)
    return 1

  give()
  rates = harness.rates(
    {
      name: harness.repeated(step)
      for name, step in (('give', give), ('take', take), ('copy', copy))
    }
  )
  for name, who in (('give', 'replay'), ('take', 'learner')):
    harness.compare(
      f'replay, batches of 32 Pong stacks, at the side of the {who}',
      rates[name],
      rates['copy'],
      unit='batches/s',
      limit_name='one copy of the frames',
    )


if __name__ == '__main__':
  main()

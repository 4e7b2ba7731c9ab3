"""Frames that windows share become the stacks that the agent saw."""

import itertools
import types as python_types

import hypothesis
from hypothesis import strategies as st
import jax
import numpy as np
import pytest
import tree

from distacme import replay_spec
from distacme import specs
from distacme import types
from distacme.learning import batches
from distacme.learning import frame_stacks
from distacme.replay import in_process
from distacme.replay import pack_inserter
from distacme.replay.items import rows as rows_lib
from distacme.replay.writers import factory
from tests.replay import backends
from tests.replay import playing
from tests.replay.playing import FIRST

STACK = 3
SPEC = specs.EnvironmentSpec(
  observations={
    'screen': specs.FrameStack((2, STACK), np.uint8, 0, 255),
    'name': specs.Array((), np.int32),
    'sound': (specs.FrameStack((STACK,), np.float32, -np.inf, np.inf),),
  },
  actions=specs.DiscreteArray(9),
  rewards=specs.Array((), np.float32),
  discounts=specs.BoundedArray((), np.float32, 0.0, 1.0),
)
windows = st.one_of(
  st.builds(
    replay_spec.NStep,
    st.one_of(st.integers(1, 5), st.sampled_from([(1, 3), (2, 4, 5)])),
    st.just(0.9),
  ),
  st.integers(2, 7).flatmap(
    lambda length: st.builds(
      replay_spec.Sequences,
      st.just(length),
      st.integers(1, length - 1),
      st.booleans(),
    )
  ),
)


def timesteps(run):
  """Yields each call's moments and their timestep, with stacks."""
  recent = [[] for _ in run.environments]
  for moments in zip(*run.environments, strict=True):
    for moment, frames in zip(moments, recent, strict=True):
      if moment.kind == FIRST:
        frames[:] = [0] * STACK
      frames.append(1 + moment.time % 250)
    shown = np.array([frames[-STACK:] for frames in recent])
    yield (
      moments,
      playing.timestep(moments)._replace(
        observation={
          'screen': np.stack([shown, 255 - shown], axis=1).astype(np.uint8)
          * (shown[:, None] > 0).astype(np.uint8),
          'name': np.array([m.name for m in moments], np.int32),
          'sound': (shown.astype(np.float32) / 4,),
        }
      ),
    )


def write(run, writer):
  for (now, before), (_, after) in itertools.pairwise(list(timesteps(run))):
    output = types.ActorOutput(
      np.array([moment.time % 9 for moment in now], np.int32),
      values={'a': np.ones(len(now))},
    )
    writer.append(before, output, after, now[0].version)
  writer.close()


def make_spec(window, prioritized=False):
  return replay_spec.single(
    window,
    batch_size=1,
    max_size=1000,
    min_size=1,
    samples_per_insert=1.0,
    error_buffer=1e9,
    priority_exponent=1.0 if prioritized else 0.0,
  )


def writer(spec, layout, num_envs, inserter):
  agent = python_types.SimpleNamespace(
    replay=spec,
    first_priority=lambda window, values: np.ones(len(window.reward)),
  )
  return factory.make_writer(agent, layout, num_envs, inserter)


class Shared(playing.Collector):
  """Keeps windows and the frames that they name."""

  def __init__(self, layout):
    super().__init__(layout)
    self.frames, self.num_frames = [], 0

  def insert_frames(self, frames):
    self.num_frames += len(frames)
    return list(frames.view(np.uint8).reshape(len(frames), -1))

  def insert(self, rows, priorities, frames=None):
    super().insert(rows, priorities)
    if frames is not None:
      self.frames += frames


def collect(run, window, prioritized, share):
  spec = make_spec(window, prioritized)
  collector = Shared(rows_lib.make_layout(window, SPEC, share_frames=share))
  write(
    run,
    writer(spec, collector.layout, len(run.environments), collector),
  )
  return collector


@hypothesis.given(playing.runs(), windows, st.booleans())
@hypothesis.settings(max_examples=40, deadline=None)
def test_shared_frames_become_the_stacks_that_were_seen(
  run, window, prioritized
):
  whole = collect(run, window, prioritized, share=False)
  shared = collect(run, window, prioritized, share=True)
  assert shared.num_frames == len(run.environments) * len(run.environments[0])
  if not whole.items:
    return
  got = frame_stacks.unpack(
    shared.layout.frames, shared.layout.read(shared.rows, shared.frames)
  )
  want = whole.data
  if isinstance(window, replay_spec.Sequences):
    # What stands in padding does not matter.
    real = np.ones(got.step_type.shape, bool)
    real[:, 1:] = want.step_type[:, :-1] != playing.LAST
    if window.across_episodes:
      real[:] = True
    got, want = [
      data._replace(
        observation=tree.map_structure(
          lambda leaf: np.asarray(leaf)[real], data.observation
        )
      )
      for data in (got, want)
    ]
  tree.map_structure(np.testing.assert_array_equal, got, want)


def test_stacks_are_the_same_once_padding_is_cut():
  kinds = [FIRST, playing.MID, playing.MID, playing.LAST]
  run = playing.Run([
    [playing.Moment(env, time, kinds[time % 4], 1.0, 1.0) for time in range(20)]
    for env in range(2)
  ])  # fmt: skip
  shared = collect(run, replay_spec.Sequences(9, 1), False, share=True)
  layout = shared.layout
  data = layout.read(shared.rows, shared.frames)
  (cut,) = batches.trimmed([data])
  assert cut.step_type.shape[1] == 5
  assert cut.observation['screen'].shape[1] == 5 + STACK - 1
  got = frame_stacks.unpack(layout.frames, cut)
  want = frame_stacks.unpack(layout.frames, data)
  assert want.observation['screen'].any(axis=(1, 2, 3)).all()
  tree.map_structure(
    lambda leaf, whole: np.testing.assert_array_equal(leaf, whole[:, :5]),
    got,
    want,
  )


def test_a_stack_may_be_deeper_than_a_sequence_is_long():
  shown = frame_stacks._shown(np.array([[0, 1], [1, 1]], np.int8), 5)
  np.testing.assert_array_equal(
    shown,
    [[[0, 0, 0, 0, 1], [0, 0, 0, 1, 1]], [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]],
  )


def test_a_row_holds_no_frame():
  window = replay_spec.NStep(3, 0.99)
  spec = SPEC._replace(
    observations=specs.FrameStack((84, 84, 4), np.uint8, 0, 255)
  )
  assert rows_lib.make_layout(window, spec).itemsize < 64
  assert rows_lib.make_layout(window, spec).frames.dtype.itemsize == 84 * 84


def test_stacks_of_different_depths_travel_whole():
  observations = {
    'a': specs.FrameStack((2, 3), np.uint8, 0, 255),
    'b': specs.FrameStack((2, 4), np.uint8, 0, 255),
  }
  spec = SPEC._replace(observations=observations)
  layout = rows_lib.make_layout(replay_spec.NStep(1, 0.9), spec)
  assert layout.frames is None


@pytest.mark.parametrize('backend', backends.ALL)
@pytest.mark.parametrize(
  'window',
  [
    replay_spec.NStep(3, 0.9),
    replay_spec.NStep((1, 3), 0.9),
    replay_spec.Sequences(6, 3),
    replay_spec.Sequences(6, 5, across_episodes=True),
  ],
)
@pytest.mark.parametrize('used_once', [False, True])
def test_all_ways_give_back_the_stacks(backend, window, used_once):
  run = playing.Run([episodes(env, 40) for env in range(3)])
  spec = make_spec(window)
  if used_once:
    spec = replay_spec.queue(window, batch_size=1, max_size=1000)
  layout = rows_lib.make_layout(window, SPEC)
  replay = backend(spec, layout)
  write(run, writer(spec, layout, 3, replay.inserter()))
  whole = collect(run, window, False, share=False)
  by_name = {name_of(row): row for row in map(whole.layout.views, whole.rows)}
  count = len(by_name)
  replay.settle(count)
  assert replay.metrics()['inserted'] == count == len(whole.rows)
  seen = set()
  for _ in range(count if used_once else 4 * count):
    data, _ = replay.sample()
    got = frame_stacks.unpack(layout.frames, data)
    row = jax.tree.map(lambda leaf: np.asarray(leaf)[0], got)
    seen.add(name_of(row))
    check_same(row, by_name[name_of(row)])
  assert len(seen) == count or not used_once
  replay.close()


@pytest.mark.parametrize(
  'window', [replay_spec.NStep(3, 0.9), replay_spec.Sequences(6, 3)]
)
def test_stacks_survive_packs_smaller_than_a_window(monkeypatch, window):
  monkeypatch.setattr(pack_inserter, '_BYTES', 100)
  test_all_ways_give_back_the_stacks(backends.Worker, window, used_once=True)


def check_same(got, want):
  if isinstance(got, types.Sequence):  # The rest is padding.
    over = got.step_type == playing.LAST
    count = len(over) - int(over[::-1].cumprod().sum()) + 1
    got, want = [
      tree.map_structure(lambda leaf: leaf[:count], data)
      for data in (got, want)
    ]
  tree.map_structure(np.testing.assert_array_equal, got, want)


def name_of(row):
  name = row.observation['name']
  return tuple(np.atleast_1d(name)[:1]) + tuple(
    np.atleast_1d(getattr(row, 'next_observation', row.observation)['name'])
  )


def episodes(env, length):
  """Returns moments of episodes of 1, 2, 3, ... steps."""
  moments, steps = [], 1
  while len(moments) < length:
    time = len(moments)
    moments.append(playing.Moment(env, time, FIRST, 0.0, 1.0))
    for step in range(1, steps + 1):
      kind = playing.LAST if step == steps else playing.MID
      moments.append(playing.Moment(env, time + step, kind, 1.0, 1.0))
    steps += 1
  return moments[:length]


def test_frames_are_kept_once_in_memory():
  run = playing.Run([episodes(0, 60)])
  window = replay_spec.NStep(3, 0.9)
  layout = rows_lib.make_layout(window, SPEC)
  spec = make_spec(window)
  replay = in_process.InProcessReplay(spec, layout, seed=0)
  write(run, writer(spec, layout, 1, replay.inserter(spec.tables)))
  (table,) = replay._memory._tables
  frames = {id(f) for w in table._frames if w is not None for f in w}
  assert len(frames) <= 60

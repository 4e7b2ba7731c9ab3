"""Batches drawn ahead: in order, no more than asked, and with their errors."""

import threading

import haiku as hk
import hypothesis
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

import distacme
from distacme import specs
from distacme import types
from distacme.agents import r2d2
from distacme.environments import vector
from distacme.kit import recurrent
from distacme.learning import batches
from distacme.testing import environments
from tests import feeding


def test_prefetched_batches_come_in_order():
  made = batches.PrefetchedBatches(feeding.ListSampler(1.0, 2.0, 3.0))
  for number in range(3):
    batch, info = made.get(feeding.DEADLINE_S)
    assert batch.data.reward.tolist() == [number + 1.0] * 4
    assert info.key.tolist() == [4 * number + i for i in range(4)]


def test_no_more_batches_are_drawn_ahead_than_asked():
  sampler = feeding.ListSampler(*range(100))
  made = batches.PrefetchedBatches(sampler, depth=3)
  feeding.wait_for(
    lambda: sampler.drawn == 4
  )  # 3 in the queue and one in the hand
  for _ in range(5):
    made.get(feeding.DEADLINE_S)
  feeding.wait_for(lambda: sampler.drawn == 9)
  assert not threading.Event().wait(0.02)
  assert sampler.drawn == 9


def test_stacked_batches_are_drawn_ahead_no_further_than_they_must():
  sampler = feeding.ListSampler(*range(100))
  made = batches.PrefetchedBatches(sampler, count=4)
  feeding.wait_for(lambda: sampler.drawn == 8)  # one queued, one in the hand
  drawn = made.get(feeding.DEADLINE_S)
  assert drawn.batch.data.reward.tolist() == [[i] * 4 for i in range(4)]
  assert drawn.batch.probability.shape == (4, 4)
  assert drawn.info.key.tolist() == list(range(16))
  feeding.wait_for(lambda: sampler.drawn == 12)


def test_a_sampler_that_fails_fails_the_learner():
  made = batches.PrefetchedBatches(feeding.ListSampler(1.0))
  assert made.get(feeding.DEADLINE_S) is not None
  for _ in range(2):  # however often it asks
    with pytest.raises(ConnectionError, match='replay is gone'):
      made.get(feeding.DEADLINE_S)


def test_waiting_for_a_batch_ends_in_time():
  class Blocked(feeding.ListSampler):
    def sample(self):
      threading.Event().wait(feeding.DEADLINE_S)
      raise ConnectionError

  made = batches.PrefetchedBatches(Blocked())
  assert made.get(0.01) is None


# Padding.

FIRST, MID, LAST = types.FIRST, types.MID, types.LAST


def sequences(rows, length, slots=0):
  """Returns sequences of so many rows each, the last of which is an end.

  What stands in a row is its number, from 1; padding holds 0. Frames have
  `slots` more.
  """
  place = np.arange(1, length + 1)
  shown = place * (place <= np.array(rows)[:, None])
  step_type = np.where(place < np.array(rows)[:, None], MID, LAST)
  frames = np.pad(shown, ((0, 0), (slots, 0)))
  scalar = shown.astype(np.float32)
  return types.Sequence(
    {'screen': frames, 'name': shown},
    shown,
    scalar,
    scalar,
    step_type.astype(np.int8),
    extras=(shown[..., None],),
    start_state=np.arange(len(rows) * 100).reshape(len(rows), 100),
  )


class SequenceSampler(feeding.ListSampler):
  """Gives batches of sequences with the given numbers of rows."""

  def __init__(self, length, *batches_of_rows):
    super().__init__(*batches_of_rows)
    self.length = length

  def sample(self):
    rows = self._rewards[self.drawn]
    self.drawn += 1
    _, info = feeding.batch(0)
    return sequences(rows, self.length), info


@pytest.mark.parametrize(
  ('length', 'rows', 'kept'),
  [
    (49, [49, 2, 2, 2], 49),
    (49, [26, 2, 2, 2], 49),
    (49, [25, 2, 2, 2], 25),
    (49, [13, 3, 12, 2], 13),
    (49, [4, 4, 4, 4], 4),
    (49, [2, 2, 2, 2], 4),  # at most four halvings
    (7, [5, 2, 2, 2], 7),
    (7, [4, 4, 4, 4], 4),
    (7, [2, 2, 2, 2], 2),
    (2, [2, 2, 2, 2], 2),
  ],
)
def test_padding_that_all_share_is_cut_by_halves(length, rows, kept):
  (got,) = batches.trimmed([sequences(rows, length)])
  want = sequences(rows, kept)
  jax.tree.map(np.testing.assert_array_equal, got, want)


def test_a_truncation_in_the_last_row_is_not_padding():
  data = sequences([4, 4], 4)
  assert (data.step_type[:, -1] == LAST).all()
  (got,) = batches.trimmed([data])
  assert got.step_type.shape == (2, 4)


def test_what_goes_on_to_the_last_row_stays_whole():
  data = sequences([2, 2], 8)
  data.step_type[1] = MID
  (got,) = batches.trimmed([data])
  jax.tree.map(np.testing.assert_array_equal, got, data)


def test_frames_from_before_the_first_row_stay():
  (got,) = batches.trimmed([sequences([3, 2], 8, slots=3)])
  want = [[0, 0, 0, 1, 2, 3, 0], [0, 0, 0, 1, 2, 0, 0]]
  np.testing.assert_array_equal(got.observation['screen'], want)
  assert got.observation['name'].shape == (2, 4)


@hypothesis.given(
  st.integers(2, 60), st.lists(st.integers(2, 60), min_size=1, max_size=4)
)
def test_nothing_but_padding_is_lost_and_lengths_are_few(length, rows):
  rows = [min(each, length) for each in rows]
  drawn = [sequences([each], length) for each in rows]
  for data, got in zip(drawn, batches.trimmed(drawn), strict=True):
    kept = got.step_type.shape[1]
    assert max(rows) <= kept
    assert kept in {-(-length // 2**halvings) for halvings in range(5)}
    np.testing.assert_array_equal(got.action, data.action[:, :kept])
    assert (data.action[:, kept:] == 0).all()
    assert (data.step_type[:, kept - 1 :][:, 1:] == LAST).all()


def test_batches_that_are_stacked_keep_what_one_of_them_needs():
  rows = [[2, 3, 2, 2], [2, 2, 7, 2], [2, 2, 2, 2]]
  made = batches.Batches(SequenceSampler(16, *rows), count=3, padded=True)
  batch, _ = made.get()
  assert batch.data.step_type.shape == (3, 4, 8)
  assert batch.data.start_state.shape == (3, 4, 100)
  want = np.stack([sequences(each, 8).reward for each in rows])
  np.testing.assert_array_equal(batch.data.reward, want)
  assert batch.data.reward.flags.c_contiguous


@pytest.mark.parametrize('kind', [batches.Batches, batches.PrefetchedBatches])
def test_sequences_are_cut_only_where_they_may_be_padded(kind):
  for padded, length in ((True, 4), (False, 16)):
    sampler = SequenceSampler(16, *[[3, 2, 2, 3]] * 4)
    made = kind(sampler, padded=padded)
    batch, _ = made.get(feeding.DEADLINE_S)
    assert batch.data.step_type.shape == (4, length)
    made.close()


def test_the_learner_is_spared_the_padding_of_short_episodes():
  lengths = []

  class Noting(r2d2.R2D2):
    def update(self, state, batch):  # traced once for each length
      lengths.append(batch.data.step_type.shape[1])
      return super().update(state, batch)

  def network():
    head = hk.Linear(2, name='head')
    return recurrent.RecurrentNetwork(lambda seen: seen, None, head)

  environment = vector.LoopVector(
    [environments.Counting((3, 2)) for _ in range(2)]
  )
  config = r2d2.Config(
    trace_length=20,
    batch_size=4,
    min_replay_size=4,
    use_start_state=False,
  )
  spec = specs.make_environment_spec(environment)
  loop = distacme.EnvironmentLoop(environment, Noting(config, spec, network))
  loop.run(num_steps=60)
  assert loop.learner.steps > 0
  assert set(lengths) == {4}  # of 8 + 20 + 1 rows

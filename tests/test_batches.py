"""Batches drawn ahead: in order, no more than asked, and with their errors."""

import threading

import pytest

from distacme import batches
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

"""The sum tree against plain sums."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from distacme.replay import sum_tree

# One level below the highest one, and several.
capacities = st.one_of(st.integers(1, 40), st.sampled_from([9_000, 140_000]))


@st.composite
def updates(draw):
  """A capacity and sets of (slot, weight), with slots that repeat."""
  capacity = draw(capacities)
  weight = st.one_of(st.just(0.0), st.floats(1e-9, 1e9))
  slot = st.one_of(
    st.integers(0, min(40, capacity) - 1), st.integers(0, capacity - 1)
  )
  batch = st.lists(st.tuples(slot, weight), max_size=20)
  return capacity, draw(st.lists(batch, max_size=5))


def filled(capacity, batches):
  """Returns a tree and the weights that it should hold."""
  tree, weights = sum_tree.SumTree(capacity), np.zeros(capacity)
  for batch in batches:
    tree.set(
      np.array([slot for slot, _ in batch], np.int64),
      np.array([weight for _, weight in batch], np.float64),
    )
    for slot, weight in batch:
      weights[slot] = weight
  return tree, weights


@hypothesis.given(updates())
@hypothesis.settings(deadline=None)
def test_it_holds_the_last_weight_of_each_slot_and_their_sum(update):
  tree, weights = filled(*update)
  np.testing.assert_array_equal(tree.get(np.arange(len(weights))), weights)
  assert tree.total == pytest.approx(weights.sum())


@hypothesis.given(updates(), st.floats(0, 1, exclude_max=True))
@hypothesis.settings(deadline=None)
def test_a_weight_of_zero_is_never_drawn(update, uniform):
  tree, weights = filled(*update)
  hypothesis.assume(weights.sum() > 0)
  corners = [0.0, uniform, np.nextafter(1.0, 0.0)]
  edges = np.unique(np.cumsum(weights)) / weights.sum()
  edges = np.concatenate([edges, np.nextafter(edges, 0)])
  numbers = np.concatenate([corners, edges[edges < 1]])
  slots = tree.draw(numbers)
  assert (slots >= 0).all() and (slots < len(weights)).all()
  assert (weights[slots] > 0).all()


@hypothesis.given(
  capacities, st.lists(st.integers(0, 5), min_size=1, max_size=40), st.data()
)
@hypothesis.settings(deadline=None)
def test_slots_are_drawn_as_often_as_they_weigh(capacity, few, data):
  slots = data.draw(
    st.lists(st.integers(0, capacity - 1), min_size=len(few), max_size=len(few))
  )
  weights = np.zeros(capacity, np.int64)
  weights[slots] = few
  hypothesis.assume(weights.sum())
  tree = sum_tree.SumTree(capacity)
  tree.set(np.array(slots), np.array(few, np.float64))
  # One number in the middle of each unit of weight.
  numbers = (np.arange(weights.sum()) + 0.5) / weights.sum()
  counts = np.bincount(tree.draw(numbers), minlength=capacity)
  np.testing.assert_array_equal(counts, weights)


def test_few_and_many_changes_give_the_same_sums():
  rng = np.random.default_rng(0)
  few, many = sum_tree.SumTree(20_000), sum_tree.SumTree(20_000)
  weights = rng.random(20_000)
  slots = rng.permutation(20_000)
  many.set(slots, weights)  # more changes than rows: all are summed
  for start in range(0, 20_000, 40):
    some = slice(start, start + 40)
    few.set(slots[some], weights[some])
  assert few.total == many.total == pytest.approx(weights.sum(), rel=1e-14)
  numbers = rng.random(1000)
  np.testing.assert_array_equal(few.draw(numbers), many.draw(numbers))


def test_draws_follow_running_sums():
  rng = np.random.default_rng(0)
  weights = rng.random(50_000) ** 8
  tree = sum_tree.SumTree(len(weights))
  tree.set(np.arange(len(weights)), weights)
  numbers = rng.random(2000)
  ends = np.cumsum(weights)
  slots = np.searchsorted(ends, numbers * ends[-1], side='right')
  np.testing.assert_array_equal(tree.draw(numbers), slots)


def test_many_updates_leave_no_rounding_behind():
  tree = sum_tree.SumTree(3)
  tree.set(np.array([0, 1, 2]), np.array([1e-9, 1.0, 1e9]))
  for _ in range(1000):
    tree.set(np.array([2, 1]), np.array([1e15 / 3, 1e-3]))
  tree.set(np.array([1, 2]), np.array([0.0, 0.0]))
  assert tree.total == 1e-9


def test_a_product_that_is_rounded_up_draws_no_weight_of_zero():
  tree = sum_tree.SumTree(2)
  tree.set(np.array([0, 1]), np.array([5e-324, 0.0]))  # the least there is
  np.testing.assert_array_equal(tree.draw(np.array([0.75])), [0])

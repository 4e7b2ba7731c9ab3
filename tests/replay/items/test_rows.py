"""Rows give back what was put in, byte by byte."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import tree

from distacme import replay_spec
from distacme import specs
from distacme import types
from distacme.replay.items import rows as rows_lib

leaves = st.builds(
  specs.Array,
  st.lists(st.integers(1, 3), max_size=3),
  st.sampled_from(
    [np.uint8, np.int32, np.bool_, np.float32, np.float64, np.int64, np.int8]
  ),
)
nests = st.recursive(
  leaves,
  lambda inner: st.one_of(
    st.dictionaries(
      st.sampled_from(['a', 'b', 'a/b', 'a~1b', '']),
      inner,
      min_size=1,
      max_size=3,
    ),
    st.tuples(inner, inner),
  ),
  max_leaves=5,
)


def layout_of(observations, actions=None, extras=()):
  return rows_lib.make_layout(
    replay_spec.NStep(1, 0.9),
    specs.EnvironmentSpec(
      observations,
      actions or specs.DiscreteArray(3),
      specs.Array((), np.float32),
      specs.BoundedArray((), np.float32, 0.0, 1.0),
    ),
    extras,
  )


IMAGES = layout_of(specs.Array((84, 84, 4), np.uint8))


@hypothesis.given(
  nests, nests, st.one_of(st.just(()), nests), st.integers(0, 2**32 - 1)
)
@hypothesis.settings(deadline=None, max_examples=60)
def test_any_nest_survives_the_round_trip(observations, actions, extras, seed):
  layout = layout_of(observations, actions, extras)
  random = np.random.default_rng(seed)

  def noise(leaf):
    return random.integers(0, 2, (5, *leaf.shape)).astype(leaf.dtype)

  scalar = specs.Array((), np.float32)
  sent = tree.map_structure(
    noise,
    types.Transition(
      observations, actions, scalar, scalar, observations, extras
    ),
  )
  rows = np.empty(5, layout.dtype)
  tree.map_structure(np.copyto, layout.views(rows), sent)
  rows[rows_lib.PARAMS_VERSION] = np.arange(5) + 2**40
  data = rows.view(np.uint8).copy()
  assert (data.shape, data.dtype) == ((5 * layout.itemsize,), np.uint8)
  got = layout.from_bytes(data)
  np.testing.assert_array_equal(
    got[rows_lib.PARAMS_VERSION], np.arange(5) + 2**40
  )
  received = layout.views(got)
  tree.assert_same_structure(sent, received)
  for before, after in zip(
    tree.flatten(sent), tree.flatten(received), strict=True
  ):
    assert before.dtype == after.dtype
    np.testing.assert_array_equal(before, after)


def test_a_key_with_a_slash_is_no_path():
  layout = layout_of(
    {
      'a/b': specs.Array((), np.int32),
      'a': {'b': specs.Array((), np.int8), '/': specs.Array((), np.float32)},
      'a~1b': specs.Array((2,), np.bool_),
    }
  )
  views = layout.views(np.zeros(1, layout.dtype)).observation
  assert views['a/b'].dtype == np.int32
  assert views['a']['b'].dtype == np.int8
  assert views['a~1b'].shape == (1, 2)


def test_views_and_bytes_are_not_copies():
  rows = np.zeros((2, 3), IMAGES.dtype)
  views, data = IMAGES.views(rows), rows.view(np.uint8)
  assert data.shape == (2, 3 * IMAGES.itemsize)
  assert views.observation.shape == (2, 3, 84, 84, 4)
  views.observation[1, 2, 83, 83, 3] = 7
  views.reward[0, 1] = 2.5
  assert (data == 7).sum() == 1
  again = IMAGES.views(IMAGES.from_bytes(data))
  assert again.reward[0, 1] == 2.5
  assert np.shares_memory(again.observation, rows)


def test_an_image_costs_a_byte_a_pixel():
  pixels = 2 * 84 * 84 * 4
  assert pixels <= IMAGES.itemsize <= pixels + 32


@pytest.mark.parametrize('wrong', [-1, 1])
def test_bytes_of_another_layout_are_refused(wrong):
  size = IMAGES.itemsize
  message = (
    f'replay holds items of {size + wrong} bytes, this agent and environment '
    f'need a multiple of {size}.*do not agree'
  )
  with pytest.raises(ValueError, match=message):
    IMAGES.from_bytes(np.zeros((2, size + wrong), np.uint8))


def test_specs_of_a_batched_nest_lack_the_batch():
  nest = {'a': np.zeros((7, 2), np.int8), 'b': (np.zeros(7, np.float32),)}
  assert rows_lib.spec_like(nest) == {
    'a': specs.Array((2,), np.int8),
    'b': (specs.Array((), np.float32),),
  }
  assert rows_lib.spec_like(()) == ()

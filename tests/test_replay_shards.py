"""Replay divided among several servers, as data."""

import pytest

from distacme import replay_spec

WINDOW = replay_spec.NStep(1, 0.9)


def single(**kwargs):
  return replay_spec.single(
    WINDOW,
    **{
      'batch_size': 32,
      'max_size': 1000,
      'min_size': 100,
      'samples_per_insert': 8.0,
      **kwargs,
    },
  )


def parts(spec, count):
  replay_spec.check_shards(spec, count)
  return [replay_spec.of_shard(spec, i, count) for i in range(count)]


def test_one_shard_is_the_whole():
  spec = single()
  assert parts(spec, 1) == [spec]
  assert replay_spec.first_room(spec, 1) is None


@pytest.mark.parametrize('count', [2, 3, 7])
@pytest.mark.parametrize('block_size', [1, 8])
def test_the_shards_together_hold_what_the_whole_does(count, block_size):
  spec = single(block_size=block_size)
  sizes = [part.tables[0].max_size for part in parts(spec, count)]
  assert sum(sizes) == 1000 // block_size * block_size
  assert max(sizes) - min(sizes) <= block_size
  for part in parts(spec, count):
    # The learner's end keeps the ratio.
    assert part.tables[0].samples_per_insert is None
    assert part.batch_size == spec.batch_size


def test_what_comes_before_the_learner_is_the_least_that_it_waits_for():
  spec = single()
  rooms = 3 * replay_spec.first_room(spec, 3)
  assert spec.rate_limits[0].most_unsampled <= rooms
  assert rooms < spec.rate_limits[0].most_unsampled + 3
  assert replay_spec.first_room(single(samples_per_insert=None), 3) is None


@pytest.mark.parametrize(
  ('batch_size', 'max_size', 'count', 'part', 'sizes'),
  [
    (16, 16, 2, 8, [8, 8]),
    (32, 64, 4, 8, [16] * 4),
    (16, 16, 3, 4, [6, 5, 5]),  # 5 do not divide a batch
    (7, 9, 2, 1, [5, 4]),
  ],
)
def test_a_queue_hands_out_parts_for_which_each_shard_has_room(
  batch_size, max_size, count, part, sizes
):
  spec = replay_spec.queue(WINDOW, batch_size, max_size)
  made = parts(spec, count)
  assert [each.tables[0].max_size for each in made] == sizes
  assert {each.batch_size for each in made} == {part}
  assert replay_spec.first_room(spec, count) is None


def test_more_servers_than_items_are_refused():
  with pytest.raises(ValueError, match='=3 are more than the 2 items .* of 8'):
    replay_spec.check_shards(single(max_size=16, min_size=16, block_size=8), 3)


def test_several_tables_are_refused():
  (table,) = single().tables
  spec = replay_spec.ReplaySpec(
    (table, table.of_demonstrations(100)), 32, (0.5, 0.5)
  )
  message = 'divides one table, and this agent has experience, demonstrations'
  with pytest.raises(ValueError, match=message):
    replay_spec.check_shards(spec, 2)

"""Several replay workers, sampled as if they were one."""

import dataclasses
import threading
import time

import numpy as np
import pytest

from distacme import replay_spec
from distacme.replay import balance
from tests.replay import shards as shards_lib

DEVIATIONS = 6


def prioritized(**kwargs):
  return replay_spec.single(
    replay_spec.NStep(1, 0.9),
    **{
      'batch_size': 32,
      'max_size': 1000,
      'min_size': 4,
      'samples_per_insert': None,
      'priority_exponent': 0.5,
      **kwargs,
    },
  )


def uniform(**kwargs):
  return prioritized(priority_exponent=0.0, **kwargs)


def queue(batch_size=4, max_size=8):
  return replay_spec.queue(replay_spec.NStep(1, 0.9), batch_size, max_size)


@pytest.fixture(name='make')
def fixture_make(layout):
  """Returns a function that makes shards, which are closed at the end."""
  made = []

  def make(spec, count=2, **kwargs):
    made.append(shards_lib.Shards(spec, count, layout, **kwargs))
    return made[-1]

  yield make
  for each in made:
    each.close()


@pytest.fixture(name='rows')
def fixture_rows(layout):
  return lambda numbers, block=1: shards_lib.rows_of(layout, numbers, block)


def drawn(sampler, batches):
  """Returns the numbers of the items of many batches, and their chances."""
  infos = [sampler.sample()[1] for _ in range(batches)]
  return (
    np.concatenate([info.params_version for info in infos]),
    np.concatenate([info.probability for info in infos]),
  )


def largest_deviation(numbers, chances):
  """Returns how many standard deviations a count is off, at most."""
  counts = np.bincount(numbers, minlength=len(chances))
  spread = np.sqrt(len(numbers) * chances * (1 - chances))
  return (np.abs(counts - len(numbers) * chances) / spread).max()


def filled(make, rows, spec, sizes, priorities=None):
  """Returns shards that hold 0, 1, 2, ... in order, so many each."""
  made = make(spec, len(sizes))
  ends = np.cumsum(sizes)
  for server, end, size in zip(made.servers, ends, sizes, strict=True):
    part = np.arange(end - size, end)
    assert server.insert(
      rows(part), None if priorities is None else priorities[part]
    )
  return made


def chances_of(spec, priorities):
  weights = priorities ** spec.tables[0].priority_exponent
  return weights / weights.sum()


@pytest.mark.parametrize('by_grpc', [False, True])
@pytest.mark.parametrize('sizes', [(40, 10), (5, 60, 20)])
@pytest.mark.parametrize('make_spec', [prioritized, uniform])
def test_all_shards_are_drawn_from_as_one_table(
  make, rows, make_spec, sizes, by_grpc
):
  spec = make_spec()
  # The last shard, however small, has more of the priorities than of the items.
  priorities = np.random.default_rng(1).uniform(0.1, 1.0, sum(sizes))
  priorities[-sizes[-1] :] *= 30
  made = filled(make, rows, spec, sizes, priorities)
  sampler = made.connect(by_grpc)
  settle(sampler, len(sizes))
  numbers, probability = drawn(sampler, 1500)
  chances = chances_of(spec, priorities)
  np.testing.assert_allclose(probability, chances[numbers], rtol=1e-9)
  assert largest_deviation(numbers, chances) < DEVIATIONS
  # Had each shard given as many elements, the same look would show it.
  alike = np.repeat(1 / len(sizes) / np.array(sizes), sizes)
  assert largest_deviation(numbers, alike) > DEVIATIONS


def settle(sampler, shards):
  """Draws until every shard is drawn from."""
  seen = set()
  deadline = time.monotonic() + 20
  while len(seen) < shards:
    assert time.monotonic() < deadline, f'only {seen} were drawn from'
    seen |= set((sampler.sample()[1].key >> np.uint64(48)).tolist())


def test_shards_chosen_alike_would_be_found_out(make, rows, monkeypatch):
  spec, priorities = uniform(), np.ones(50)
  sampler = filled(make, rows, spec, (40, 10)).connect()
  settle(sampler, 2)
  monkeypatch.setattr(balance.Balance, 'shares', lambda self: np.full(2, 0.5))
  numbers, probability = drawn(sampler, 1500)
  chances = chances_of(spec, priorities)
  assert largest_deviation(numbers, chances) > DEVIATIONS
  # What is reported is the chance that was taken, nevertheless.
  of_item = np.repeat([0.5 / 40, 0.5 / 10], (40, 10))
  np.testing.assert_allclose(probability, of_item[numbers])


def test_blocks_are_drawn_whole(make, rows):
  made = make(uniform(block_size=4))
  for number, server in enumerate(made.servers):
    server.insert(rows(np.arange(20) + 20 * number, 4))
  numbers, probability = drawn(made.connect(), 20)
  assert (numbers.reshape(-1, 4)[:, 0] % 4 == 0).all()
  assert (np.diff(numbers.reshape(-1, 4)) == 1).all()
  assert set(np.round(probability, 9)) <= {0.1, 0.2}  # of 10 blocks, or of 5


def test_priorities_go_to_the_shard_of_the_item(make, rows, wait_until):
  spec = prioritized(priority_exponent=1.0)
  made = filled(make, rows, spec, (6, 3), np.ones(9))
  sampler = made.connect()
  settle(sampler, 2)
  wanted = np.array([0, 0, 0, 0, 5, 0, 0, 1, 0], float)
  for _ in range(50):  # until all have been drawn
    _, info = sampler.sample()
    sampler.update_priorities(info, wanted[info.params_version])
  first, second = (server.store for server in made.servers)
  wait_until(
    lambda: (first.holdings().priority, second.holdings().priority) == (5, 1)
  )
  # What was drawn before is used up, and then all is as in one table.
  for _ in range(200):
    _, info = sampler.sample()
    if set(info.params_version) == {4, 7} and set(
      np.round(info.probability, 9)
    ) == {round(5 / 6, 9), round(1 / 6, 9)}:
      break
  numbers, probability = drawn(sampler, 300)
  np.testing.assert_allclose(probability, wanted[numbers] / 6)
  assert largest_deviation(
    numbers[numbers > 0] == 4, np.array([1 / 6, 5 / 6])
  ) < (DEVIATIONS)


def test_frames_of_items_come_with_them():
  from distacme.replay import pool
  from distacme.replay import tables

  shared = np.arange(12, dtype=np.uint8).reshape(6, 2)
  part = tables.DrawnItems(
    np.arange(3, dtype=np.uint8)[:, None],
    np.arange(3, dtype=np.uint64),
    np.ones(3),
    np.zeros(3, np.int32),
    [tuple(shared[:2]), (), tuple(shared[2:])],
  )
  pool_ = pool.Pool()
  pool_.put(pool.owned(part))
  pool_.put(pool.owned(part))
  expected = [shared[:2].copy(), shared[:0], shared[2:].copy()] * 2
  shared[:] = 0  # as when the slot is written to again
  assert len(pool_) == 6
  joined = pool.joined(pool_.take(1) + pool_.take(4))
  assert joined.keys.tolist() == [0, 1, 2, 0, 1]
  for got, wanted in zip(joined.frames, expected, strict=False):
    np.testing.assert_array_equal(np.array(got).reshape(-1, 2), wanted)
  assert len(pool_) == 1


def test_what_is_used_once_comes_once_and_from_all(make, rows):
  made = make(queue(batch_size=4, max_size=8))
  sampler = made.connect()
  writers = [
    threading.Thread(
      target=server.insert,
      args=(rows(np.arange(number, 80, 2)),),
      kwargs={'stopped': lambda: False},
    )
    for number, server in enumerate(made.servers)
  ]
  for writer in writers:
    writer.start()
  numbers, probability = drawn(sampler, 20)
  for writer in writers:
    writer.join(10)
  assert sorted(numbers) == list(range(80))
  for parity in (0, 1):  # each in its order
    assert (np.diff(numbers[numbers % 2 == parity]) > 0).all()
  assert (probability == 1).all()


def test_a_queue_without_actors_holds_up_no_other(make, rows, wait_until):
  made = make(queue(batch_size=4, max_size=8))
  sampler = made.connect()
  first, second = made.servers
  second.insert(rows([100]))  # its actor died after half of what it hands out
  writer = threading.Thread(
    target=first.insert, args=(rows(np.arange(40)), None, lambda: False)
  )
  writer.start()
  numbers, _ = drawn(sampler, 10)
  writer.join(10)
  assert numbers.tolist() == list(range(40))
  second.insert(rows([101]))
  first.insert(rows([40, 41]))
  assert sorted(drawn(sampler, 1)[0]) == [40, 41, 100, 101]


RATIO = dict(samples_per_insert=4.0, min_size=100, error_buffer=80.0)


def test_no_batch_comes_before_all_together_hold_enough(make, rows):
  made = make(prioritized(**RATIO))
  sampler = made.connect()
  got = []
  thread = threading.Thread(
    target=lambda: got.append(sampler.sample()), daemon=True
  )
  thread.start()
  first, second = made.servers
  assert first.insert(rows(np.arange(49)))
  assert second.insert(rows(np.arange(50)))
  thread.join(0.3)
  assert not got
  first.insert(rows([49]))
  thread.join(10)
  assert got


@pytest.mark.parametrize('acting', [(True, True), (True, False)])
def test_the_ratio_of_the_whole_is_held_whoever_acts(
  make, rows, acting, wait_until
):
  """One shard's only actor may be gone, with or without items left of it."""
  spec = prioritized(max_size=4000, **RATIO)
  made = make(spec)
  sampler = made.connect()
  first, second = made.servers
  assert first.insert(rows(np.arange(50)), np.full(50, 3.0))
  assert second.insert(rows(np.arange(50)), np.full(50, 1.0))
  over = threading.Event()

  def act(server):
    while not over.is_set():
      server.insert(rows(np.arange(5)), np.ones(5), over.is_set)

  actors = [
    threading.Thread(target=act, args=(server,))
    for server, acts in zip(made.servers, acting, strict=True)
    if acts
  ]
  for actor in actors:
    actor.start()
  batches = 400
  try:
    for _ in range(batches):
      sampler.sample()
    # Now the learner pauses, and actors are held up.
    limits = spec.rate_limits[0]
    most = limits.room(0, batches * 32)
    wait_until(lambda: inserted(made) >= most)
    threading.Event().wait(0.2)
  finally:
    over.set()
    for actor in actors:
      actor.join(10)
  least = (batches * 32 + limits.min_balance) / 4
  assert least <= inserted(made)
  # What came in while the word of the other's was on its way: without limits the
  # actors would insert as much again in the meantime.
  assert inserted(made) <= most * 1.05
  if not all(acting):
    assert second.store.holdings().inserted == 50


def inserted(made):
  return sum(server.store.holdings().inserted for server in made.servers)


def test_shards_with_limits_of_their_own_would_stop_for_ever(rows, make):
  """What the ratio of the whole is for: a shard of the whole's limits waits."""
  spec = prioritized(**RATIO)
  (table,) = spec.tables
  alone = dataclasses.replace(spec, tables=(dataclasses.replace(table),))
  made = make(alone, 1)
  (server,) = made.servers
  server.insert(rows(np.arange(100)))
  drawn_ = 0
  while server.store.draw(timeout_s=0.05) is not None:
    drawn_ += 1
  assert drawn_ == 2  # no more before an actor, which is dead, inserts


@pytest.mark.parametrize('by_grpc', [False, True])
def test_a_shard_that_dies_is_done_without_and_comes_back(
  make, rows, tmp_path, by_grpc, wait_until
):
  spec = uniform()
  made = make(spec, checkpoints=tmp_path)
  first, second = made.servers
  first.insert(rows(np.arange(30)))
  second.insert(rows(np.arange(30, 40)))
  second.store.save()
  second.insert(rows(np.arange(40, 60)))
  sampler = made.connect(by_grpc)
  settle(sampler, 2)
  second.die()
  wait_until(lambda: not sampler._balance.is_there(1))
  numbers, probability = drawn(sampler, 20)
  assert (numbers < 30).all()
  np.testing.assert_allclose(probability, 1 / 30)
  _, info = sampler.sample()
  sampler.update_priorities(info, np.ones(32))  # those of the living arrive
  before = sampler._balance.inserted
  second.start()
  settle(sampler, 2)
  numbers, _ = drawn(sampler, 50)
  assert set(numbers) <= set(range(40)) and numbers.max() >= 30
  # What it lost was inserted nevertheless.
  assert sampler._balance.inserted == before == 60


def test_a_batch_that_waits_for_a_shard_that_dies_is_drawn_anew(make, rows):
  made = filled(make, rows, uniform(), (20, 20))
  sampler = made.connect()
  settle(sampler, 2)
  second = made.servers[1]
  got = []
  thread = threading.Thread(target=lambda: got.extend(drawn(sampler, 300)[0]))
  thread.start()
  second.die()
  thread.join(20)
  assert len(got) == 300 * 32


def test_a_refusal_reaches_the_learner(make, rows, layout):
  made = filled(make, rows, uniform(), (20, 20))
  made.servers[1].spec = dataclasses.replace(uniform(), batch_size=16)
  sampler = made.connect()
  with pytest.raises(ValueError, match='actors and learner do not agree'):
    for _ in range(100):
      sampler.sample()


def test_a_sampler_that_waits_ends_when_it_is_closed(make):
  sampler = make(uniform()).connect()
  ended = []

  def sample():
    with pytest.raises(ConnectionError, match='closed'):
      sampler.sample()
    ended.append(True)

  thread = threading.Thread(target=sample)
  thread.start()
  sampler.close()
  thread.join(10)
  assert ended


def test_it_describes_each_shard(make, rows):
  made = filled(make, rows, uniform(), (20, 20))
  sampler = made.connect()
  made.servers[1].die()
  described = sampler.describe()
  assert described.startswith("replay/0: replay holds in table 'experience' 20")
  assert 'replay/1 does not answer (' in described
  assert described.endswith('The learner waits for the actors to insert more.')

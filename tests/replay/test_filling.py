"""Recorded episodes become the windows that acting would have made of them."""

import dataclasses

import numpy as np
import pytest
import tree

from distacme import demonstrations as recorded_lib
from distacme import replay_spec
from distacme import specs
from distacme.replay import filling
from distacme.replay import in_process
from distacme.replay import store
from distacme.replay.items import rows as rows_lib
from tests.replay import playing
from tests.replay.playing import FIRST
from tests.replay.playing import LAST
from tests.replay.playing import MID


def recorded(lengths, truncated=False):
  """Returns a run of one environment, and the same as episodes."""
  moments, episodes = [], []
  for length in lengths:
    played = []
    for step in range(length + 1):
      time = len(moments) + len(played)
      kind = FIRST if step == 0 else LAST if step == length else MID
      discount = float(truncated) if kind == LAST else 1.0
      reward = 0.0 if kind == FIRST else 1.0 + time
      played.append(playing.Moment(0, time, kind, reward, discount))
    moments += played
    episodes.append(episode(played))
  return playing.Run([moments]), episodes


def episode(moments):
  def stacked(nests):
    return tree.map_structure(lambda *leaves: np.stack(leaves), *nests)

  return recorded_lib.Episode(
    stacked([m.observation for m in moments]),
    stacked([m.action for m in moments[:-1]]),
    np.array([m.reward for m in moments[1:]], np.float32),
    np.array([m.discount for m in moments[1:]], np.float32),
  )


def spec_of(window, **changes):
  table = {
    'name': 'expert',
    'window': window,
    'max_size': 100,
    'min_size': 1,
    'samples_per_insert': None,
    'evicts': False,
    'filled_by': 'demonstrations',
  }
  tables = (replay_spec.Table(**table | changes),)
  return replay_spec.ReplaySpec(tables, batch_size=4)


def write(episodes, spec, collector):
  return filling.write(
    iter(episodes), spec, collector.layout, spec.tables, lambda table: collector
  )


def layout_of(window):
  return rows_lib.make_layout(
    window,
    playing.SPEC,
    extras={'note': specs.Array((), np.int64)},
    start_state=(specs.Array((2,), np.float32), specs.Array((), np.int32)),
  )


@pytest.mark.parametrize(
  'window',
  [
    replay_spec.NStep(1, 0.9),
    replay_spec.NStep(3, 0.9),
    replay_spec.NStep((1, 3), 0.9),
    replay_spec.Sequences(4, 2),
    replay_spec.Sequences(4, 3, across_episodes=True),
  ],
)
@pytest.mark.parametrize('truncated', [False, True])
def test_they_become_the_windows_of_the_same_steps_acted(window, truncated):
  run, episodes = recorded([3, 1, 7], truncated)
  acted = playing.play(run, window)
  collector = playing.Collector(layout_of(window))
  written = write(episodes, spec_of(window), collector)
  assert written == {'expert': (11, 3)}
  assert collector.closed
  got, want = collector.data, acted.data
  assert len(got.reward) == len(want.reward) > 0
  nothing = {'extras': (), 'action': ()}
  if isinstance(window, replay_spec.Sequences):
    nothing['start_state'] = ()
    stepped = want.step_type != LAST
    stepped[:, -1] = False  # the last row only bootstraps
  else:
    stepped = np.ones(len(got.reward), bool)
  tree.map_structure(
    np.testing.assert_array_equal,
    got._replace(**nothing),
    want._replace(**nothing),
  )
  tree.map_structure(
    lambda a, b: np.testing.assert_array_equal(a[stepped], b[stepped]),
    got.action,
    want.action,
  )


def test_what_act_would_have_stored_is_0_and_their_priority_is_1():
  window = replay_spec.Sequences(4, 2)
  _, episodes = recorded([3, 7])
  collector = playing.Collector(layout_of(window))
  spec = spec_of(window, priority_exponent=0.4)
  write(episodes, spec, collector)
  for leaf in tree.flatten((collector.data.extras, collector.data.start_state)):
    assert not leaf.any()
  assert not collector.rows[rows_lib.PARAMS_VERSION].any()
  assert set(collector.priorities) == {1.0}


def filled(episodes, spec, layout):
  replay = in_process.InProcessReplay(spec, layout, seed=0)
  filling.fill(episodes, spec, layout, replay)
  return replay


def test_a_table_in_memory_is_filled_before_anything_acts():
  window = replay_spec.NStep(1, 0.9)
  _, episodes = recorded([3, 4])
  spec = spec_of(window, min_size=7)
  assert not spec.needs_actors
  replay = filled(episodes, spec, layout_of(window))
  assert replay.metrics()['size'] == 7
  seen = set()
  for _ in range(20):
    data, _ = replay.sample()
    time = data.next_observation['time']
    # The step that ends an episode does not bootstrap.
    want = np.where(np.isin(time, [3, 8]), 0.0, 0.9)
    np.testing.assert_allclose(data.discount, want)
    seen |= set(time.tolist())
  assert seen == {1, 2, 3, 5, 6, 7, 8}


def test_tables_take_the_episodes_of_their_parts():
  window = replay_spec.NStep(1, 0.9)
  _, episodes = recorded([1 + number % 3 for number in range(40)])
  (fitted,) = spec_of(window, part=(0.1, 1.0)).tables
  (other,) = spec_of(window, name='other', part=(0.0, 0.1)).tables
  spec = replay_spec.ReplaySpec((fitted, other), 4, (0.5, 0.5))
  collectors = {
    table.name: playing.Collector(layout_of(window)) for table in spec.tables
  }
  written = filling.write(
    episodes,
    spec,
    layout_of(window),
    spec.tables,
    lambda table: collectors[table.name],
  )
  assert written['expert'].episodes == 36
  assert written['other'].episodes == 4
  seen = [
    set(each.data.observation['time'].tolist()) for each in collectors.values()
  ]
  assert not seen[0] & seen[1]
  assert [len(each) for each in seen] == [w.steps for w in written.values()]
  kept = [number for number in range(40) if other.takes(number)]
  assert len(kept) == 4
  assert kept[0] == 1  # of two episodes there is one for each
  assert all(fitted.takes(n) != other.takes(n) for n in range(1000))


def test_they_are_what_a_replay_begins_with_in_every_mode(tmp_path):
  window = replay_spec.NStep(1, 0.9)
  _, episodes = recorded([3, 4])
  spec, layout = spec_of(window), layout_of(window)
  path = tmp_path / 'demonstrations'
  assert filling.load(path) is None
  filling.save(filling.held(episodes, spec, layout, 0), path)
  assert [each.name for each in tmp_path.iterdir()] == ['demonstrations']
  in_memory = in_process.InProcessReplay(spec, layout, seed=0)
  in_memory.load(filling.load(path))
  served = store.Store(spec, tmp_path / 'replay', path)
  for replay in (in_memory, served):
    assert replay.metrics()['size'] == 7
  # What replay has saved since is newer.
  served.draw()
  served.save()
  again = store.Store(spec, tmp_path / 'replay', path)
  assert again.metrics()['sampled'] == 4


def test_a_pretraining_is_not_begun_again_where_replay_alone_was_lost(tmp_path):
  window = replay_spec.NStep(1, 0.9)
  _, episodes = recorded([3, 4])
  spec = dataclasses.replace(spec_of(window), pretraining_batches=10)
  path = tmp_path / 'demonstrations'
  filling.save(filling.held(episodes, spec, layout_of(window), 0), path)
  assert filling.load(path).batches == 0
  assert filling.load(path, learnt=7).batches == 7


def test_a_part_without_an_episode_is_named():
  window = replay_spec.NStep(1, 0.9)
  _, episodes = recorded([3])
  with pytest.raises(
    ValueError, match=r"of 1? ?.* none is left for table 'expert'.*0\.1 of.*bc:"
  ):
    filled(episodes, spec_of(window, part=(0.0, 0.1)), layout_of(window))


def test_steps_that_fill_no_block_are_named(caplog):
  window = replay_spec.NStep(1, 0.9)
  spec = replay_spec.single(
    window,
    batch_size=4,
    max_size=40,
    min_size=4,
    samples_per_insert=4.0,
    block_size=4,
  )
  layout = rows_lib.make_layout(
    window, playing.SPEC, extras=(), start_state=(), share_frames=False
  )
  replay = filled(recorded([3, 4])[1], spec, layout)
  assert 'The last 3 of 7 steps' in caplog.text
  assert replay.metrics()['size'] == 4
  with pytest.raises(ValueError, match='3 steps, which make 0 windows'):
    filled(recorded([3])[1], spec, layout)


def test_a_table_that_keeps_all_grows_with_what_it_keeps():
  window = replay_spec.NStep(1, 0.9)
  _, episodes = recorded([30, 40, 50])
  spec = spec_of(window, max_size=10**7)
  replay = filled(episodes, spec, layout_of(window))
  assert replay.metrics()['size'] == 120
  assert len(replay._memory._tables[0]._items) < 400
  again = in_process.InProcessReplay(spec, layout_of(window), seed=0)
  again.load(replay.held())
  for _ in range(5):
    np.testing.assert_array_equal(
      replay.sample()[0].reward, again.sample()[0].reward
    )


def test_damaged_ones_are_a_sentence(tmp_path):
  window = replay_spec.NStep(1, 0.9)
  _, episodes = recorded([3])
  path = tmp_path / 'demonstrations'
  held = filling.held(episodes, spec_of(window), layout_of(window), 0)
  filling.save(held, path)
  (file,) = path.iterdir()
  file.write_bytes(file.read_bytes()[:200])
  with pytest.raises(ValueError, match='is damaged .* remove it and start'):
    filling.load(path)


def test_an_agent_without_a_table_for_them_has_them_among_its_own():
  window = replay_spec.NStep(1, 0.9)
  _, episodes = recorded([3, 4])
  spec = replay_spec.single(
    window, batch_size=4, max_size=9, min_size=9, samples_per_insert=4.0
  )
  layout = rows_lib.make_layout(window, playing.SPEC, extras=(), start_state=())
  replay = filled(episodes, spec, layout)
  assert replay.metrics()['size'] == 7
  assert not replay.can_sample()  # actors are to bring two more
  # Of more than min_size, learning begins at once, but does not make up for them.
  spec = dataclasses.replace(
    spec, tables=(dataclasses.replace(spec.tables[0], min_size=2),)
  )
  replay, few = (
    filled(some, spec, layout) for some in (episodes, recorded([2])[1])
  )
  for each in (replay, few):
    while each.can_sample():
      each.sample()
  beyond = (7 - 2) * 4  # samples
  assert replay.metrics()['sampled'] == few.metrics()['sampled'] + beyond
  with pytest.raises(ValueError, match=r'make 14 windows.* max_size=9: the'):
    filled(episodes * 2, spec, layout)


@pytest.mark.parametrize(
  ('spec', 'window'),
  [
    (
      replay_spec.queue(replay_spec.NStep(1, 0.9), 4, 9),
      replay_spec.NStep(1, 0.9),
    ),
    (
      replay_spec.single(
        replay_spec.Sequences(4, 2),
        batch_size=4,
        max_size=9,
        min_size=1,
        samples_per_insert=4.0,
      ),
      replay_spec.Sequences(4, 2),
    ),
  ],
)
def test_an_agent_that_learns_from_its_own_policy_has_none(spec, window):
  with pytest.raises(
    ValueError, match='what its own policy computed.* Leave them out'
  ):
    filling.tables_to_fill(spec, layout_of(window))


def test_more_than_a_table_keeps_are_refused():
  window = replay_spec.NStep(1, 0.9)
  _, episodes = recorded([3, 4])
  with pytest.raises(ValueError, match="'expert' keeps .* max_size=6. Raise"):
    filled(episodes, spec_of(window, max_size=6), layout_of(window))


def test_fewer_than_a_table_needs_to_be_sampled_are_refused():
  window = replay_spec.NStep(1, 0.9)
  _, episodes = recorded([3, 4])
  with pytest.raises(
    ValueError, match=r"7 steps.* 'expert'.* min_size=8\. Give"
  ):
    filled(episodes, spec_of(window, min_size=8), layout_of(window))


@pytest.mark.parametrize(
  'window', [replay_spec.NStep((1, 3), 0.9), replay_spec.Sequences(4, 2)]
)
def test_stacks_share_their_frames(window):
  """The frames of recorded stacks are stored once, and come back as they were."""
  shape, steps = (2, 3), 6
  frames = np.random.default_rng(0).integers(1, 255, (steps + 1, 2), np.uint8)
  padded = np.concatenate([np.zeros((2, 2), np.uint8), frames])
  stacks = np.stack([padded[t : t + steps + 1] for t in range(3)], axis=-1)
  spec = playing.SPEC._replace(
    observations={'screen': specs.FrameStack(shape, np.uint8, 0, 255)}
  )
  _, (played,) = recorded([steps])
  layout = rows_lib.make_layout(window, spec, extras=(), start_state=())
  assert layout.frames is not None
  replay = filled(
    [played._replace(observations={'screen': stacks})],
    spec_of(window),
    layout,
  )
  held = replay.held().tables['expert']
  once = {frame.tobytes() for item in held.frames for frame in item}
  assert {frame.tobytes() for frame in frames} <= once
  assert len(once) <= steps + 2  # and zeros, if at all

"""Recorded episodes become the windows that acting would have made of them."""

import dm_env
import numpy as np
import pytest
import tree

from distacme import replay_spec
from distacme import specs
from distacme.replay import demonstrations
from distacme.replay import in_process
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
  return demonstrations.Episode(
    # As dm_env has it, of one environment: no reward before the first step.
    [
      dm_env.restart(m.observation)
      if m.kind == FIRST
      else dm_env.TimeStep(m.kind, m.reward, m.discount, m.observation)
      for m in moments
    ],
    [m.action for m in moments[:-1]],
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
  steps = demonstrations.write(
    iter(episodes), spec_of(window), collector.layout, collector
  )
  assert steps == 11
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
  demonstrations.write(episodes, spec, collector.layout, collector)
  for leaf in tree.flatten((collector.data.extras, collector.data.start_state)):
    assert not leaf.any()
  assert not collector.rows[rows_lib.PARAMS_VERSION].any()
  assert set(collector.priorities) == {1.0}


def test_a_table_in_memory_is_filled_before_anything_acts():
  window = replay_spec.NStep(1, 0.9)
  _, episodes = recorded([3, 4])
  spec, layout = spec_of(window, min_size=7), layout_of(window)
  assert not spec.needs_actors
  replay = in_process.InProcessReplay(spec, layout, seed=0)
  assert not replay.can_sample()
  assert replay.write_demonstrations(episodes) == 7
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


def test_more_than_a_table_keeps_are_refused():
  window = replay_spec.NStep(1, 0.9)
  _, episodes = recorded([3, 4])
  spec, layout = spec_of(window, max_size=6), layout_of(window)
  replay = in_process.InProcessReplay(spec, layout, seed=0)
  with pytest.raises(ValueError, match="'expert' keeps .* max_size=6. Raise"):
    replay.write_demonstrations(episodes)


def broken(what):
  _, episodes = recorded([2, 3])
  timesteps, actions = episodes[1]
  return {
    'no end': (timesteps[:-1], actions[:-1]),
    'no start': (timesteps[1:], actions[1:]),
    'no action': (timesteps, actions[1:]),
    'no step': (timesteps[:1], []),
    'two': (timesteps + timesteps[1:], actions * 2),
  }[what]


@pytest.mark.parametrize(
  ('what', 'message'),
  [
    ('no end', r'episode 1 has the step types \[0, 1, 1\]. It must start with'),
    ('no start', r'step types \[1, 1, 2\].*leave out an episode that was not'),
    ('no action', 'episode 1 has 4 timesteps and 2 actions. Give one timestep'),
    ('no step', r'step types \[0\]'),
    ('two', r'step types \[0, 1, 1, 2, 1, 1, 2\]'),
  ],
)
def test_an_episode_that_is_not_whole_is_named(what, message):
  window = replay_spec.NStep(1, 0.9)
  _, (whole, _) = recorded([2, 3])
  collector = playing.Collector(layout_of(window))
  with pytest.raises(ValueError, match=message):
    demonstrations.write(
      [whole, demonstrations.Episode(*broken(what))],
      spec_of(window),
      collector.layout,
      collector,
    )


def changed(**leaves):
  """Returns an episode whose first step has other leaves."""
  _, (episode,) = recorded([3])
  first = episode.timesteps[0]
  observation = {**first.observation, **leaves.get('observation', {})}
  timesteps = [first._replace(observation=observation), *episode.timesteps[1:]]
  action = {**episode.actions[0], **leaves.get('action', {})}
  return demonstrations.Episode(timesteps, [action, *episode.actions[1:]])


@pytest.mark.parametrize(
  ('leaves', 'message'),
  [
    (
      {'observation': {'time': np.zeros(3, np.int32)}},
      r'observation of episode 1 at time is int32\[3\] and .* int32\[\]\. Record',
    ),
    (
      {'observation': {'time': np.float32(0.5)}},
      r"at time is float32\[\] and the environment's is int32\[\]",
    ),
    ({'observation': {'more': 1}}, 'observation of episode 1 is another nest'),
    (
      {'action': {'push': np.zeros(1)}},
      r'action of episode 1 at push is float64\[1\] and .* float64\[2\]',
    ),
    ({'action': {'turn': 0.0}}, r'at turn is float64\[\] and .* int32\[\]'),
  ],
)
@pytest.mark.parametrize(
  'window', [replay_spec.NStep((1, 3), 0.9), replay_spec.Sequences(4, 2)]
)
def test_an_episode_of_another_environment_is_named(window, leaves, message):
  _, (whole,) = recorded([3])
  collector = playing.Collector(layout_of(window))
  with pytest.raises(ValueError, match=message):
    demonstrations.write(
      [whole, changed(**leaves)], spec_of(window), collector.layout, collector
    )


def test_an_action_may_be_a_python_number():
  window = replay_spec.NStep(1, 0.9)
  collector = playing.Collector(layout_of(window))
  demonstrations.write(
    [changed(action={'turn': 3})], spec_of(window), collector.layout, collector
  )
  assert collector.data.action['turn'][0] == 3


def test_fewer_than_a_table_needs_to_be_sampled_are_refused():
  window = replay_spec.NStep(1, 0.9)
  _, episodes = recorded([3, 4])
  spec, layout = spec_of(window, min_size=8), layout_of(window)
  replay = in_process.InProcessReplay(spec, layout, seed=0)
  with pytest.raises(
    ValueError, match=r"7 steps.* 'expert'.* min_size=8\. Give"
  ):
    replay.write_demonstrations(episodes)


@pytest.mark.parametrize(
  'window', [replay_spec.NStep((1, 3), 0.9), replay_spec.Sequences(4, 2)]
)
def test_stacks_whose_frames_rows_share_are_checked_whole(window):
  stack = specs.FrameStack((2, 3), np.uint8, 0, 255)
  spec = playing.SPEC._replace(observations={'screen': stack})
  layout = rows_lib.make_layout(window, spec)
  assert layout.frames is not None
  observation, action = demonstrations._of_one_step(layout)
  assert observation['screen'].shape == (2, 3)
  assert action['push'].shape == (2,)

"""The actor against environments whose every step is known."""

import dm_env
import jax
import numpy as np
import pytest

from distacme import status
from distacme.acting import actor
from distacme.acting import params
from distacme.acting import policy
from distacme.environments import vector
from distacme.run import run_state
from distacme.testing import environments
from distacme.testing import telling_agent


class ListWriter:
  """Keeps what it is given."""

  blocked_s = 0.0

  def __init__(self):
    self.steps = []
    self.closed = False

  def append(self, timestep, output, next_timestep, params_version):
    assert not self.closed
    self.steps.append((timestep, output, next_timestep, params_version))

  def close(self):
    self.closed = True


class Rig:
  """An actor of two rows: episodes of 3 steps and of 5."""

  def __init__(self, max_env_steps=None):
    self.state = run_state.RunState(status.Limits(max_env_steps))
    self.source = params.LocalParams()
    self.publish(0)
    self.writer = ListWriter()

    def reward(episode, step):
      return 10 * episode + step

    key = jax.random.key_data(jax.random.key(0))
    self.actor = actor.Actor(
      vector.LoopVector(
        [
          environments.Counting((3,), reward=reward),
          environments.Counting((5,), reward=reward),
        ]
      ),
      policy.CompiledPolicy(telling_agent.TellingAgent(), self.source, 2, key),
      lambda: self.writer,
      self.state.reporter('actor/0'),
    )

  def publish(self, version):
    rewards = np.zeros(2, np.float32)
    nest = {'version': np.int32(version), 'rewards': rewards}
    self.source.publish(version, nest)

  def metrics(self):
    self.actor.report()
    return self.state.status().workers['actor/0'].metrics

  def counts(self):
    return self.state.status().counts


@pytest.fixture(autouse=True)
def metrics_in_every_report(monkeypatch):
  monkeypatch.setattr(actor, '_METRICS_PERIOD_S', 1e-9)


# In 12 calls the short row makes 3 episodes and 3 resets, the long one 2 and 2.


def test_steps_are_counted_and_resets_are_not():
  rig = Rig()
  assert sum(rig.actor.step() for _ in range(12)) == 9 + 10
  assert rig.actor.num_episodes == 5
  rig.actor.report()
  assert rig.counts() == {'env_steps': 19, 'episodes': 5}
  rig.actor.report()
  assert rig.counts() == {'env_steps': 19, 'episodes': 5}


def test_returns_and_lengths_are_those_of_finished_episodes():
  rig = Rig()
  for _ in range(12):
    rig.actor.step()
  metrics = rig.metrics()
  short, long = [6, 36, 66], [15, 65]
  assert metrics['episode_return'] == np.mean(short + long)
  assert metrics['episode_length'] == np.mean([3, 3, 3, 5, 5])


def test_returns_are_of_the_episodes_since_the_last_report():
  rig = Rig()
  for _ in range(12):
    rig.actor.step()
  rig.metrics()
  for _ in range(4):  # one more of the short row's, from its first step to last
    rig.actor.step()
  assert rig.metrics()['episode_return'] == 30 * 3 + 6


def test_it_reports_every_16_steps():
  rig = Rig()
  for _ in range(15):
    rig.actor.step()
  assert rig.counts() == {}
  rig.actor.step()
  assert rig.counts()['env_steps'] == 12 + 14


def test_the_writer_gets_every_step_in_order_and_the_params_that_acted():
  rig = Rig()
  for version in range(8):
    rig.publish(version)
    rig.actor.step()
  steps = rig.writer.steps
  assert [version for *_, version in steps] == list(range(8))
  for (_, _, arrived, _), (left, _, _, _) in zip(
    steps[:-1], steps[1:], strict=True
  ):
    assert arrived is left
  kinds = [step[0].step_type.tolist() for step in steps]
  assert [kind[0] for kind in kinds] == [0, 1, 1, 2, 0, 1, 1, 2]
  assert [kind[1] for kind in kinds] == [0, 1, 1, 1, 1, 2, 0, 1]
  np.testing.assert_array_equal(
    [step[0].observation[0] for step in steps],
    [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1], [1, 2], [1, 3]],
  )
  assert [step[1].action.tolist() for step in steps] == [
    [v, v] for v in range(8)
  ]


def test_the_policys_state_starts_anew_with_each_episode():
  rig = Rig()
  for _ in range(8):
    rig.actor.step()
  steps = [
    output.values['steps'].tolist() for _, output, *_ in rig.writer.steps
  ]
  assert [row[0] for row in steps] == [0, 1, 2, 3, 0, 1, 2, 3]
  assert [row[1] for row in steps] == [0, 1, 2, 3, 4, 5, 0, 1]


def test_it_runs_until_the_run_stops_and_leaves_nothing_uncounted():
  rig = Rig(max_env_steps=100)
  rig.actor.run()
  assert rig.actor.directive.stop == status.StopReason.STEP_LIMIT
  assert rig.writer.closed
  made = sum(
    int((step[2].step_type != dm_env.StepType.FIRST).sum())
    for step in rig.writer.steps
  )
  assert rig.counts()['env_steps'] == made
  assert 100 <= made < 100 + 2 * actor._REPORT_EVERY


def test_policy_lag_is_how_many_steps_the_learner_is_ahead():
  rig = Rig()
  rig.publish(5)
  rig.actor.step()
  rig.state.report('learner', {'learner_steps': 12})
  rig.actor.report()  # learns of the counter
  metrics = rig.metrics()
  assert (metrics['params_version'], metrics['policy_lag']) == (5, 7)
  rig.publish(20)  # newer than the counter, which comes late
  rig.actor.step()
  assert rig.metrics()['policy_lag'] == 0


def test_time_blocked_by_replay_is_a_share_of_the_time():
  rig = Rig()
  rig.metrics()
  assert rig.metrics()['share_blocked_by_replay'] == 0.0
  rig.writer.blocked_s += 1e-7
  assert 0.0 < rig.metrics()['share_blocked_by_replay'] < 1.0
  assert rig.metrics()['share_blocked_by_replay'] == 0.0

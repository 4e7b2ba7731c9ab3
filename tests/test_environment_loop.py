"""The two-line loop: it runs, repeats itself exactly, and learns."""

import dataclasses

import dm_env
import jax
import numpy as np
import pytest

import distacme
from distacme import environments
from distacme import replay_spec
from distacme import specs
from distacme import status
from distacme.agents import dqn
from distacme.environments import vector
from distacme.run import run_state as run_state_lib
from distacme.testing import demonstrations as recorded
from distacme.testing import environments as testing_environments
from tests.agents import minimal_agent

SPEC = specs.make_environment_spec(testing_environments.Catch(seed=0))
SMALL = dqn.Config(
  hidden_sizes=(32,), batch_size=16, samples_per_insert=8.0, min_replay_size=50
)


def make_loop(config=SMALL, seed=0, num_envs=None, **kwargs):
  agent = dqn.make_agent(config, SPEC)
  environment = testing_environments.Catch(seed)
  if num_envs:
    environment = vector.LoopVector(
      [testing_environments.Catch(seed + i) for i in range(num_envs)]
    )
  return distacme.EnvironmentLoop(environment, agent, seed=seed, **kwargs)


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_two_lines_train():
  environment = environments.make('distacme.testing.environments:catch', 0)
  agent = dqn.make_agent(SMALL, distacme.make_environment_spec(environment))

  loop = distacme.EnvironmentLoop(environment, agent)
  steps = loop.run(num_episodes=20)

  assert steps == 20 * 9
  assert loop.actor.num_episodes == 20
  assert loop.learner.steps > 0


def test_it_runs_as_many_steps_as_asked_and_goes_on_from_there():
  loop = make_loop()
  assert loop.run(num_steps=30) == 30
  assert loop.run(num_steps=30) == 30
  assert loop.run(num_episodes=1) == 3  # the one under way
  assert loop.actor.num_episodes == 7


@pytest.mark.parametrize('numbers', [{}, {'num_episodes': 3, 'num_steps': 3}])
def test_neither_or_both_numbers_are_refused(numbers):
  episodes, steps = numbers.get('num_episodes'), numbers.get('num_steps')
  with pytest.raises(
    ValueError,
    match=f'exactly one of num_episodes and num_steps, got '
    f'num_episodes={episodes} and num_steps={steps}',
  ):
    make_loop().run(**numbers)


def test_learner_steps_follow_the_replay_ratio():
  loop = make_loop()
  loop.run(num_steps=500)
  # 8 samples for each of 450 inserts after the first 50, 16 in a batch; the
  # buffer lets either side run ahead, and the last windows are not complete.
  assert loop.learner.steps == pytest.approx(450 * 8 / 16, abs=10)


def test_several_updates_in_one_call_keep_the_replay_ratio():
  loop = make_loop(updates_per_call=4)
  (table,) = loop.replay._spec.tables
  (limits,) = loop.replay._spec.rate_limits
  for _ in range(500):
    loop.step()
    inserts = loop.replay.metrics()['inserted']
    balance = table.samples_per_insert * inserts - loop.learner.steps * 16
    if loop.learner.steps:
      assert limits.min_balance <= balance <= limits.max_balance
  assert loop.learner.steps % 4 == 0
  assert loop.learner.steps == pytest.approx((inserts - 50) * 8 / 16, abs=10)


def test_several_updates_in_one_call_are_deterministic_too():
  first, second = (make_loop(updates_per_call=3) for _ in range(2))
  for loop in (first, second):
    loop.run(num_steps=300)
    assert loop.learner.steps > 10
  assert_equal(first.learner.state, second.learner.state)


def test_nothing_is_learnt_before_replay_holds_enough():
  loop = make_loop(dataclasses.replace(SMALL, min_replay_size=200))
  loop.run(num_steps=190)
  assert loop.learner.steps == 0
  loop.run(num_steps=100)
  assert loop.learner.steps > 0


def test_the_run_counts_every_step():
  run_state = run_state_lib.RunState()
  loop = make_loop(run_state=run_state)
  loop.run(num_steps=205)
  counts = run_state.status().counts
  assert counts['env_steps'] == 205
  assert counts['episodes'] == 22
  assert counts['learner_steps'] == loop.learner.steps > 0


def test_it_ends_when_the_run_does():
  run_state = run_state_lib.RunState(status.Limits(max_env_steps=50))
  loop = make_loop(run_state=run_state)
  assert 50 <= loop.run(num_steps=2000) < 50 + 16
  assert loop.run(num_episodes=3) == 0


@pytest.mark.parametrize('updates_per_call', [1, 4])
def test_it_ends_within_a_call_after_the_last_learner_step(updates_per_call):
  limits = status.Limits(max_learner_steps=50)
  run_state = run_state_lib.RunState(limits, counts={'learner_steps': 20})
  # Replay would let it learn 100 times of what one step brought.
  config = dataclasses.replace(SMALL, samples_per_insert=1600.0)
  settings = {'steps': 20, 'updates_per_call': updates_per_call}
  loop = make_loop(config, run_state=run_state, **settings)
  loop.run(num_steps=2000)
  assert 50 <= loop.learner.steps < 50 + updates_per_call
  stopped = run_state.status()
  assert stopped.stop.reason == status.StopReason.STEP_LIMIT
  assert stopped.counts['learner_steps'] == loop.learner.steps
  assert loop.run(num_episodes=3) == 0


def test_a_run_that_is_in_a_hurry_learns_no_more():
  # Replay would let it learn again and again, of what one step brought.
  run_state = run_state_lib.RunState()
  loop = make_loop(
    dataclasses.replace(SMALL, samples_per_insert=1600.0), run_state=run_state
  )
  loop.run(num_steps=60)
  before = loop.learner.steps
  run_state.request_stop(status.StopReason.TERMINATED)
  loop.actor.report()
  for _ in range(5):
    loop.step()
  assert loop.is_hurried
  assert loop.learner.steps == before > 0


@pytest.mark.parametrize('num_envs', [1, 3])
def test_one_seed_gives_bit_identical_parameters(num_envs):
  first, second = (make_loop(num_envs=num_envs) for _ in range(2))
  for loop in (first, second):
    loop.run(num_steps=300)
    assert loop.learner.steps > 10
  assert_equal(first.learner.state, second.learner.state)
  other = make_loop(num_envs=num_envs, seed=1)
  other.run(num_steps=300)
  for a, b in zip(
    jax.tree.leaves(first.learner.state.params),
    jax.tree.leaves(other.learner.state.params),
    strict=True,
  ):
    assert (np.asarray(a) != b).any()


def test_several_environments_share_one_loop():
  loop = make_loop(num_envs=5)
  assert loop.run(num_episodes=10) >= 10 * 9
  assert loop.actor.num_episodes == 10
  assert loop.learner.steps > 0


def test_the_actor_gets_params_every_period():
  loop = make_loop(publish_period=7)
  loop.run(num_steps=200)
  version = loop.params.newest().version
  assert version % 7 == 0
  assert 0 <= loop.learner.steps - version < 7


def test_it_goes_on_from_a_state():
  loop = make_loop()
  loop.run(num_steps=100)
  state = jax.tree.map(np.array, loop.learner.state)
  resumed = make_loop(state=state, steps=loop.learner.steps)
  assert resumed.learner.steps == loop.learner.steps > 0
  assert resumed.params.newest().version == loop.learner.steps
  assert_equal(resumed.params.newest().params['network'], state.params)


class NotANumber(testing_environments.Catch):
  """Rewards of a broken simulator, from the second episode on."""

  def __init__(self):
    super().__init__(seed=0)
    self._episodes = 0

  def step(self, action):
    timestep = super().step(action)
    self._episodes += timestep.first()
    if self._episodes > 1 and timestep.last():
      return timestep._replace(reward=np.float32(np.nan))
    return timestep


def test_a_loss_that_is_not_finite_ends_the_loop(monkeypatch):
  from distacme.learning import learner

  monkeypatch.setattr(learner, '_METRICS_PERIOD_S', 0.0)
  agent = dqn.make_agent(dataclasses.replace(SMALL, priority_exponent=0), SPEC)
  loop = distacme.EnvironmentLoop(NotANumber(), agent)
  with pytest.raises(FloatingPointError, match='is nan after learner step'):
    loop.run(num_steps=2000)


def test_it_runs_without_jit_so_that_a_debugger_stops_in_the_loss():
  seen = []

  class Watched(dqn.DQN):
    def loss(self, params, target_params, batch, key):
      # A breakpoint() here would show these numbers; under jit they have none.
      seen.append(float(batch.data.reward.sum()))
      return super().loss(params, target_params, batch, key)

  config = dataclasses.replace(
    SMALL, hidden_sizes=(4,), batch_size=4, samples_per_insert=1.0,
    min_replay_size=10,
  )  # fmt: skip
  with jax.disable_jit():
    loop = distacme.EnvironmentLoop(
      testing_environments.Catch(seed=0), Watched(config, SPEC)
    )
    loop.run(num_steps=22)
  assert len(seen) == loop.learner.steps >= 1


# Learning, in seconds.

QUICK = dqn.Config(
  hidden_sizes=(64,),
  batch_size=32,
  samples_per_insert=16.0,
  min_replay_size=200,
  learning_rate=2e-3,
)


class WithoutReward(testing_environments.Catch):
  """The same game, in which nothing counts."""

  def step(self, action):
    timestep = super().step(action)
    if timestep.first():
      return timestep
    return timestep._replace(reward=np.float32(0))


def greedy_return(environment, num_steps):
  """Returns the mean return of 100 greedy episodes of catch after training."""
  agent = dqn.make_agent(QUICK, SPEC)
  loop = distacme.EnvironmentLoop(environment, agent)
  loop.run(num_steps=num_steps)
  assert loop.learner.steps > 500
  catch = vector.LoopVector(
    [testing_environments.Catch(seed=100 + i) for i in range(100)]
  )
  state = agent.initial_actor_state(100, streams=None)
  key, act = jax.random.key(0), jax.jit(agent.act)
  timestep, returns = catch.reset(), np.zeros(100)
  while not (timestep.step_type == dm_env.StepType.LAST).all():
    output = act(loop.params.newest().params, key, timestep.observation, state)
    timestep = catch.step(np.asarray(output.action))
    returns += timestep.reward
  return returns.mean()


def test_it_learns_catch():
  assert greedy_return(testing_environments.Catch(seed=0), 3000) >= 0.9


def test_it_does_not_learn_catch_without_its_rewards():
  assert greedy_return(WithoutReward(seed=0), 2000) < 0.3


class LearnsFromTwo(minimal_agent.LinearQ):
  """Learns from its own steps and, for a quarter, from demonstrations."""

  def __init__(self, spec):
    super().__init__(minimal_agent.Config(), spec)
    (own,) = self.replay.tables
    expert = dataclasses.replace(
      own,
      name='expert',
      max_size=20,
      min_size=9,
      samples_per_insert=None,
      evicts=False,
      filled_by='demonstrations',
    )
    self.replay = replay_spec.ReplaySpec((own, expert), 32, (0.75, 0.25))

  def update(self, state, batch):
    state, output = super().update(state, batch)
    theirs = (batch.table == 1).mean()
    return state, output._replace(metrics={'theirs': theirs})


def test_an_agent_learns_from_demonstrations_beside_its_own_steps():
  environment = testing_environments.Catch(seed=0)
  agent = LearnsFromTwo(distacme.make_environment_spec(environment))
  loop = distacme.EnvironmentLoop(environment, agent)
  loop.run(num_steps=300)
  assert loop.learner.steps == 0  # There are no demonstrations.
  loop = distacme.EnvironmentLoop(
    environment,
    agent,
    demonstrations=recorded.played(
      testing_environments.Catch(seed=1), lambda board: 1
    ),
  )
  loop.run(num_steps=400)
  assert loop.learner.steps > 10
  assert 0 < loop.learner._output.metrics['theirs'] < 0.6
  metrics = loop.replay.metrics()
  assert metrics['expert/size'] == 9
  share = metrics['expert/sampled'] / metrics['sampled']
  assert share == pytest.approx(0.25, abs=0.05)


class PretrainsOnOne(LearnsFromTwo):
  """Learns from demonstrations alone for 20 updates."""

  def __init__(self, spec):
    super().__init__(spec)
    self.replay = dataclasses.replace(self.replay, pretraining_batches=20)


def test_the_first_updates_are_of_demonstrations_and_before_the_first_action():
  environment = testing_environments.Catch(seed=0)
  agent = PretrainsOnOne(distacme.make_environment_spec(environment))
  loop = distacme.EnvironmentLoop(
    environment,
    agent,
    demonstrations=recorded.played(
      testing_environments.Catch(seed=1), lambda board: 1
    ),
  )
  assert sum(loop.step() for _ in range(20)) == 0
  assert loop.learner.steps == 20
  assert loop.learner._output.metrics['theirs'] == 1.0
  assert loop.step() == 1
  assert loop.learner.steps == 20  # its own are to come first

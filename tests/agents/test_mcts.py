"""MCTS: its loss by hand, its targets for two players, and learning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import distacme
from distacme import environments
from distacme import row_layout
from distacme import specs
from distacme import types
from distacme.agents import mcts
from distacme.kit import returns
from distacme.testing import agent_contract
from distacme.testing import environments as small

KEY = jax.random.PRNGKey(0)


@pytest.fixture(scope='module')
def tic_tac_toe():
  return specs.make_environment_spec(
    environments.make_vector('pgx:tic_tac_toe', 1, seed=0)
  )


@pytest.mark.parametrize('search', ['puct', 'gumbel'])
def test_keeps_the_contract(tic_tac_toe, search):
  config = mcts.Config(search=search, num_simulations=4)
  agent_contract.check_agent(mcts.make_agent(config, tic_tac_toe), tic_tac_toe)


def test_a_search_returns_what_replay_was_laid_out_for(tic_tac_toe):
  """`plan` and `finish` have the forms of `act`."""
  agent = mcts.make_agent(mcts.Config(num_simulations=4), tic_tac_toe)
  params = agent.actor_params(agent.initial_learner_state(KEY))
  expected = row_layout.acted(agent, tic_tac_toe, params)
  vector = environments.make_vector('pgx:tic_tac_toe', 1, seed=0)
  observation = vector.reset().observation
  state = agent.initial_actor_state(1, types.Streams(np.zeros(1), 1))
  planned = jax.eval_shape(
    lambda key, seen, root: agent.planner.plan(
      params, key, seen, state, vector.model, root
    ),
    KEY,
    observation,
    vector.state,
  )
  begun, _ = agent.planner.begin(params, KEY, observation, state)
  finished = jax.eval_shape(agent.planner.finish, KEY, begun, state)
  for output in (planned, finished):
    for name in ('action', 'extras', 'metrics'):
      forms = [
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), getattr(o, name))
        for o in (expected, output)
      ]
      assert forms[0] == forms[1]


def test_the_loss_is_that_of_the_paper():
  """Cross-entropy and squared errors of two transitions, computed by hand."""
  spec = specs.make_environment_spec(small.Catch(seed=0))
  logits = np.float32([[1.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
  values = np.float32([0.2, -0.4])  # scaled
  after = np.float32([0.3, 0.7])

  def network(observation, num_actions):
    assert num_actions == 3
    # The first cell of an observation says whether it is of an end.
    is_end = observation[:, 0, 0] > 0.5
    size = len(observation)
    return (
      jnp.broadcast_to(logits[:size], (size, 3)),
      jnp.where(is_end, after[:size], values[:size]),
    )

  config = mcts.Config(discount=1.0, l2_weight=0.0, value_weight=0.5)
  agent = mcts.make_agent(config, spec, network)
  start, end = (
    np.zeros((2, 10, 5), np.float32),
    np.zeros((2, 10, 5), np.float32),
  )
  end[:, 0, 0] = 1.0
  policy = np.float32([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
  reward, discount = np.float32([0.5, 1.0]), np.float32([-1.0, 0.0])
  data = types.Transition(
    start,
    np.zeros(2, np.int32),
    reward,
    discount,
    end,
    {'policy': policy},
  )
  loss, metrics = agent.loss(
    {}, {}, types.Batch(data, np.ones(2, np.float32)), KEY
  )
  log_pi = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
  policy_loss = -(policy * log_pi).sum(axis=-1).mean()
  # The opponent's value counts against the mover's.
  target = reward + discount * returns.unscale(after, np)
  value_loss = np.mean((values - returns.rescale(target, np)) ** 2)
  np.testing.assert_allclose(metrics['policy_loss'], policy_loss, rtol=1e-5)
  np.testing.assert_allclose(metrics['value_loss'], value_loss, rtol=1e-4)
  np.testing.assert_allclose(loss, policy_loss + 0.5 * value_loss, rtol=1e-4)


def test_values_of_both_players_are_learnt_from_the_outcome(tic_tac_toe):
  """The winner's positions get 1, the loser's -1, a draw's 0."""
  vector = environments.make_vector('pgx:tic_tac_toe', 2, seed=0)
  config = mcts.Config(
    discount=1.0,
    n_step=512,
    num_simulations=2,
    min_replay_size=100_000,
    max_replay_size=100_000,
  )
  agent = mcts.make_agent(config, tic_tac_toe)
  loop = distacme.EnvironmentLoop(vector, agent)
  loop.run(num_episodes=20)
  (table,) = loop.replay.held().tables.values()
  state = agent.initial_learner_state(KEY)
  layout = row_layout.row_layout(agent, tic_tac_toe, agent.actor_params(state))
  data = layout.views(layout.from_bytes(table.arrays['items']))
  data = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), data)
  np.testing.assert_array_equal(data.discount, 0.0)
  stones = data.observation['board'].sum(axis=(1, 2, 3))
  stones_at_end = data.next_observation['board'].sum(axis=(1, 2, 3))
  # A win is the last mover's; the parity of stones says who moves.
  last_mover = (stones_at_end - 1 - stones) % 2 == 0
  decided = data.reward != 0
  assert decided.any()
  np.testing.assert_array_equal(
    data.reward[decided], np.where(last_mover, 1.0, -1.0)[decided]
  )


def test_learns_to_catch_with_few_simulations():
  """With 8 simulations an untrained search catches half; a trained one catches all."""
  vector = environments.make_vector('jax:catch', 8, seed=0)
  config = mcts.Config(
    num_simulations=8, min_replay_size=500, samples_per_insert=32, n_step=10
  )
  agent = mcts.make_agent(config, specs.make_environment_spec(vector))
  loop = distacme.EnvironmentLoop(vector, agent)
  before = mean_return(agent, loop)
  loop.run(num_steps=6_000)
  assert before < 0.8
  assert mean_return(agent, loop) >= 0.95


def mean_return(agent, loop):
  """Returns the mean return of 40 evaluated episodes with the loop's params."""
  from distacme import wiring
  from distacme.acting import evaluator
  from distacme.acting import params
  from distacme.run import run_state

  mean = wiring.make_evaluator(
    agent,
    environments.make_vector('jax:catch', 20, seed=1),
    params.LocalParams(loop.params.newest()),
    run_state.RunState().reporter('evaluator/0'),
    evaluator.Settings(episodes=40, max_episode_steps=100),
    key=KEY,
  ).evaluate()
  assert mean is not None
  return mean


def test_a_network_of_another_form_is_refused():
  spec = specs.make_environment_spec(small.Catch(seed=0))
  with pytest.raises(ValueError, match='the network must map a batch of 1 to'):
    mcts.make_agent(
      mcts.Config(), spec, lambda o, n: (jnp.zeros((1, n)), jnp.zeros((1, 1)))
    )

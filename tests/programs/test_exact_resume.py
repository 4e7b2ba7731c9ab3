"""In local mode with one environment a resumed run does bit for bit the same."""

import json
import shutil
import signal

import jax
import numpy as np
import pytest

from distacme.agents import dqfd
from distacme.agents import dqn
from distacme.agents import impala
from distacme.agents import mcts
from distacme.agents import muzero
from distacme.agents import r2d2
from distacme.agents import sac
from distacme.environments import wrappers
from distacme.programs import experiment as experiment_lib
from distacme.programs import run_config
from distacme.programs import training
from distacme.run import checkpoint
from distacme.run import metrics
from distacme.run import run_directory
from distacme.testing import demonstrations as recorded
from distacme.testing import environments
from distacme.testing import legal_agent
from tests.environments import nim
from tests.programs import launching


def stacked_catch(seed):
  return wrappers.FrameStack(environments.catch(seed), 3)


WAIT_S = 300.0  # beside other work; seconds on an idle machine
SMALL = {'hidden_sizes': (16,)}
DQN = dqn.Config(**SMALL, min_replay_size=100, batch_size=16)
SETTINGS = {
  'mode': 'local',
  'max_env_steps': 1200,
  'checkpoint_period_steps': 300,
  'checkpoint_period_s': 1e-3,
  'eval_period': 350,
  'eval_episodes': 4,
  'max_eval_share': 1.0,
}
CASES = {
  # n-step windows, priorities, the sampler's random state, exploration.
  'dqn': (DQN, launching.CATCH, {}),
  # Evaluated and ended by learner steps, of which there are up to four a step.
  'dqn by learner steps': (
    DQN,
    launching.CATCH,
    {
      'clock': 'learner_steps',
      'max_env_steps': None,
      'max_learner_steps': 3500,
      'eval_period': 900,
    },
  ),
  # Frames that items share; params that are published now and then.
  'dqn on frames': (
    DQN,
    stacked_catch,
    {'publish_period': 7},
  ),
  # A memory, and sequences that start every so many steps.
  'r2d2': (
    r2d2.Config(
      min_replay_size=20, batch_size=4, max_replay_size=200,
      burn_in_length=2, trace_length=4, period=3, n_step=2, lstm_size=8,
    ),
    launching.CATCH,
    {},
  ),
  # A queue.
  'impala': (
    impala.Config(**SMALL, batch_size=1, queue_size=2), launching.CATCH, {}
  ),
  # Opponents, in whose games the evaluated rows swap seats.
  'game': (
    legal_agent.Config(),
    nim.make_by_hand,
    {'opponent': 'random'},
  ),
  # A search of the environment, which is saved and restored, and of a learnt model.
  'mcts': (
    mcts.Config(
      **SMALL, num_simulations=4, min_replay_size=100, batch_size=16
    ),
    launching.CATCH,
    {},
  ),
  'muzero': (
    muzero.Config(
      **SMALL, num_simulations=4, min_replay_size=10, batch_size=4,
      trace_length=6, unroll_steps=2,
    ),
    launching.CATCH,
    {},
  ),
  # Two tables, of which one is of demonstrations, drawn from by priorities; the first
  # updates are before the first action.
  'dqfd': (
    dqfd.Config(
      **SMALL, min_replay_size=50, batch_size=16, n_step=3,
      pretraining_steps=100,
    ),
    launching.CATCH,
    {'demonstrations': recorded.catch_expert},
  ),
  # Random actions before the first update; several updates in one call.
  'sac': (
    sac.Config(**SMALL, min_replay_size=100, batch_size=16),
    'gymnasium:Pendulum-v1',
    {'updates_per_call': 2, 'max_env_steps': 1000},
  ),
}  # fmt: skip


def train(case, run_dir, **changes):
  config, env, settings = CASES[case]
  settings = {**SETTINGS, **settings, **changes}
  run = training.train(config, env=env, run_dir=run_dir, **settings)
  assert run.exit_code == 0


def learnt(case, run_dir):
  """Returns the learner's last state and its steps."""
  directory = run_directory.RunDirectory(run_dir)
  config, env, _ = CASES[case]
  experiment = experiment_lib.Experiment(
    run_config.RunConfig(
      agent=type(config).__module__.removeprefix('distacme.agents.'),
      env=str(env),
    ),
    config,
    environment=env if callable(env) else None,
  )
  agent = experiment.make_agent(experiment.environment_spec())
  state = jax.eval_shape(
    agent.initial_learner_state, jax.random.key_data(jax.random.key(0))
  )
  return checkpoint.read(directory.checkpoints, state)


def evaluations(run_dir):
  """Returns the scores, by environment steps."""
  rows = metrics.read_metrics(run_dir / metrics.METRICS_FILE)
  return {
    row['env_steps']: (row['params_version'], row['mean_return'])
    for row in rows
    if row['worker'] == 'evaluator/0'
  }


def assert_same_run(case, one, other):
  a, b = learnt(case, one), learnt(case, other)
  assert a.steps == b.steps > 0
  for x, y in zip(*map(jax.tree.leaves, (a.state, b.state)), strict=True):
    np.testing.assert_array_equal(x, y)
  assert evaluations(one) == evaluations(other)
  for name in ('best/score.json', 'config.json'):
    pair = [json.loads((path / name).read_text()) for path in (one, other)]
    if name == 'config.json':
      for config in pair:
        del config['run']['run_dir'], config['resumed_from']
    assert pair[0] == pair[1]


def numbered(path):
  found = (p for p in path.glob('*') if p.name.isdigit())  # not those half done
  return sorted(found, key=lambda p: int(p.name))


def forget_the_end(run_dir):
  """Leaves what a kill after the last checkpoint but one would have left."""
  shutil.rmtree(numbered(run_dir / 'replay')[-1])
  shutil.rmtree(numbered(run_dir / 'checkpoints')[-1])


@pytest.mark.parametrize(
  'case',
  [
    'dqn',
    *(
      pytest.param(case, marks=pytest.mark.chaos)
      for case in CASES
      if case != 'dqn'
    ),
  ],
)
def test_a_run_that_was_killed_learns_the_same(case, tmp_path):
  whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
  train(case, whole)
  shutil.copytree(whole, resumed)
  forget_the_end(resumed)
  before = learnt(case, resumed).steps
  train(case, resumed)
  assert 0 < before < learnt(case, whole).steps
  assert_same_run(case, whole, resumed)


def test_without_what_replay_held_a_run_learns_something_else(tmp_path):
  # So that the test above can fail.
  whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
  train('dqn', whole)
  shutil.copytree(whole, resumed)
  forget_the_end(resumed)
  shutil.rmtree(resumed / 'replay')
  train('dqn', resumed)
  a, b = (learnt('dqn', path).state for path in (whole, resumed))
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  assert not all(np.array_equal(x, y) for x, y in pairs)


@pytest.mark.parametrize(
  'number',
  [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.chaos)],
)
def test_a_run_that_a_signal_ended_learns_the_same(number, tmp_path):
  flags = [
    *('--hidden-sizes', '16', '--min-replay-size', '100', '--batch-size', '16'),
    *('--eval-period', '1000', '--eval-episodes', '4'),
    *('--max-eval-share', '1'),
    *('--checkpoint-period-steps', '300', '--checkpoint-period-s', '0.001'),
    *('--max-env-steps', '1500'),
  ]

  def start(name):
    return launching.Run(tmp_path / name, *flags, mode='local')

  with start('whole') as run:
    assert run.wait(WAIT_S)[0] == 0, run.output
  with start('resumed') as run:
    run.wait_for(lambda: len(numbered(run.run_dir / 'checkpoints')) > 1)
    run.process.send_signal(number)
    code, seconds = run.wait(WAIT_S)
  assert code == (143 if number == signal.SIGTERM else -signal.SIGKILL)
  assert seconds < 40.0
  with start('resumed') as run:
    assert run.wait(WAIT_S)[0] == 0, run.output
  CASES['flags'] = DQN, launching.CATCH, {}
  assert_same_run('flags', tmp_path / 'whole', tmp_path / 'resumed')


def test_a_run_that_is_terminated_before_it_saved_begins_again(tmp_path):
  run_dir = tmp_path / 'run'
  flags = ('--hidden-sizes', '16', '--min-replay-size', '100')
  with launching.Run(run_dir, *flags, mode='local') as run:
    run.wait_until_learning()
    run.process.send_signal(signal.SIGTERM)
    assert run.wait(WAIT_S)[0] == 143, run.output
  assert not numbered(run_dir / 'checkpoints')
  with launching.Run(
    run_dir, *flags, '--max-env-steps', '200', mode='local'
  ) as run:
    assert run.wait(WAIT_S)[0] == 0, run.output
    assert run.summary.counts['env_steps'] < 300

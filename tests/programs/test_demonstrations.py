"""An agent that learns from recorded episodes alone: no actor, its own clock."""

import json

import numpy as np
import pytest

from distacme.programs import modes
from distacme.programs import training
from distacme.replay import demonstrations
from distacme.testing import environments
from tests.agents import cloning_agent
from tests.agents import minimal_agent

CATCH = 'distacme.testing.environments:catch'
SETTINGS = {
  'mode': 'local',
  'max_env_steps': None,
  'max_learner_steps': 150,
  'clock': 'learner_steps',
  'eval_period': 50,
  'max_eval_share': 1.0,
}


def episodes(act, count=100):
  """Yields episodes of catch in which `act` chooses the actions."""
  environment = environments.Catch(seed=0)
  random = np.random.default_rng(0)
  for _ in range(count):
    timesteps, actions = [environment.reset()], []
    while not timesteps[-1].last():
      actions.append(np.int32(act(timesteps[-1].observation, random)))
      timesteps.append(environment.step(actions[-1]))
    yield demonstrations.Episode(timesteps, actions)


calls = []


def expert():
  """Returns episodes in which the ball is always caught."""
  calls.append('expert')

  def act(board, random):
    ball, paddle = board[:-1].any(axis=0).argmax(), board[-1].argmax()
    return 1 + np.sign(int(ball) - int(paddle))

  return episodes(act)


def novice():
  """Returns episodes of random actions."""
  return episodes(lambda board, random: random.integers(3))


def train(run_dir, function, config=None, **settings):
  path = f'{__name__}:{function}' if function else ''
  return training.train(
    config or cloning_agent.Config(),
    env=CATCH,
    demonstrations=path,
    run_dir=run_dir,
    **{**SETTINGS, **settings},
  )


def test_it_learns_from_an_expert_by_learner_steps_and_not_from_a_novice(
  tmp_path,
):
  cloned = {}
  for name in ('expert', 'novice'):
    run = train(tmp_path / name, name)
    assert run.exit_code == 0
    curve = run.curve()
    assert curve.clock == 'learner_steps'
    # As soon as the loop looks after each 50.
    assert len(curve.steps) == 3
    assert curve.steps[-1] == 150
    cloned[name] = curve.returns[-1]
    summary = json.loads((run.directory / 'summary.json').read_text())
    assert summary['counts']['learner_steps'] == 150
    assert not summary['counts'].get('env_steps')
    assert summary['stop']['reason'] == 'step_limit'
  assert cloned['expert'] == 1.0
  assert cloned['novice'] < 0.5


def test_it_resumes_with_what_replay_held(tmp_path):
  calls.clear()
  train(tmp_path / 'run', 'expert', max_learner_steps=60)
  run = train(tmp_path / 'run', 'expert', max_learner_steps=120)
  assert calls == ['expert']  # which may take long, and is of use once
  whole = train(tmp_path / 'whole', 'expert', max_learner_steps=120)
  board = environments.Catch(seed=1).reset().observation
  for best in (True, False):
    assert run.policy(best)(board) == whole.policy(best)(board)
  weights = [
    each.policy(best=False)._policy._source.newest().params['weights']
    for each in (run, whole)
  ]
  np.testing.assert_array_equal(*weights)


@pytest.mark.parametrize(
  ('function', 'config', 'message'),
  [
    ('nothing', None, 'has no attribute'),
    ('CATCH', None, 'is no function'),
    ('', None, 'learns from demonstrations, and none are given'),
    ('expert', minimal_agent.Config(), 'learns from no demonstrations'),
  ],
)
def test_demonstrations_that_are_not_given_or_not_wanted_are_refused(
  tmp_path, function, config, message
):
  with pytest.raises(ValueError, match=message):
    train(tmp_path / 'run', function, config)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'clock': 'env_steps'}, "never be evaluated. Add '--clock learner_steps'"),
    ({'max_learner_steps': None}, 'would never end.* Set one of them'),
  ],
)
def test_a_run_that_would_never_be_evaluated_or_end_is_refused(
  tmp_path, settings, message
):
  with pytest.raises(ValueError, match=message):
    train(tmp_path / 'run', 'expert', **settings)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  'mode', [m for m, each in modes.LAUNCHERS.items() if each.has_services]
)
def test_other_modes_are_refused_before_they_start(tmp_path, mode, monkeypatch):
  monkeypatch.setattr(modes.Launcher, 'check_installed', lambda self: None)
  with pytest.raises(ValueError, match='runs in one process so far'):
    train(tmp_path / 'run', 'expert', mode=mode)

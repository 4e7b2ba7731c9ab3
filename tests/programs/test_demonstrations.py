"""An agent that learns from recorded episodes alone, in every mode."""

import json
import signal

import numpy as np
import pytest

from distacme import demonstrations
from distacme.agents import bc
from distacme.agents import dqfd
from distacme.agents import dqn
from distacme.agents import impala
from distacme.agents import r2d2
from distacme.programs import training
from distacme.programs.commands import scale
from distacme.programs.launchers import this_host
from distacme.testing import demonstrations as recorded
from tests.programs import launching

CATCH = 'distacme.testing.environments:catch'
SETTINGS = {
  'mode': 'local',
  'max_learner_steps': 150,
  'eval_period': 50,
  'max_eval_share': 1.0,
}
CONFIG = bc.Config(hidden_sizes=(32,), learning_rate=1e-2)

calls = []


def expert():
  """Returns episodes in which the ball is always caught."""
  calls.append('expert')
  return recorded.catch_expert()


def train(run_dir, function, config=None, **settings):
  if isinstance(function, str) and function and ':' not in function:
    function = f'{__name__}:{function}'
  return training.train(
    config or CONFIG,
    env=CATCH,
    demonstrations=function,
    run_dir=run_dir,
    **{**SETTINGS, **settings},
  )


def test_it_learns_from_an_expert_by_learner_steps_and_not_from_chance(
  tmp_path,
):
  cloned = {}
  for name, given in (
    ('expert', 'expert'),
    ('random', recorded.catch_random),
  ):
    run = train(tmp_path / name, given)
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
  assert cloned['random'] < 0.5


def test_it_resumes_with_what_replay_held(tmp_path):
  calls.clear()
  train(tmp_path / 'run', 'expert', max_learner_steps=60)
  run = train(tmp_path / 'run', 'expert', max_learner_steps=120)
  assert calls == ['expert']  # which may take long, and is of use once
  whole = train(tmp_path / 'whole', 'expert', max_learner_steps=120)
  weights = [
    each.policy(best=False)._policy._newest.params() for each in (run, whole)
  ]
  for module, leaves in weights[0].items():
    for name, leaf in leaves.items():
      np.testing.assert_array_equal(leaf, weights[1][module][name])


def test_a_run_ends_when_the_agent_has_converged(tmp_path):
  config = bc.Config(hidden_sizes=(8,), validation_period=10, patience=2)
  run = train(
    tmp_path / 'run',
    recorded.catch_random,
    config,
    max_learner_steps=None,
    max_seconds=300.0,
  )
  assert run.exit_code == 0
  summary = json.loads((run.directory / 'summary.json').read_text())
  assert summary['stop']['reason'] == 'converged'
  assert summary['stop']['worker'] == 'learner/0'
  steps = summary['counts']['learner_steps']
  # The last params are evaluated, as at a limit.
  assert run.curve().steps[-1] == steps
  # The end is seen two updates late.
  assert steps % 10 == 2


@pytest.mark.program
@pytest.mark.parametrize('mode', ['threads', 'processes'])
def test_a_program_has_neither_actors_nor_replay(tmp_path, mode, monkeypatch):
  # Which warns of its own threads here, where warnings are errors.
  monkeypatch.setattr(this_host, 'find_launchpad', lambda: None)
  calls.clear()
  run = train(tmp_path / 'run', 'expert', mode=mode)
  assert run.exit_code == 0
  assert calls == ['expert']  # here, and by no worker
  program = json.loads((run.directory / 'program.json').read_text())
  names = [worker['name'] for worker in program['workers']]
  assert names == ['variables/0', 'learner/0', 'evaluator/0']
  assert run.curve().returns[-1] == 1.0
  if mode == 'processes':  # the one that scales
    with pytest.raises(ValueError, match='without actors.* nothing to scale'):
      scale.main([str(run.directory), '--num-actors', '2'])
  # Resumed without them.
  again = train(tmp_path / 'run', 'expert', mode=mode, max_learner_steps=200)
  summary = json.loads((again.directory / 'summary.json').read_text())
  assert summary['counts']['learner_steps'] == 200
  assert calls == ['expert']


R2D3 = (
  '--agent', 'r2d3',
  '--demonstrations', 'distacme.testing.demonstrations:catch_expert',
  '--demonstration-ratio', '0.25',
  '--hidden-sizes', '8',
  '--lstm-size', '8',
  '--batch-size', '8',
  '--min-replay-size', '5',
  '--eval-episodes', '1',
  '--num-actors', '2',
)  # fmt: skip


@pytest.mark.launchpad
def test_replay_that_was_killed_has_the_demonstrations_again(tmp_path):
  flags = *R2D3, '--max-seconds', '80', '--replay-checkpoint-period-s', 'None'
  with launching.Run(tmp_path / 'run', *flags) as run:
    run.wait_until_learning()
    replay = run.worker('replay/0')
    replay.kill()
    run.wait_for(lambda: run.restarted('replay/0', replay))

    def rows():
      return [row for row in run.metrics() if row['worker'] == 'replay/0']

    # Which counts from its start.
    seen = len(rows())
    run.wait_for(
      lambda: any(row['experience/sampled'] > 50 for row in rows()[seen:])
    )
    last = rows()[-1]
    assert last['demonstrations/size'] == last['demonstrations/inserted'] == 100
    assert last['demonstrations/sampled'] > 0
    run.process.send_signal(signal.SIGINT)
    code, _ = run.wait()
    assert code == 130, run.output
    assert not run.left_after(1.0)
  # Six deviations of as many draws.
  share = last['demonstrations/sampled'] / last['sampled']
  assert abs(share - 0.25) < 6 * np.sqrt(0.25 * 0.75 / last['sampled'])
  assert any('share_of_demonstrations' in row for row in run.metrics())
  assert run.summary.restarts == {'replay/0': ['ended with signal 9']}


EPISODE = {
  'observations': np.zeros((3, 10, 5), np.float32),
  'actions': [0, 2],
  'rewards': [0.0, 1.0],
  'terminated': True,
}


def functions(*episodes):
  return lambda: [{**EPISODE, **each} for each in episodes]


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ('nothing', 'has no attribute'),
    ('CATCH', 'is str. Give the folder or the ID of a Minari'),
    (None, "learns from demonstrations, and none are given. Add '--demo"),
    (functions(), 'There is no episode in'),
    (lambda: [EPISODE, 'none'], 'episode 1 is str. Give a mapping with'),
    (lambda: None, 'returned NoneType. Return what'),
    (
      functions({'actions': [0, 3]}),
      r'actions of episode 0 of .* hold 3, and there those of the environment '
      'are from 0 to 2',
    ),
    (
      functions({'observations': np.zeros((3, 5), np.float32)}),
      r"are float32\[5\], and the environment's are float32\[10, 5\]",
    ),
    (functions({'rewards': [0.0, np.nan]}), 'rewards of episode 0 .* nan'),
  ],
)
def test_what_cannot_be_learnt_from_is_refused_before_a_run_begins(
  tmp_path, given, message
):
  with pytest.raises(ValueError, match=message):
    train(tmp_path / 'run', given)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'clock': 'env_steps'}, "never be evaluated. Add '--clock learner_steps'"),
    ({'max_learner_steps': None}, 'would never end.* Set one of them'),
    ({'num_actors': 7}, 'has no actors, got num_actors=7. Leave it out'),
    ({'max_env_steps': 10}, 'has no actors, got max_env_steps=10'),
  ],
)
def test_a_run_that_would_never_be_evaluated_or_end_is_refused(
  tmp_path, settings, message
):
  with pytest.raises(ValueError, match=message):
    train(tmp_path / 'run', 'expert', **settings)
  assert not (tmp_path / 'run').exists()


def test_other_agents_have_them_in_replay_before_their_first_step(tmp_path):
  config = dqn.Config(hidden_sizes=(8,), min_replay_size=950, batch_size=8)
  run = training.train(
    config,
    env=CATCH,
    demonstrations=recorded.catch_expert,
    run_dir=tmp_path / 'run',
    mode='local',
    max_env_steps=60,
    eval_period=60,
    eval_episodes=1,
  )
  assert run.exit_code == 0
  lines = (run.directory / 'metrics.jsonl').read_text().splitlines()
  sizes = [json.loads(line).get('size') for line in lines]
  assert min(size for size in sizes if size is not None) >= 900
  summary = json.loads((run.directory / 'summary.json').read_text())
  # Of 60 own steps 10 are beyond the first 950.
  assert summary['counts']['learner_steps'] > 0


@pytest.mark.parametrize('config', [impala.Config(), r2d2.Config()])
def test_agents_that_learn_from_their_own_policy_refuse_them(tmp_path, config):
  with pytest.raises(ValueError, match='own policy computed .* Leave them out'):
    training.train(
      config,
      env=CATCH,
      demonstrations=recorded.catch_expert,
      run_dir=tmp_path / 'run',
      mode='local',
    )
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('given', [[EPISODE] * 4, None])
def test_episodes_are_given_to_train_as_they_are(tmp_path, given):
  given = given or demonstrations.from_episodes([EPISODE] * 4)
  run = train(tmp_path / 'run', given, max_learner_steps=4)
  assert run.exit_code == 0
  config = json.loads((run.directory / 'config.json').read_text())
  assert config['run']['demonstrations'] in ('Demonstrations', 'list')


def test_several_updates_in_a_call_may_reach_beyond_the_pretraining(tmp_path):
  config = dqfd.Config(
    hidden_sizes=(8,), batch_size=8, min_replay_size=10, pretraining_steps=10
  )
  run = training.train(
    config,
    env=CATCH,
    demonstrations=recorded.catch_expert,
    run_dir=tmp_path / 'run',
    mode='local',
    updates_per_call=4,
    max_env_steps=40,
    eval_episodes=1,
  )
  assert run.exit_code == 0
  counts = json.loads((run.directory / 'summary.json').read_text())['counts']
  # 8 of 10, and then 32 samples for each step beyond the first ten.
  assert counts['learner_steps'] > 8 + 20 * 32 / 8


def test_a_path_is_a_dataset(tmp_path):
  with pytest.raises(ValueError, match='nowhere'):
    train(tmp_path / 'run', tmp_path / 'nowhere')

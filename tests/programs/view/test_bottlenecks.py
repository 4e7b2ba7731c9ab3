"""Sentences about the worker that waits, and the one that it waits for."""

import pytest

import distacme
from distacme import specs
from distacme import status as status_lib
from distacme.agents import dqn
from distacme.programs.view import bottlenecks
from distacme.run import run_state
from distacme.testing import environments

State = status_lib.WorkerState


def status(*, learner_steps=0, **workers):
  """Returns the status of workers given as name=(state, metrics)."""
  run = run_state.RunState(clock=lambda: 0.0)
  for name, (state, metrics) in workers.items():
    run.report(name.replace('_', '/'), {}, metrics, state)
  run.report('learner/0', {'learner_steps': learner_steps})
  return run.status()


def test_actors_that_replay_blocks_wait_for_the_learner():
  assert bottlenecks.who_waits(
    status(
      actor_0=(State.ACTING, {'share_blocked_by_replay': 0.5}),
      actor_1=(State.ACTING, {'share_blocked_by_replay': 0.7}),
      replay_0=(State.SERVING, {'samples_per_insert': 7.96, 'size': 10}),
    )
  ) == [
    'actors wait for the learner (60% of the time): replay takes no more '
    'before more is sampled (7.96 samples per insert so far)'
  ]


def test_a_learner_without_batches_waits_for_the_actors():
  (sentence,) = bottlenecks.who_waits(
    status(
      actor_0=(State.ACTING, {}),
      learner_0=(State.LEARNING, {'share_waiting_for_data': 0.3}),
      learner_steps=5,
    )
  )
  assert sentence.startswith(
    'the learner waits for the actors (30% of the time): replay gives no more'
  )


def test_where_nobody_acts_the_learner_waits_for_its_batches():
  (sentence,) = bottlenecks.who_waits(
    status(
      learner_0=(State.LEARNING, {'share_waiting_for_data': 0.3}),
      learner_steps=5,
    )
  )
  assert sentence == (
    'the learner waits for its batches to be drawn (30% of the time)'
  )


def test_where_both_sides_wait_replay_is_slow():
  _, sentence = bottlenecks.who_waits(
    status(
      actor_0=(State.ACTING, {'share_blocked_by_replay': 0.7}),
      learner_0=(State.LEARNING, {'share_waiting_for_data': 0.6}),
      learner_steps=5,
    )
  )
  assert sentence.startswith(
    'the learner waits for its batches to be drawn (60% of the time): replay is'
  )


def test_before_its_first_step_the_learner_waits_for_replay_to_fill():
  (sentence,) = bottlenecks.who_waits(
    status(
      learner_0=(State.WAITING_FOR_DATA, {}),
      replay_0=(State.SERVING, {'size': 1200}),
    )
  )
  assert 'replay must hold more before it is sampled (now 1,200)' in sentence


def test_a_real_learner_without_data_is_seen_to_wait():
  state = run_state.RunState()
  environment = environments.Catch(seed=0)
  agent = dqn.make_agent(dqn.Config(), specs.make_environment_spec(environment))
  loop = distacme.EnvironmentLoop(environment, agent, run_state=state)
  loop.step()
  metrics = loop.replay.metrics()
  state.reporter('replay/0').report(metrics=metrics, state=State.SERVING)
  (sentence,) = bottlenecks.who_waits(state.status())
  assert sentence.startswith('the learner waits for the actors: replay must')


def test_a_learner_waits_for_its_priorities_to_be_taken():
  assert bottlenecks.who_waits(
    status(learner_0=(State.SETTING_PRIORITIES, {}), learner_steps=5)
  ) == ['the learner waits for replay to take priorities']


@pytest.mark.parametrize(
  'names, sentence',
  [
    (['actor_0'], 'actor/0 waits for the learner to publish its first params'),
    (
      ['evaluator_0', 'actor_1', 'actor_0'],
      'actor/0, actor/1 and evaluator/0 wait for the learner to publish its '
      'first params',
    ),
  ],
)
def test_who_has_no_params_waits_for_the_first(names, sentence):
  workers = dict.fromkeys(names, (State.WAITING_FOR_PARAMS, {}))
  assert bottlenecks.who_waits(status(**workers)) == [sentence]


def test_the_evaluator_waits_for_the_last_params():
  assert bottlenecks.who_waits(
    status(evaluator_0=(State.WAITING_FOR_LAST_PARAMS, {}))
  ) == ['evaluator/0 waits for the learner to publish its last params']


def test_a_silent_worker_is_named_unless_it_is_done():
  now = 0.0
  run = run_state.RunState(clock=lambda: now)
  run.report('actor/0', state=State.ACTING)
  run.report('actor/1', state=State.DONE)
  now = 12.0
  assert bottlenecks.who_waits(run.status()) == [
    'actor/0 has said nothing for 12 s'
  ]


def test_before_any_worker_has_reported_nobody_is_said_to_wait():
  status = run_state.RunState().status()
  assert bottlenecks.who_waits(status) == ['no worker has been heard of yet']


def test_a_little_waiting_is_none():
  assert bottlenecks.who_waits(
    status(
      actor_0=(State.ACTING, {'share_blocked_by_replay': 0.04}),
      learner_0=(State.LEARNING, {'share_waiting_for_data': 0.04}),
      learner_steps=5,
    )
  ) == ['nobody waits for anybody']

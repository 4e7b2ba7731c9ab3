"""The evaluator against environments whose returns are known."""

import dataclasses

import dm_env
import jax
import numpy as np
import pytest

from distacme import core
from distacme import status
from distacme import wiring
from distacme.acting import evaluator
from distacme.acting import params
from distacme.environments import vector
from distacme.run import notices
from distacme.run import run_state
from distacme.testing import environments
from distacme.testing import telling_agent


class Watched(vector.LoopVector):
  """Keeps the actions; calls `on_step` before every step."""

  def __init__(self, *rows, on_step=lambda: None):
    super().__init__(rows)
    self.actions = []
    self.ended = np.zeros(len(rows), int)
    self._on_step = on_step

  def step(self, action):
    self._on_step()
    self.actions.append(action.tolist())
    timestep = super().step(action)
    self.ended += timestep.step_type == dm_env.StepType.LAST
    return timestep


class Rig:
  """An evaluator and everything around it."""

  def __init__(self, environment, source=None, limits=None, **kwargs):
    self.environment = environment
    self.state = run_state.RunState(limits or status.Limits())
    self.source = source or params.LocalParams()
    self.kept = []
    settings = {'episodes': 4, 'period': 100, 'max_episode_steps': 10_000}
    kwargs.setdefault('key', jax.random.key_data(jax.random.key(0)))
    for field in dataclasses.fields(evaluator.Settings):
      if field.name in kwargs:
        settings[field.name] = kwargs.pop(field.name)
    self.evaluator = wiring.make_evaluator(
      telling_agent.TellingAgent(),
      environment,
      self.source,
      self.state.reporter('evaluator'),
      evaluator.Settings(**settings),
      keep=lambda newest, mean: self.kept.append((newest.version, mean)),
      **kwargs,
    )

  def publish(self, version):
    self.source.publish(version, nest(version))

  def count(self, env_steps, learner_steps=0):
    counts = {'env_steps': env_steps, 'learner_steps': learner_steps}
    self.state.report('workers', counts)
    # As its loop does while it waits.
    reporter = self.state.reporter('evaluator')
    self.evaluator.directive = reporter.report()

  def metrics(self):
    return self.state.status().workers['evaluator'].metrics


@pytest.fixture(name='warnings')
def fixture_warnings(monkeypatch):
  said = []
  monkeypatch.setattr(notices, 'warn_once', said.append)
  return said


def nest(version):
  return {'version': np.int32(version), 'rewards': np.zeros(2, np.float32)}


def rows(*lengths, reward=lambda episode, step: 1.0):
  return [environments.Counting((n,), reward=reward) for n in lengths]


def test_every_row_plays_equally_many_episodes():
  # The first four episodes to end would be the short row's.
  rig = Rig(Watched(*rows(1, 10)))
  rig.publish(0)
  assert rig.evaluator.evaluate() == (1 + 1 + 10 + 10) / 4
  assert rig.metrics()['mean_length'] == 5.5
  assert rig.environment.ended[1] == 2


def test_returns_are_of_episodes():
  # Episode e of two steps returns e + 2e; two rows of two episodes each.
  first = environments.Counting((2,), reward=lambda e, t: e * t)
  second = environments.Counting(
    (2,), reward=lambda e, t: e * t, first_episode=10
  )
  rig = Rig(Watched(first, second))
  rig.publish(3)
  assert rig.evaluator.evaluate() == np.mean([0, 3, 30, 33])
  metrics = rig.metrics()
  assert (metrics['min_return'], metrics['max_return']) == (0, 33)
  assert metrics['mean_return'] == 16.5
  assert metrics['mean_length'] == 2.0
  assert metrics['params_version'] == 3
  assert metrics['seconds'] > 0
  assert rig.state.status().counts == {'evaluations': 1}


def test_each_evaluation_starts_with_new_episodes():
  rig = Rig(Watched(*rows(3)), episodes=2)
  for version in range(3):
    rig.publish(version)
    assert rig.evaluator.evaluate() == 3.0


class Restless:
  """Has newer params whenever it is asked."""

  def __init__(self):
    self.version = 0

  def newest(self):
    self.version += 1
    return core.VersionedParams(self.version, nest(self.version))


def test_one_version_acts_throughout_though_newer_ones_arrive():
  rig = Rig(Watched(*rows(5, 5)), source=Restless())
  rig.evaluator.evaluate()
  first, rig.environment.actions = rig.environment.actions, []
  rig.evaluator.evaluate()
  versions = [
    {v for row in part for v in row}
    for part in (first, rig.environment.actions)
  ]
  assert [len(v) for v in versions] == [1, 1]
  assert versions[0] != versions[1]
  assert rig.metrics()['params_version'] == versions[1].pop()
  assert [version for version, _ in rig.kept][0] == versions[0].pop()


def test_a_version_is_evaluated_once():
  rig = Rig(Watched(*rows(1)))
  rig.publish(7)
  assert rig.evaluator.evaluate() is not None
  assert rig.evaluator.evaluate() is None
  assert rig.kept == [(7, 1.0)]


def test_it_waits_for_steps_and_params():
  rig = Rig(Watched(*rows(1)))
  rig.count(100)
  assert not rig.evaluator.evaluate_if_due()  # there are no params
  rig = Rig(Watched(*rows(1)))
  rig.publish(0)
  rig.count(99)
  assert not rig.evaluator.evaluate_if_due()
  rig.count(1)
  assert rig.evaluator.evaluate_if_due()


def test_learner_steps_may_be_its_clock():
  rig = Rig(Watched(*rows(1)), clock='learner_steps', steps=120)
  rig.publish(0)
  rig.count(env_steps=500, learner_steps=199)
  assert not rig.evaluator.evaluate_if_due()
  rig.count(env_steps=0, learner_steps=1)
  assert rig.evaluator.evaluate_if_due()


def test_it_skips_evaluations_that_it_is_too_slow_for():
  rig = Rig(Watched(*rows(1)))
  due = []
  for version, steps in enumerate([250, 40, 20, 80, 20]):  # 250, 290, 310 ...
    rig.publish(version)
    rig.count(steps)
    due.append(rig.evaluator.evaluate_if_due())
  assert due == [True, False, True, False, True]


@pytest.mark.parametrize(('threshold', 'stops'), [(3.0, True), (3.01, False)])
def test_a_solved_environment_ends_the_run(threshold, stops):
  rig = Rig(Watched(*rows(3)), solved_return=threshold)
  rig.publish(5)
  rig.evaluator.evaluate()
  stop = rig.state.status().stop
  if not stops:
    assert stop is None
    return
  assert (stop.reason, stop.worker) == ('solved', 'evaluator')
  assert stop.detail == 'mean return 3 over 4 episodes, at params version 5'
  rig.evaluator.run()  # ends, as the run has; nothing is left to evaluate
  assert rig.state.status().counts == {'evaluations': 1}


def test_a_run_that_used_up_its_steps_is_evaluated_once_more():
  rig = Rig(Watched(*rows(1)), limits=status.Limits(max_env_steps=50))
  rig.publish(9)
  rig.count(50)
  rig.evaluator.run()
  assert rig.kept == [(9, 1.0)]


def test_a_run_that_ended_otherwise_is_not():
  rig = Rig(Watched(*rows(1)))
  rig.publish(9)
  rig.state.request_stop(status.StopReason.INTERRUPTED)
  rig.count(500)
  rig.evaluator.run()
  assert rig.kept == []


def test_it_evaluates_while_the_run_goes_on():
  rig = Rig(Watched(*rows(1)), limits=status.Limits(max_env_steps=1000))

  def keep(newest, mean):
    rig.kept.append(newest.version)
    rig.publish(newest.version + 1)
    rig.state.report('actor/0', {'env_steps': 300})

  rig.evaluator._keep = keep
  rig.publish(0)
  rig.count(300)
  rig.evaluator.run()
  # At 300, 600 and 900 steps, and at the end.
  assert rig.kept == [0, 1, 2, 3]


class AtStep:
  """Calls `function` before the step of that number."""

  def __init__(self, step, function):
    self.steps = 0
    self._step, self._function = step, function

  def __call__(self):
    self.steps += 1
    if self.steps == self._step:
      self._function()


@pytest.mark.parametrize(
  ('reason', 'finishes'),
  [('interrupted', False), ('time_limit', False), ('step_limit', True)],
)
def test_a_stop_in_the_midst_ends_it_unless_the_steps_are_used_up(
  reason, finishes
):
  at_step = AtStep(
    10, lambda: rig.state.request_stop(status.StopReason(reason))
  )
  rig = Rig(Watched(*rows(100), on_step=at_step), episodes=1)
  rig.publish(0)
  mean = rig.evaluator.evaluate()
  if finishes:
    assert mean == 100
    assert rig.kept == [(0, 100)]
  else:
    assert mean is None
    assert at_step.steps == 10
    assert rig.kept == []
    assert 'evaluations' not in rig.state.status().counts


def finish_under(on_step, **kwargs):
  """Returns the rig of a run that used up its steps, evaluated for the last time."""
  limits = status.Limits(max_env_steps=50)
  rig = Rig(Watched(*rows(100), on_step=on_step), limits=limits, **kwargs)
  rig.publish(9)
  rig.count(50)
  rig.evaluator.run()
  return rig


def test_who_is_in_a_hurry_gives_up_the_last_evaluation_and_says_so(warnings):
  hurry = []
  at_step = AtStep(7, lambda: hurry.append(1))
  rig = finish_under(at_step, is_hurried=lambda: bool(hurry))
  assert at_step.steps == 7
  assert rig.kept == []
  assert warnings == [
    'The last evaluation was given up, since there was no time for it. To play '
    "its episodes, run 'distacme evaluate --newest' on the run's directory."
  ]


def test_the_last_evaluation_is_given_up_when_its_time_is_over(warnings):
  clock = Clock()
  at_step = AtStep(7, lambda: clock.advance(45.0))
  rig = finish_under(at_step, last_s=45.0, now=clock)
  assert at_step.steps == 7
  assert rig.kept == []
  assert len(warnings) == 1
  at_step = AtStep(7, lambda: clock.advance(44.0))
  assert finish_under(at_step, last_s=45.0, now=clock).kept == [(9, 100.0)]
  assert len(warnings) == 1


def test_it_gives_a_sign_of_life_with_every_step():
  # A step of 20 slow environments may take seconds.
  heartbeats = []

  class Listening:
    def report(self, counts=None, metrics=None, state=None):
      heartbeats.append(state)
      return core.Directive(None, {})

  rig = Rig(Watched(*rows(5)), episodes=1)
  rig.evaluator._reporter = Listening()
  rig.publish(0)
  rig.evaluator.evaluate()
  assert heartbeats == ['evaluating'] * 5 + ['idle']


def test_an_episode_without_an_end_is_cut_off_and_said_to_be(warnings):
  # The second and third row end by themselves, one of them at the last moment.
  rig = Rig(Watched(*rows(10**9, 3, 6)), episodes=6, max_episode_steps=6)
  rig.publish(0)
  assert rig.evaluator.evaluate() == (6 + 6 + 3 + 3 + 6 + 6) / 6
  metrics = rig.metrics()
  assert metrics['episodes_cut_off'] == 2
  assert metrics['mean_length'] == 5.0
  # The row that was cut off waits until the others have played all of theirs.
  assert len(rig.environment.actions) == (6 + 1 + 6) + 6
  worker = rig.state.status().workers['evaluator']
  assert worker.state == 'idle'
  assert len(warnings) == 1
  assert 'max_eval_episode_steps=6 steps and was cut off' in warnings[0]


def test_episodes_that_end_are_not_cut_off(warnings):
  rig = Rig(Watched(*rows(3, 6)), episodes=4, max_episode_steps=6)
  rig.publish(0)
  rig.evaluator.evaluate()
  assert rig.metrics()['episodes_cut_off'] == 0
  assert not warnings


class Clock:
  """Shows what it is told."""

  def __init__(self):
    self.now = 1000.0

  def __call__(self):
    return self.now

  def advance(self, seconds):
    self.now += seconds


@pytest.mark.parametrize(
  ('max_share', 'expected'),
  [
    (1.0, [True] * 6),
    # It took 10 s of 15, of 20, of 25 and so on, until it is 10 of 50.
    (0.2, [True, *[False] * 6, True, False]),
    (0.0, [True, False, False]),
  ],
)
def test_an_evaluation_is_left_out_while_they_take_too_much_time(
  max_share, expected
):
  clock = Clock()
  environment = Watched(*rows(1), on_step=lambda: clock.advance(10.0))
  rig = Rig(environment, episodes=1, max_share=max_share, now=clock)
  due = []
  for version, _ in enumerate(expected):
    clock.advance(5.0)
    rig.publish(version)
    rig.count(100)
    due.append(rig.evaluator.evaluate_if_due())
  assert due == expected


def test_the_last_evaluation_is_never_left_out():
  clock = Clock()
  rig = Rig(
    Watched(*rows(1), on_step=lambda: clock.advance(10.0)),
    episodes=1,
    max_share=0.0,
    limits=status.Limits(max_env_steps=200),
    now=clock,
  )
  for version in (1, 2):
    rig.publish(version)
    rig.count(100)
    rig.evaluator.evaluate_if_due()
  rig.evaluator.run()
  assert rig.kept == [(1, 1.0), (2, 1.0)]


@pytest.mark.parametrize(
  ('episodes', 'expected'),
  [(1, 1), (19, 19), (20, 20), (40, 20), (30, 15), (23, 1)],
)
def test_rows_share_the_episodes_evenly(episodes, expected):
  assert evaluator.num_rows(episodes) == expected


def test_rows_that_cannot_share_evenly_are_refused():
  with pytest.raises(
    ValueError, match=r'episodes=5 is not a multiple of the 2 .* num_rows'
  ):
    Rig(Watched(*rows(1, 1)), episodes=5)


def test_a_resumed_evaluator_waits_for_the_next_multiple_of_its_period():
  rig = Rig(Watched(*rows(3)), steps=250)
  rig.publish(5)
  rig.count(299)
  assert not rig.evaluator.evaluate_if_due()
  rig.count(1)
  assert rig.evaluator.evaluate_if_due()


def test_one_that_starts_anew_is_as_one_that_was_made_there():
  key = jax.random.key_data(jax.random.key(7))
  old, new = (
    Rig(Watched(*rows(3))),
    Rig(Watched(*rows(4)), key=key, steps=250),
  )
  for rig in (old, new):
    rig.publish(5)
    rig.count(250)
  assert old.evaluator.evaluate() == 3.0
  environment = Watched(*rows(4))
  old.evaluator.start_anew(environment, key, steps=250)
  assert not old.evaluator.evaluate_if_due()
  old.count(50)
  new.count(50)
  # The same version once more: a resumed one does not know of the first time.
  assert old.evaluator.evaluate_if_due()
  assert new.evaluator.evaluate_if_due()
  assert old.metrics()['mean_return'] == new.metrics()['mean_return'] == 4.0
  assert environment.actions == new.environment.actions

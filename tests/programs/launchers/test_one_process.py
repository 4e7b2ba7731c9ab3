"""Local mode: episodes are whole, the clock decides nothing, stops are at once."""

import dataclasses
import os
import shutil
import signal

import dm_env
import jax
import numpy as np
import pytest

from distacme.acting import actor
from distacme.agents import dqn
from distacme.environments import wrappers
from distacme.programs import training
from distacme.programs.view import plotting
from distacme.run import curves
from distacme.run import metrics
from distacme.run import run_directory
from distacme.testing import environments
from tests.programs import broken_environments
from tests.programs import launching
from tests.programs import test_exact_resume

SMALL = {'hidden_sizes': (16,)}
QUICK = dqn.Config(**SMALL, min_replay_size=100, batch_size=16)
# Acts, and never learns: for what is only about acting.
ACTING = dqn.Config(
  **SMALL, min_replay_size=10**6, max_replay_size=10**6, batch_size=16
)


@pytest.fixture(autouse=True)
def fixture_no_curves(monkeypatch):
  monkeypatch.setattr(plotting, 'draw_if_possible', lambda run_dir: None)


def train(config, env, run_dir, **settings):
  settings = {'mode': 'local', 'eval_episodes': 1, **settings}
  run = training.train(config, env=env, run_dir=run_dir, **settings)
  return run.exit_code


class Watched(wrappers.Wrapper):
  """Keeps the length and the last reward of each episode that was begun."""

  def __init__(self, environment, episodes, on_step=lambda: None):
    super().__init__(environment)
    self._episodes = episodes
    self._on_step = on_step

  def _timestep(self, timestep):
    self._on_step()
    if timestep.first():
      self._episodes.append([0, None])
    else:
      self._episodes[-1][0] += 1
      self._episodes[-1][1] = float(timestep.reward)
    return timestep


class Fleet:
  """Makes environments that are watched; `episodes` has a list for each."""

  def __init__(self, length, on_step=lambda: None):
    self.episodes = []
    self._length = length
    self._on_step = on_step

  def __call__(self, seed):
    self.episodes.append([])
    environment = environments.RewardAtTheEnd(seed, self._length)
    return Watched(environment, self.episodes[-1], self._on_step)

  def acted(self):
    """Returns the episodes of environments that acted, not one step alone."""
    rows = [row for row in self.episodes if sum(n for n, _ in row) > 10]
    return [episode for row in rows for episode in row]


@pytest.mark.parametrize(
  ('rows', 'length', 'period'),
  [
    (64, 1000, 20_000),  # which 64 rows are through with after 313 steps each
    (8, 300, 400),
    (1, 700, 300),  # longer than two periods
  ],
)
def test_no_checkpoint_cuts_an_episode(rows, length, period, tmp_path):
  fleet = Fleet(length)
  train(
    ACTING,
    fleet,
    tmp_path / 'run',
    envs_per_actor=rows,
    max_env_steps=int(2.5 * rows * length) if rows < 64 else 66_000,
    eval_period=10**9,
    checkpoint_period_steps=period,
    checkpoint_period_s=0.1,
  )
  whole = [e for e in fleet.acted() if e[0] == length]
  cut = [e for e in fleet.acted() if 0 < e[0] < length]
  evaluated = 1
  assert len(whole) == (rows if rows == 64 else 2 * rows) + evaluated
  assert len(cut) == rows  # those under way at the end of the run
  assert all(0.1 < reward < 0.9 for _, reward in whole)
  rows_logged = metrics.read_metrics(tmp_path / 'run' / metrics.METRICS_FILE)
  lengths = {r['episode_length'] for r in rows_logged if 'episode_length' in r}
  assert lengths <= {length}
  assert (tmp_path / 'run' / 'checkpoints').exists()


def test_learner_steps_may_decide_evaluations_and_the_end(tmp_path):
  settings = {
    'clock': 'learner_steps',
    'max_env_steps': None,
    'eval_period': 20,
    'max_eval_share': 1.0,
  }
  # A learner step for two of the environment.
  config = dataclasses.replace(QUICK, samples_per_insert=8.0)
  for most in (50, 95):  # the second resumes the first
    assert not train(
      config,
      environments.catch,
      tmp_path / 'run',
      max_learner_steps=most,
      **settings,
    )
    summary = run_directory.RunDirectory(tmp_path / 'run').read_summary()
    assert summary.stop.detail == f'{most} learner_steps'
    assert summary.counts['learner_steps'] == most
  curve = curves.read_curve(tmp_path / 'run')
  assert curve.clock == 'learner_steps'
  # Looked at every 16 environment steps, and after the last learner step.
  assert [step // 20 * 20 for step in curve.steps] == [20, 40, 40, 60, 80, 80]
  assert (curve.steps[2], curve.steps[-1]) == (50, 95)


def saved_steps(run_dir):
  """Returns the environment steps of the newest checkpoint; 0 of none."""
  directory = run_directory.RunDirectory(run_dir)
  step = directory.last_step()
  return 0 if step is None else directory.read_counts(step)['env_steps']


class Counter:
  """Calls `function` at a step of all environments together."""

  def __init__(self, at, function):
    self.steps = 0
    self._at, self._function = at, function

  def __call__(self):
    self.steps += 1
    if self.steps == self._at:
      self._function()


def test_what_an_endless_episode_taught_is_saved_by_the_clock(tmp_path):
  def fail():
    raise RuntimeError('the simulator is gone')

  for at, saved in ((980, False), (1050, True)):
    run_dir = tmp_path / f'{at}'
    with pytest.raises(RuntimeError, match='the simulator is gone'):
      train(
        QUICK,
        Fleet(10**6, Counter(at, fail)),
        run_dir,
        eval_period=10**9,
        checkpoint_period_steps=500,
        checkpoint_period_s=1e-3,
      )
    assert bool(saved_steps(run_dir)) == saved


def test_a_terminated_run_of_several_environments_saves_the_newest(tmp_path):
  fleet = Fleet(
    10**6, Counter(500, lambda: os.kill(os.getpid(), signal.SIGTERM))
  )
  code = train(
    QUICK, fleet, tmp_path / 'run', envs_per_actor=2, eval_period=10**9
  )
  assert code == 143
  acted = sum(n for n, _ in fleet.acted())
  assert acted >= 490
  assert saved_steps(tmp_path / 'run') == acted


def learnt(run_dir):
  test_exact_resume.CASES['learnt'] = QUICK, launching.CATCH, {}
  return test_exact_resume.learnt('learnt', run_dir)


def assert_same(one, other):
  a, b = learnt(one), learnt(other)
  assert a.steps == b.steps > 0
  for x, y in zip(*map(jax.tree.leaves, (a.state, b.state)), strict=True):
    np.testing.assert_array_equal(x, y)


SEVERAL = {'envs_per_actor': 3, 'max_env_steps': 500, 'eval_period': 200}


def test_the_clock_decides_nothing_of_what_is_learnt(tmp_path, monkeypatch):
  one, other = tmp_path / 'one', tmp_path / 'other'
  train(QUICK, environments.catch, one, **SEVERAL)
  # Reports at other moments, checkpoints between them, other evaluations.
  monkeypatch.setattr(actor, '_REPORT_PERIOD_S', 0.0)
  settings = {'checkpoint_period_s': 0.05, 'max_eval_share': 0.0}
  train(QUICK, environments.catch, other, **SEVERAL, **settings)
  assert_same(one, other)
  assert saved_steps(one) == saved_steps(other) >= 500


def test_two_resumptions_of_one_checkpoint_are_the_same(tmp_path):
  first, again = tmp_path / 'first', tmp_path / 'again'
  train(QUICK, environments.catch, first, **SEVERAL)
  before = learnt(first).steps
  shutil.copytree(first, again)
  for run_dir in (first, again):
    train(
      QUICK,
      environments.catch,
      run_dir,
      **{**SEVERAL, 'max_env_steps': 800},
    )
  assert learnt(first).steps > before
  assert_same(first, again)


class Endless(environments.Catch):
  """Catch that goes on for ever once it is evaluated; `on_step` then."""

  def __init__(self, seed, on_step):
    super().__init__(seed)
    self._on_step = on_step

  def step(self, action):
    self._on_step()
    timestep = super().step(action)
    return timestep._replace(step_type=dm_env.StepType.MID, discount=1.0)


def endless_evaluation(on_step):
  """Returns a function of environments of which those after the third are so."""
  made = []

  def make(seed):
    made.append(seed)  # two are asked for their specs, and one acts
    if len(made) > 3:
      return Endless(seed, on_step)
    return environments.Catch(seed)

  return make


@pytest.mark.parametrize(
  ('number', 'max_env_steps'),
  [(signal.SIGTERM, 10**6), (signal.SIGINT, 10**6), (signal.SIGTERM, 450)],
)
def test_a_signal_ends_an_evaluation_at_once(number, max_env_steps, tmp_path):
  steps = Counter(100, lambda: os.kill(os.getpid(), number))
  code = train(
    QUICK,
    endless_evaluation(steps),
    tmp_path / 'run',
    eval_period=300 if max_env_steps > 450 else 10**6,
    max_env_steps=max_env_steps,
  )
  # What ends of a run that has used up its steps is only its last evaluation.
  assert code == (128 + number if max_env_steps > 450 else 0)
  assert 100 <= steps.steps < 1000


def test_an_evaluation_of_endless_episodes_ends_by_itself(tmp_path, capsys):
  steps = Counter(-1, None)
  code = train(
    QUICK,
    endless_evaluation(steps),
    tmp_path / 'run',
    eval_period=300,
    max_env_steps=450,
    max_eval_share=1,
    max_eval_episode_steps=50,
  )
  assert code == 0
  assert steps.steps == 2 * 50
  rows = metrics.read_metrics(tmp_path / 'run' / metrics.METRICS_FILE)
  cut = [r['episodes_cut_off'] for r in rows if 'episodes_cut_off' in r]
  assert cut == [1, 1]
  said = capsys.readouterr().out
  assert (
    'evaluation: 1 episode every 300 environment steps and after the last\n'
    in said
  )


def test_a_second_ctrl_c_ends_a_run_quickly_and_in_order(tmp_path, capsys):
  ended = []

  def interrupt():
    try:
      os.kill(os.getpid(), signal.SIGINT)
      os.kill(os.getpid(), signal.SIGINT)
    finally:
      ended.append(True)

  steps = Counter(500, interrupt)
  code = train(QUICK, Fleet(10**6, steps), tmp_path / 'run', eval_period=10**9)
  assert code == 130
  assert (steps.steps, ended) == (500, [True])
  directory = run_directory.RunDirectory(tmp_path / 'run')
  assert directory.read_summary().stop.reason == 'interrupted'
  assert directory.read_running() is None
  said = capsys.readouterr().out
  assert said.count('ended: interrupted after') == 1


def test_another_sigterm_changes_nothing(tmp_path):
  def terminate():
    for _ in range(3):
      os.kill(os.getpid(), signal.SIGTERM)

  code = train(
    QUICK,
    Fleet(10**6, Counter(500, terminate)),
    tmp_path / 'run',
    envs_per_actor=2,
    eval_period=10**9,
  )
  assert code == 143
  assert saved_steps(tmp_path / 'run') >= 490


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_run_is_put_together_ends_it(number, tmp_path, capsys):
  made = []

  def make(seed):
    made.append(seed)
    if len(made) == 3:  # after those that are asked for their specs
      os.kill(os.getpid(), number)
    return environments.Catch(seed)

  assert train(QUICK, make, tmp_path / 'run') == 128 + number
  assert len(made) == 3
  directory = run_directory.RunDirectory(tmp_path / 'run')
  assert directory.read_summary().stop.reason == (
    'interrupted' if number == signal.SIGINT else 'terminated'
  )
  assert capsys.readouterr().out.count('ended:') == 1


@pytest.mark.filterwarnings('ignore:invalid value encountered in multiply')
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('exponent', [0.6, 0.0])
def test_rewards_that_are_no_number_end_a_run_in_a_sentence(
  tmp_path, capsys, value, exponent
):
  code = train(
    dataclasses.replace(QUICK, priority_exponent=exponent),
    lambda seed: broken_environments.NotANumber(seed, value),
    tmp_path / 'run',
  )
  assert code == 1
  said = ''.join(capsys.readouterr())
  assert 'Traceback' not in said
  sentence = 'priorities must be finite' if exponent else ' after learner step '
  assert said.count(sentence) == 1

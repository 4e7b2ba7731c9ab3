"""Environments that end Python, start threads, reuse arrays, or change their spec."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

import distacme
from distacme import row_layout
from distacme import specs
from distacme.agents import dqn
from distacme.programs import training
from distacme.programs.launchers import one_process
from distacme.programs.view import plotting
from distacme.run import run_directory
from distacme.testing import environments
from tests.programs import broken_environments
from tests.programs import launching

# Acts, and never learns: nothing of learning is compiled.
ACTING = dqn.Config(
  hidden_sizes=(8,),
  min_replay_size=10**6,
  max_replay_size=10**6,
  batch_size=16,
)
SMALL = (
  *('--hidden-sizes', '8', '--min-replay-size', '100', '--num-actors', '1'),
  *('--max-env-steps', '1500', '--eval-period', '1000'),
  *('--max-restarts', '1'),
)


@pytest.fixture(name='train')
def fixture_train(tmp_path, monkeypatch):
  """Returns a function that runs in one process; gives code and summary."""
  monkeypatch.setattr(plotting, 'draw_if_possible', lambda run_dir: None)

  def train(env, **settings):
    settings = {'mode': 'local', 'eval_episodes': 1, **settings}
    path = tmp_path / 'run'
    run = training.train(ACTING, env=env, run_dir=path, **settings)
    return run.exit_code, run_directory.RunDirectory(path).read_summary()

  return train


def test_an_environment_that_exits_ends_the_run_as_a_failure(train, tmp_path):
  with pytest.raises(RuntimeError, match=r'called sys\.exit\(0\)'):
    train(broken_environments.exiting)
  summary = run_directory.RunDirectory(tmp_path / 'run').read_summary()
  assert summary.stop.reason == 'failed'
  assert 'SystemExit: 0' in summary.stop.detail


def test_an_interrupt_that_nobody_took_is_no_end_without_a_reason(
  train, tmp_path
):
  def interrupted():
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    train(lambda seed: broken_environments.Ending(seed, interrupted))
  summary = run_directory.RunDirectory(tmp_path / 'run').read_summary()
  assert summary.stop.reason == 'interrupted'


class Counted(environments.Catch):
  """Counts those that were not closed."""

  still_open = 0

  def __init__(self, seed):
    super().__init__(seed)
    Counted.still_open += 1

  def close(self):
    Counted.still_open -= 1


def test_a_run_in_one_process_closes_its_environments(train):
  code, _ = train(Counted, max_env_steps=30)
  assert code == 0
  assert Counted.still_open == 0


class Stuck(environments.Catch):
  """Cannot be closed."""

  def close(self):
    raise OSError('the window is stuck')


def test_an_environment_that_cannot_be_closed_fails_no_run(caplog):
  one_process._close_environment(Stuck(0))
  assert 'an environment could not be closed' in caplog.text
  assert 'the window is stuck' in caplog.text


_COMMAND = f"""
import sys
sys.path.append({str(pathlib.Path(__file__).parents[2])!r})
from distacme.programs import cli
from distacme.programs import start
from distacme.runtime import ending
from tests.programs import broken_environments
def fail(arguments):
  raise RuntimeError('a failure')
if __name__ == '__main__':
  if sys.argv[1:]:
    cli.main = fail
  ending._LAST_S = 0.1
  broken_environments.busy_for_ever(0)
  start.main(['--version'])
"""


@pytest.mark.parametrize('fails', [False, True])
def test_a_command_does_not_wait_for_what_an_environment_left_running(fails):
  command = [sys.executable, '-c', _COMMAND, *['fail'] * fails]
  done = subprocess.run(command, capture_output=True, text=True, timeout=60)
  assert done.returncode == int(fails)
  assert ('RuntimeError: a failure' in done.stderr) == fails
  assert 'the command is done, and still had busy process, busy thread' in (
    done.stderr
  )


def test_an_array_that_an_environment_reuses_is_copied():
  held = []
  for make in (environments.catch, broken_environments.reusing):
    environment = make(0)
    spec = specs.make_environment_spec(environment)
    agent = dqn.make_agent(ACTING, spec)
    loop = distacme.EnvironmentLoop(environment, agent)
    loop.run(num_steps=40)
    layout = row_layout.row_layout(agent, spec, loop.params.newest().params)
    (table,) = loop.replay._memory.held().tables.values()
    held.append(table.arrays['items'].view(layout.dtype))
  wanted, got = held
  for name in ('observation', 'action', 'reward', 'next_observation'):
    np.testing.assert_array_equal(wanted[name], got[name])
  observed = wanted['observation'].reshape(-1, 50)
  assert len(np.unique(observed, axis=0)) > 10


def test_a_spec_that_changes_after_the_first_episode_is_named(train):
  with pytest.raises(ValueError, match=r'observation must be .*\(10, 5\), got'):
    train(broken_environments.growing)


@pytest.mark.chaos
@pytest.mark.parametrize(
  ('name', 'how', 'where'),
  [
    ('crashing', 'ended with signal 11', 'in <lambda>'),
    ('exiting', 'ended with exit code 1', 'SystemExit: 0'),
    ('vanishing', 'ended although the run goes on', ''),
    ('growing', 'ended with exit code 1', 'observation must be'),
  ],
)
def test_an_actor_whose_environment_ends_it_ends_the_run(
  name, how, where, tmp_path
):
  env = f'broken_environments:{name}'
  with launching.Run(tmp_path / 'run', *SMALL, env=env) as run:
    code, _ = run.wait()
    assert code == 1, run.output
    assert 'actor/0 on' in run.output
    assert how in run.output
    assert not run.left_after(1)
  assert where in (run.run_dir / 'logs' / 'actor' / '0').read_text()
  assert run.summary.restarts == {'actor/0': [how]}


@pytest.mark.chaos
@pytest.mark.parametrize('mode', ['local', 'threads', 'processes'])
@pytest.mark.parametrize(
  'name', ['forking', 'busy', 'busy_for_ever', 'chatty', 'reusing']
)
def test_other_odd_environments_hold_nothing_up(name, mode, tmp_path):
  env = f'broken_environments:{name}'
  with launching.Run(tmp_path / 'run', *SMALL, env=env, mode=mode) as run:
    code, _ = run.wait()
    assert code == 0, run.output
    if mode == 'processes':  # elsewhere what they forked may live on
      assert not run.left_after(1)
  assert run.summary.counts['env_steps'] >= 1500
  assert not run.summary.failures


@pytest.mark.chaos
def test_a_crash_in_one_process_says_where(tmp_path):
  env = 'broken_environments:crashing'
  with launching.Run(tmp_path / 'run', *SMALL, env=env, mode='local') as run:
    code, _ = run.wait()
  assert code == -11
  assert 'Fatal Python error: Segmentation fault' in run.output
  assert 'broken_environments.py' in run.output

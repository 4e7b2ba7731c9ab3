"""`distacme.train` from a program or a notebook, which go on afterwards."""

import logging
import os
import subprocess
import sys
import threading

import haiku as hk
import jax
import numpy as np
import pytest

import distacme
from distacme.agents import dqn
from distacme.programs import run_config
from distacme.programs.launchers import this_host
from distacme.programs.workers import devices
from distacme.testing import environments
from tests import feeding
from tests.programs import launching

CONFIG = dqn.Config(hidden_sizes=(8,), min_replay_size=50, batch_size=8)
SETTINGS = {'mode': 'local', 'max_env_steps': 300, 'eval_period': 100}
SETTINGS |= {'eval_episodes': 2, 'max_eval_share': 1.0}


def train(tmp_path, env=launching.CATCH, **settings):
  return distacme.train(
    CONFIG, env=env, run_dir=tmp_path / 'run', **{**SETTINGS, **settings}
  )


def test_a_run_has_a_curve_a_policy_a_directory_and_an_exit_code(tmp_path):
  run = train(tmp_path)
  assert run.exit_code == 0
  assert (run.directory / 'config.json').exists()
  curve = run.curve()
  assert len(curve[0]) == len(curve[1]) >= 3
  observation = environments.Catch(seed=0).reset().observation
  assert run.policy()(observation) in (0, 1, 2)
  assert run.policy(best=False).version >= run.policy().version


def test_the_policy_of_a_function_environment_needs_no_function_again(tmp_path):
  run = train(tmp_path, env=environments.catch)
  observation = environments.Catch(seed=0).reset().observation
  assert run.policy()(observation) in (0, 1, 2)


def test_a_run_leaves_jax_and_logging_as_they_were(tmp_path):
  handlers = logging.getLogger().handlers[:]
  settings = dict(jax.config.values)
  train(tmp_path, jit=False, max_env_steps=20)
  assert dict(jax.config.values) == settings
  assert logging.getLogger().handlers == handlers


def test_a_failure_raises_in_the_program_of_the_caller(tmp_path):
  def broken(seed):
    environment = environments.Catch(seed)
    environment.step = None
    return environment

  with pytest.raises(TypeError):
    train(tmp_path, env=broken)


class Closed(environments.Catch):
  """Notes that it is closed; fails after some steps if it is to."""

  def __init__(self, seed, still_open, fails):
    super().__init__(seed)
    still_open.append(self)
    self._open, self._fails = still_open, fails
    self._steps = 0

  def step(self, action):
    self._steps += 1
    if self._fails and self._steps > 500:
      raise RuntimeError('the simulator is gone')
    return super().step(action)

  def close(self):
    self._open.remove(self)


@pytest.mark.program
@pytest.mark.parametrize('fails', [True, False])
def test_threads_of_a_run_leave_nothing_open(
  tmp_path, monkeypatch, caplog, fails
):
  # It warns of a function of Python's that is to go.
  monkeypatch.setattr(this_host, 'find_launchpad', lambda: None)
  still_open = []
  before = set(threading.enumerate())
  run = train(
    tmp_path,
    env=lambda seed: Closed(seed, still_open, fails),
    mode='threads',
    num_actors=1,
    max_env_steps=100_000 if fails else 300,
    replay_transport='grpc',
  )
  assert run.exit_code == fails
  assert not still_open
  assert 'could not close' not in caplog.text
  feeding.wait_for(
    lambda: (
      not {'prefetch', 'packs to replay', 'replay learner', 'replay draws'}
      & {t.name for t in set(threading.enumerate()) - before}
    )
  )


def test_the_cpu_is_used_alone_and_jax_forgets_it():
  code = (
    'import jax\n'
    'from jax._src import xla_bridge\n'
    'from distacme.programs.workers import devices\n'
    'with devices.on_the_cpu():\n'
    '  assert jax.config.jax_platforms == "cpu"\n'
    '  jax.numpy.ones(3).sum()\n'
    'assert not xla_bridge.backends_are_initialized()\n'
    'assert jax.config.jax_platforms is None\n'
    'assert jax.numpy.ones(3).sum() == 3\n'
  )
  environment = {k: v for k, v in os.environ.items() if k != 'JAX_PLATFORMS'}
  done = subprocess.run(
    [sys.executable, '-c', code],
    env=environment,
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == 0, done.stderr


def test_arrays_of_the_caller_survive_what_is_done_on_the_cpu():
  before = jax.numpy.arange(3)
  with devices.on_the_cpu():
    jax.numpy.ones(3).sum()
  np.testing.assert_array_equal(before + 1, [1, 2, 3])


def test_every_count_of_a_run_may_be_a_whole_float():
  run = run_config.RunConfig(max_env_steps=1e6, seed=3.0, publish_period=None)
  assert (run.max_env_steps, run.seed) == (1_000_000, 3)
  assert type(run.limits.max_env_steps) is type(run.seed) is int
  with pytest.raises(ValueError, match='eval_period must be a whole number'):
    run_config.RunConfig(eval_period=0.5)


def network(observation):
  return hk.nets.MLP([3])(hk.Flatten()(observation))


def test_a_network_may_be_given_by_its_name_and_the_directory_left_open(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  run = distacme.train(
    CONFIG,
    env=launching.CATCH,
    network=f'{__name__}:network',
    run_dir=None,
    **SETTINGS,
  )
  assert run.directory.parent == tmp_path / 'runs'
  assert run.policy()(environments.catch(0).reset().observation) in range(3)

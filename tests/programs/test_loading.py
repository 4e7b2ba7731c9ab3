"""What a run has learnt acts without the run."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest

import distacme
from distacme.agents import ppo
from distacme.programs import checks
from distacme.programs import experiment as experiment_lib
from distacme.programs import loading
from distacme.programs import run_config
from distacme.programs import training
from distacme.run import run_directory
from distacme.testing import environments
from tests.programs import launching


@pytest.fixture(name='copy')
def fixture_copy(run_dir, tmp_path):
  return shutil.copytree(run_dir, tmp_path / 'copy')


def change_config(run_dir, part, **changes):
  path = run_dir / 'config.json'
  config = json.loads(path.read_text())
  config[part].update(changes)
  path.write_text(json.dumps(config))


def returns(policy, episodes):
  environment = environments.catch(1)
  found = []
  for _ in range(episodes):
    timestep = environment.reset()
    policy.reset()
    while not timestep.last():
      timestep = environment.step(policy(timestep.observation))
    found.append(timestep.reward)
  return found


@pytest.mark.parametrize('best', [True, False])
def test_a_loaded_policy_catches(run_dir, best):
  policy = distacme.load_policy(run_dir, best)
  assert np.mean(returns(policy, 20)) >= 0.8
  assert policy.version > 0


def test_an_action_is_unbatched_numpy_and_greedy(run_dir):
  policy = distacme.load_policy(run_dir)
  observation = environments.catch(0).reset().observation
  actions = [policy(observation.astype(np.float64)) for _ in range(5)]
  assert len(set(map(int, actions))) == 1
  assert np.shape(actions[0]) == ()
  assert isinstance(actions[0], np.integer)


def test_without_an_evaluation_the_newest_checkpoint_acts(copy):
  shutil.rmtree(copy / 'best')
  newest = max(int(path.name) for path in (copy / 'checkpoints').glob('[0-9]*'))
  assert distacme.load_policy(copy).version == newest
  assert not (copy / 'best').exists()


def test_an_observation_of_another_shape_is_refused(run_dir):
  policy = distacme.load_policy(run_dir)
  with pytest.raises(ValueError, match=r'\(1, 10, 5\)\. Give one observation'):
    policy(np.zeros((1, 10, 5)))


def test_a_directory_that_is_no_run_is_refused(tmp_path):
  with pytest.raises(ValueError, match='is no run directory: it has no config'):
    distacme.load_policy(tmp_path)


def test_a_torn_config_is_refused(copy):
  (copy / 'config.json').write_text('{')
  with pytest.raises(ValueError, match='not readable as JSON'):
    distacme.load_policy(copy)


def test_the_config_of_something_else_is_refused(copy):
  (copy / 'config.json').write_text('{"run": {}}')
  with pytest.raises(ValueError, match='it lacks run or agent'):
    distacme.load_policy(copy)


def test_loading_changes_nothing_in_the_run_directory(copy):
  def state():
    return {p: p.stat().st_mtime_ns for p in copy.rglob('*')}

  before = state()
  distacme.load_policy(copy)
  distacme.load_policy(copy, best=False)
  assert state() == before


def test_a_run_without_params_is_refused(copy):
  shutil.rmtree(copy / 'best')
  shutil.rmtree(copy / 'checkpoints')
  with pytest.raises(ValueError, match='no params yet: neither best/ nor'):
    distacme.load_policy(copy)


def test_a_setting_that_the_agent_does_not_know_is_named(copy):
  change_config(copy, 'agent', momentum=0.9)
  with pytest.raises(ValueError, match='has momentum, which .*Config has not'):
    distacme.load_policy(copy)


def test_params_of_another_network_are_refused(copy):
  change_config(copy, 'agent', hidden_sizes=[32])
  with pytest.raises(ValueError, match='is of another agent, network or env'):
    distacme.load_policy(copy)


def test_what_can_be_imported_is_and_what_cannot_is_asked_for(tmp_path):
  import haiku as hk

  from distacme.agents import dqn

  def network(observation):
    return hk.nets.MLP([3])(hk.Flatten()(observation))

  settings = dict(mode='local', max_env_steps=300, eval_period=200)
  config = dqn.Config(min_replay_size=100)
  size = 1
  run = training.train(
    config,
    env=lambda seed: environments.catch(seed * size),
    network=network,
    run_dir=tmp_path / 'run',
    **settings,
  )
  assert run.exit_code == 0
  with pytest.raises(ValueError, match="env of .* was a function.*'<lambda>'"):
    distacme.load_policy(tmp_path / 'run')
  with pytest.raises(ValueError, match="network of .* 'network'.*network=..."):
    distacme.load_policy(tmp_path / 'run', env=launching.CATCH)
  policy = distacme.load_policy(
    tmp_path / 'run', env=environments.catch, network=network
  )
  assert len(returns(policy, 1)) == 1
  imported = {'name': 'elsewhere', 'import_path': f'{launching.CATCH}'}
  change_config(tmp_path / 'run', 'functions', env=imported | {'source': ''})
  policy = distacme.load_policy(tmp_path / 'run', network=network)
  assert len(returns(policy, 1)) == 1
  with pytest.raises(ValueError, match='names env=.*no part of distacme'):
    change_config(
      tmp_path / 'run', 'functions', env=imported | {'import_path': 'a:b'}
    )
    distacme.load_policy(tmp_path / 'run', network=network)
  missing = imported | {'import_path': 'not_here:make'}
  change_config(tmp_path / 'run', 'functions', env=missing)
  with pytest.raises(ValueError, match='not_here:make.*on PYTHONPATH'):
    distacme.load_policy(tmp_path / 'run', network=network, trust_run_dir=True)


def test_loading_needs_no_library_of_programs(run_dir):
  code = (
    'import distacme, sys\n'
    f'distacme.load_policy({str(run_dir)!r})\n'
    "unwanted = {'grpc', 'launchpad', 'reverb', 'tensorflow', 'rlax'}\n"
    'assert not unwanted & set(sys.modules), unwanted & set(sys.modules)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, timeout=60
  )
  assert done.returncode == 0, done.stderr


def test_infinite_settings_are_read_back_and_resumed_with(tmp_path):
  directory = run_directory.RunDirectory(tmp_path / 'run')
  directory.create()
  experiment = experiment_lib.Experiment(
    run_config.RunConfig('ppo', seed=2**70),
    ppo.Config(max_abs_reward=math.inf),
  )
  directory.begin(experiment.as_dict())
  (directory.checkpoints / '7').mkdir(parents=True)
  checks.check_resumable(experiment, directory)
  read = loading._experiment(directory, {})
  assert read.agent == experiment.agent
  assert read.run.seed == 2**70
  other = dataclasses.replace(experiment, agent=ppo.Config(max_abs_reward=1.0))
  with pytest.raises(ValueError, match='max_abs_reward was inf and is 1.0'):
    checks.check_resumable(other, directory)


def test_a_run_older_than_a_setting_is_resumed_at_its_default(tmp_path):
  directory = run_directory.RunDirectory(tmp_path / 'run')
  directory.create()
  experiment = experiment_lib.Experiment(
    run_config.RunConfig('ppo'), ppo.Config()
  )
  config = experiment.as_dict()
  del config['run']['demonstrations'], config['agent']['max_abs_reward']
  directory.begin(config)
  (directory.checkpoints / '7').mkdir(parents=True)
  checks.check_resumable(experiment, directory)
  other = dataclasses.replace(
    experiment, run=run_config.RunConfig('ppo', demonstrations='my:own')
  )
  with pytest.raises(ValueError, match="demonstrations was '' and is 'my:own'"):
    checks.check_resumable(other, directory)

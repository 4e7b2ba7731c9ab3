"""Trains with Stable-Baselines3 or sbx, for `rivals.py` and `one_core.py`.

    theirs.py LIBRARY CASE SEED SECONDS

Runs in a Python environment of its own, and prints one line of JSON. The same as in
distacme: networks, optimiser and its step sizes, batches, replay sizes, updates for
each environment step, moves of targets, epochs and minibatches, evaluation of 20 greedy
episodes every 2,000 steps. Different: DQN has one environment, one process, uniform
replay, its own exploration schedule and no double Q-learning; SAC's optimisers step
one after the other and its deviations have other limits; PPO learns from whole
rollouts of the newest policy, and its returns and observations are not normalised.
"""

import json
import sys
import time

import ale_py
import gymnasium
from stable_baselines3.common import callbacks
from stable_baselines3.common import env_util
from stable_baselines3.common import vec_env

_UPDATES_BEFORE = 200
_MOST_STEPS = 1_000_000  # exploration falls over a share of them
_CARTPOLE, _CHEETAH = 'CartPole-v1', 'HalfCheetah-v5'
_MLP = {'policy': 'MlpPolicy', 'policy_kwargs': {'net_arch': [256, 256]}}
_CONTINUOUS = dict(
  **_MLP,
  learning_rate=3e-4,
  batch_size=256,
  buffer_size=1_000_000,
  learning_starts=1_000,
  train_freq=1,
  gradient_steps=1,
  tau=0.005,
  gamma=0.99,
)
_DQN = dict(gradient_steps=1, learning_starts=1_000)
_PPO = dict(n_steps=128, batch_size=256, n_epochs=4)
_CASES = {
  'sac': _CONTINUOUS,
  'td3': _CONTINUOUS,
  'ppo_pong': dict(
    **_PPO,
    policy='CnnPolicy',
    learning_rate=2.5e-4,
    clip_range=0.1,
    ent_coef=0.01,
  ),
  'dqn_pong': dict(
    **_DQN,
    policy='CnnPolicy',
    learning_rate=1e-4,
    batch_size=32,
    buffer_size=20_000,
    train_freq=4,
    target_update_interval=1_000,
    exploration_fraction=0.002,  # while it lasts, no policy is called
  ),
  'ppo_cartpole': dict(
    **_PPO,
    policy='MlpPolicy',
    policy_kwargs={'net_arch': [64, 64]},
    learning_rate=1e-3,
  ),
  'dqn_cartpole': dict(
    **_DQN,
    **_MLP,
    learning_rate=1e-3,
    batch_size=64,
    buffer_size=100_000,
    train_freq=2,
    target_update_interval=100,
    exploration_fraction=0.01,
    exploration_final_eps=0.04,
  ),
}


class Speed(callbacks.BaseCallback):
  """Counts environment steps from the start, or updates after the first ones.

  Of an agent that learns from rollouts, the time ends with an update.
  """

  def __init__(self, case, seconds):
    super().__init__()
    self._of_updates = case in ('sac', 'td3')
    self._rollouts = case.startswith('ppo')
    self._seconds = seconds
    self._start = None
    self.result = {}

  def _on_training_start(self):
    if self._rollouts:
      self._start, self._before = time.perf_counter(), 0

  def _on_rollout_start(self):
    if self._rollouts and self.num_timesteps:
      self._ended()

  def _on_step(self):
    if self._rollouts:
      return not self.result
    if self._start is None:
      if self.model._n_updates >= _UPDATES_BEFORE:
        self._start, self._before = time.perf_counter(), self._count()
      return True
    return not self._ended()

  def _ended(self):
    run_s = time.perf_counter() - self._start
    if run_s >= self._seconds and not self.result:
      self.result = {'done': self._count() - self._before, 'run_s': run_s}
    return bool(self.result)

  def _count(self):
    return self.model._n_updates if self._of_updates else self.num_timesteps


class TimeLimit(callbacks.BaseCallback):
  """Ends training after `seconds`."""

  def __init__(self, seconds):
    super().__init__()
    self._until = time.monotonic() + seconds

  def _on_step(self):
    return time.monotonic() < self._until


def solve(model, environments, seed, seconds):
  """Trains until a return of 475; returns environment steps and seconds."""
  evaluation = callbacks.EvalCallback(
    env_util.make_vec_env(_CARTPOLE, n_envs=20, seed=seed + 1_000),
    callback_on_new_best=callbacks.StopTrainingOnRewardThreshold(475),
    n_eval_episodes=20,
    eval_freq=2_000 // environments,
    verbose=0,
  )
  start = time.perf_counter()
  model.learn(_MOST_STEPS, callback=[evaluation, TimeLimit(seconds)])
  return {
    'env_steps': model.num_timesteps,
    'run_s': time.perf_counter() - start,
    'solved': bool(evaluation.best_mean_reward >= 475),
  }


def main(library, case, seed, seconds):
  """Runs a case, and prints what came out."""
  agent, _, of = case.partition('_')
  if library == 'sbx':
    import sbx as algorithms
  else:
    import stable_baselines3 as algorithms
    import torch

    torch.set_num_threads(1)
  environments = 8 if agent == 'ppo' else 1
  if of == 'pong':
    gymnasium.register_envs(ale_py)
    env = env_util.make_atari_env(
      'PongNoFrameskip-v4', n_envs=environments, seed=seed
    )
    env = vec_env.VecFrameStack(env, 4)
  else:
    name = _CARTPOLE if of else _CHEETAH
    env = env_util.make_vec_env(name, n_envs=environments, seed=seed)
  model = getattr(algorithms, agent.upper())(
    env=env, seed=seed, device='cpu', **_CASES[case]
  )
  if of == 'cartpole':
    result = solve(model, environments, seed, seconds)
  else:
    speed = Speed(case, seconds)
    model.learn(_MOST_STEPS, callback=speed)
    result = speed.result
  print(json.dumps(result))


if __name__ == '__main__':
  main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))

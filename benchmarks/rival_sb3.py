"""Trains DQN on CartPole with Stable-Baselines3, for `rivals.py`.

    rival_sb3.py SEED MAX_SECONDS

Runs in a Python environment of its own. The same as in distacme: network,
optimiser and its step size, batch, replay sizes, one update for two environment
steps, target copies, evaluation of 20 greedy episodes every 2,000 steps. Different:
one environment, one process, uniform replay, the exploration schedule, and no double
Q-learning.
"""

import json
import sys
import time

from stable_baselines3 import DQN
from stable_baselines3.common import callbacks
from stable_baselines3.common import env_util


class TimeLimit(callbacks.BaseCallback):
  """Ends training after `seconds`."""

  def __init__(self, seconds):
    super().__init__()
    self._until = time.monotonic() + seconds

  def _on_step(self):
    return time.monotonic() < self._until


def main(seed, max_seconds):
  """Trains, and prints one line of JSON."""
  model = DQN(
    'MlpPolicy',
    env_util.make_vec_env('CartPole-v1', seed=seed),
    seed=seed,
    device='cpu',
    policy_kwargs={'net_arch': [256, 256]},
    learning_rate=1e-3,
    batch_size=64,
    buffer_size=100_000,
    learning_starts=1_000,
    train_freq=2,
    gradient_steps=1,
    target_update_interval=100,
    exploration_fraction=0.05,
    exploration_final_eps=0.04,
  )
  evaluation = callbacks.EvalCallback(
    env_util.make_vec_env('CartPole-v1', n_envs=20, seed=seed + 1_000),
    callback_on_new_best=callbacks.StopTrainingOnRewardThreshold(475),
    n_eval_episodes=20,
    eval_freq=2_000,
    verbose=0,
  )
  start = time.perf_counter()
  model.learn(200_000, callback=[evaluation, TimeLimit(max_seconds)])
  result = {
    'env_steps': model.num_timesteps,
    'run_s': time.perf_counter() - start,
    'solved': bool(evaluation.best_mean_reward >= 475),
  }
  print(json.dumps(result))


if __name__ == '__main__':
  main(int(sys.argv[1]), float(sys.argv[2]))

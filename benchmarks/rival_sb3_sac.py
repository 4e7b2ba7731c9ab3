"""Trains SAC on HalfCheetah with Stable-Baselines3, for `continuous_rivals.py`.

    rival_sb3_sac.py SEED ENV_STEPS EVAL_PERIOD EVAL_EPISODES

Runs in a Python environment of its own, on one thread. The same as in distacme:
networks, optimiser and its step size, batch, replay sizes, an update for every
environment step, target entropy, evaluations. Different: the optimisers step one after
the other, and the policy's deviations have other limits.
"""

import json
import sys
import time

from stable_baselines3 import SAC
from stable_baselines3.common import callbacks
from stable_baselines3.common import env_util
import torch

ENV = 'HalfCheetah-v5'


class Curve(callbacks.EvalCallback):
  """Keeps the mean returns of all evaluations."""

  def __init__(self, *args, **settings):
    super().__init__(*args, **settings)
    self.returns = []

  def _on_step(self):
    goes_on = super()._on_step()
    if self.n_calls % self.eval_freq == 0:
      self.returns.append(float(self.last_mean_reward))
    return goes_on


def main(seed, env_steps, eval_period, eval_episodes):
  """Trains, and prints one line of JSON."""
  torch.set_num_threads(1)
  model = SAC(
    'MlpPolicy',
    env_util.make_vec_env(ENV, seed=seed),
    seed=seed,
    device='cpu',
    policy_kwargs={'net_arch': [256, 256]},
    learning_rate=3e-4,
    batch_size=256,
    buffer_size=1_000_000,
    learning_starts=1_000,
    tau=0.005,
    gamma=0.99,
  )
  curve = Curve(
    env_util.make_vec_env(ENV, n_envs=eval_episodes, seed=seed + 1_000),
    n_eval_episodes=eval_episodes,
    eval_freq=eval_period,
    verbose=0,
  )
  start = time.perf_counter()
  model.learn(env_steps, callback=curve)
  result = {
    'env_steps': model.num_timesteps,
    'run_s': time.perf_counter() - start,
    'returns': curve.returns,
  }
  print(json.dumps(result))


if __name__ == '__main__':
  main(*map(int, sys.argv[1:]))

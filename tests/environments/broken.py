"""Environments that break a promise, and factories of the wrong kind."""

from __future__ import annotations

import dm_env
import numpy as np

from distacme import specs

SPEC = {
  'position': specs.BoundedArray((2,), np.float32, -1.0, 1.0),
  'lamp': specs.DiscreteArray(3),
}


def observation(**changes):
  return {
    'position': np.zeros(2, np.float32),
    'lamp': np.int32(0),
    **changes,
  }


class Broken(dm_env.Environment):
  """Goes through given timesteps, whatever they are."""

  def __init__(self, *timesteps):
    self._timesteps = iter(timesteps)

  def reset(self):
    return next(self._timesteps)

  def step(self, action):
    timestep = next(self._timesteps)
    if isinstance(timestep, Exception):
      raise timestep
    return timestep

  def observation_spec(self):
    return SPEC

  def action_spec(self):
    return specs.DiscreteArray(2)


def not_an_environment(seed):
  return [seed]


def without_a_seed():
  return Broken()


not_a_function = 3

"""Makes the tasks of dm_control's suite (https://arxiv.org/abs/1801.00690).

The observation is one float32 vector: the entries of the task's observation
dict, in its order, each flattened. The name of the observation spec lists
entries and sizes, for cartpole 'position[3], velocity[2]'. Actions, rewards and
discounts are float32. Actions without limits, which only lqr has, get infinite
bounds. The time limit truncates: LAST with discount 1.
"""

from __future__ import annotations

from typing import Any

import dm_env
import numpy as np

from distacme.environments import headless
from distacme.environments import hints
from distacme.environments import wrappers

_UNLIMITED = 1e10  # mujoco.mjMAXVAL, which stands for no limit in dm_control
_HEIGHT, _WIDTH = 240, 320  # pixels
_NEEDS_OPENGL = ('quadruped/escape',)  # to lay out its terrain at every reset


def make(task: str, seed: int, render: bool = False) -> dm_env.Environment:
  """Returns the environment of 'domain/task', for instance 'cartpole/balance'.

  Raises:
    ValueError: if there is no such task, dm_control is not installed, or
      `render` asks for pictures where no library can draw.
  """
  name = f'dm_control:{task}'
  suite = _import_suite(name)
  domain, _, task_name = task.partition('/')
  if (domain, task_name) not in suite.ALL_TASKS:
    known = ['/'.join(pair) for pair in suite.ALL_TASKS]
    raise ValueError(
      f'No environment is called {name!r}. '
      f'{hints.did_you_mean(task, known)}A name is a domain and a task, like '
      f"'dm_control:cartpole/balance'; known: {', '.join(sorted(known))}."
    )
  if task in _NEEDS_OPENGL:
    with headless.failures_explained(name):
      headless.choose_renderer(name)
  environment = suite.load(domain, task_name, task_kwargs={'random': seed})
  layers = [
    wrappers.ConcatObservation,
    UnlimitedActions,
    wrappers.SinglePrecision,
  ]
  if render:
    with headless.failures_explained(name):
      headless.choose_renderer(name)
      environment.physics.render(_HEIGHT, _WIDTH, camera_id=0)
    layers.append(Pictures)
  return wrappers.wrap_all(environment, layers)


class UnlimitedActions(wrappers.Wrapper):
  """Gives unlimited actions infinite bounds, not very large ones."""

  def __init__(self, environment: dm_env.Environment):
    super().__init__(environment)
    low, high = self._action_spec.minimum, self._action_spec.maximum
    self._action_spec = self._action_spec.replace(
      minimum=np.where(low <= -_UNLIMITED, -np.inf, low),
      maximum=np.where(high >= _UNLIMITED, np.inf, high),
    )


class Pictures(wrappers.Wrapper):
  """Renders a task through its first camera."""

  def render(self) -> np.ndarray:
    """Returns uint8 [240, 320, 3]."""
    return self.physics.render(_HEIGHT, _WIDTH, camera_id=0)


def _import_suite(name: str) -> Any:
  try:
    with headless.without_pictures():
      from dm_control import suite
  except ImportError as error:
    raise ValueError(
      f'Environment {name!r} needs dm_control, which cannot be imported '
      f"({error}). Run: pip install 'distacme[envs]', with Python 3.12 or "
      'older; newer ones lack a wheel of labmaze, which dm_control asks for.'
    ) from error
  return suite

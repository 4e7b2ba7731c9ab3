"""Environments that fail, for runs in processes of their own."""

import os
import pathlib
import subprocess
import time

from distacme.testing import environments


class Jammed(environments.Catch):
  """Raises after some steps."""

  steps_left = 300

  def step(self, action):
    self.steps_left -= 1
    if not self.steps_left:
      raise RuntimeError('the door is jammed')
    return super().step(action)


class JammedOnce(environments.Catch):
  """Raises if the file $JAM does not exist yet, and makes it."""

  def step(self, action):
    try:
      pathlib.Path(os.environ['JAM']).touch(exist_ok=False)
    except FileExistsError:
      return super().step(action)
    raise RuntimeError('the door is jammed')


class HungOnce(environments.Catch):
  """Hangs if the file $HANG does not exist yet, and makes it."""

  def step(self, action):
    try:
      pathlib.Path(os.environ['HANG']).touch(exist_ok=False)
    except FileExistsError:
      return super().step(action)
    self.wait_for_what_never_comes()

  def wait_for_what_never_comes(self):
    while True:
      time.sleep(60)


class Slow(environments.Catch):
  """Waits 80 ms in every step and reset, as for a simulator elsewhere."""

  def reset(self):
    time.sleep(0.08)
    return super().reset()

  def step(self, action):
    time.sleep(0.08)
    return super().step(action)


class NotANumber(environments.Catch):
  """Rewards that are no number, long after the first episode."""

  steps_left = 300

  def step(self, action):
    self.steps_left -= 1
    timestep = super().step(action)
    if self.steps_left < 0 and timestep.reward is not None:
      return timestep._replace(reward=float('nan'))
    return timestep


class Helped(environments.Catch):
  """Starts a process that ends with nobody, unless it is closed."""

  def __init__(self, seed):
    super().__init__(seed)
    self._helper = subprocess.Popen(['sleep', '600'], start_new_session=True)

  def close(self):
    self._helper.kill()
    self._helper.wait()


class TooBright(environments.Catch):
  """Observes what its spec rules out, at the end of an episode."""

  def step(self, action):
    timestep = super().step(action)
    if timestep.last():
      timestep.observation[0, 4] = 7.0
    return timestep


def too_bright(seed):
  return TooBright(seed)


def helped(seed):
  return Helped(seed)


def jammed(seed):
  return Jammed(seed)


def not_a_number(seed):
  return NotANumber(seed)


def jammed_once(seed):
  return JammedOnce(seed)


def hung_once(seed):
  return HungOnce(seed)


def slow(seed):
  return Slow(seed)

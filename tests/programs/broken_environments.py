"""Environments that fail, for runs in processes of their own."""

import ctypes
import multiprocessing
import os
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np

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
  """Hangs if the file $HANG exists, and takes it away."""

  def step(self, action):
    try:
      pathlib.Path(os.environ['HANG']).unlink()
    except FileNotFoundError:
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


class Ending(environments.Catch):
  """Ends Python, or the process, after some steps."""

  steps_left = 300

  def __init__(self, seed, end):
    super().__init__(seed)
    self._end = end

  def step(self, action):
    self.steps_left -= 1
    if not self.steps_left:
      self._end()
    return super().step(action)


class Busy(environments.Catch):
  """Starts a thread and a process that do not end by themselves."""

  def __init__(self, seed, closes):
    super().__init__(seed)
    self._closes = closes
    self._over = threading.Event()
    threading.Thread(target=self._over.wait, name='busy thread').start()
    self._forked = multiprocessing.get_context('fork').Process(
      target=time.sleep, args=(600,), name='busy process'
    )
    self._forked.start()

  def close(self):
    if self._closes:
      self._over.set()
      self._forked.kill()
      self._forked.join()


class Chatty(environments.Catch):
  """Prints 2 kB in every step."""

  def step(self, action):
    print('x' * 1000)
    print('y' * 1000, file=sys.stderr)
    return super().step(action)


class Reusing(environments.Catch):
  """Returns the same array at every step, with other numbers in it."""

  def __init__(self, seed):
    super().__init__(seed)
    self._array = np.zeros((10, 5), np.float32)

  def reset(self):
    return self._reused(super().reset())

  def step(self, action):
    return self._reused(super().step(action))

  def _reused(self, timestep):
    self._array[:] = timestep.observation
    return timestep._replace(observation=self._array)


class Growing(environments.Catch):
  """Observes a larger grid than its spec says, after the first episodes."""

  steps_left = 100

  def step(self, action):
    self.steps_left -= 1
    timestep = super().step(action)
    if self.steps_left > 0:
      return timestep
    return timestep._replace(observation=np.zeros((20, 5), np.float32))


class NotANumber(environments.Catch):
  """Rewards that become `value` long after the first episode."""

  steps_left = 300

  def __init__(self, seed, value=float('nan')):
    super().__init__(seed)
    self._value = value

  def step(self, action):
    self.steps_left -= 1
    timestep = super().step(action)
    if self.steps_left < 0 and timestep.reward is not None:
      return timestep._replace(reward=self._value)
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


def crashing(seed):
  return Ending(seed, lambda: ctypes.string_at(0))


def exiting(seed):
  return Ending(seed, lambda: sys.exit(0))


def vanishing(seed):
  return Ending(seed, lambda: os._exit(0))


def forking(seed):
  return Ending(seed, os.fork)


def busy(seed):
  return Busy(seed, closes=True)


def busy_for_ever(seed):
  return Busy(seed, closes=False)


def chatty(seed):
  return Chatty(seed)


def reusing(seed):
  return Reusing(seed)


def growing(seed):
  return Growing(seed)

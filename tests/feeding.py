"""What feeds a learner in tests: batches in order, and waiting for things."""

import threading

import numpy as np

from distacme import types

DEADLINE_S = 10.0


def batch(number, reward=1.0):
  """Returns batch `number`: 4 items with keys of their own."""
  scalar = np.full(4, reward, np.float32)
  data = types.Transition(scalar, scalar, scalar, scalar, scalar)
  info = types.SampleInfo(
    key=np.arange(4, dtype=np.uint64) + 4 * number,
    probability=np.full(4, 0.25),
    params_version=np.zeros(4, np.int64),
    table=np.zeros(4, np.int32),
  )
  return data, info


class ListSampler:
  """Gives batches of the given rewards, then fails as replay would."""

  def __init__(self, *rewards):
    self._rewards = list(rewards)
    self.drawn = 0
    self.priorities = []

  def sample(self):
    if self.drawn == len(self._rewards):
      raise ConnectionError('replay is gone')
    self.drawn += 1
    return batch(self.drawn - 1, self._rewards[self.drawn - 1])

  def update_priorities(self, info, priority):
    self.priorities.append((info.key.tolist(), priority.tolist()))

  def close(self):
    pass


def wait_for(condition):
  deadline = threading.Event()
  timer = threading.Timer(DEADLINE_S, deadline.set)
  timer.start()
  while not condition():
    assert not deadline.is_set(), 'The condition never came true.'
    deadline.wait(0.002)
  timer.cancel()

"""Priorities on their way back: in order, together, and never for ever."""

from concurrent import futures
import threading

import numpy as np
import pytest

from distacme import types
from distacme.learning import learner
from distacme.learning import priorities
from tests import feeding


class Writes:
  """Notes what is written, once `go` is set."""

  def __init__(self):
    self.go = threading.Event()
    self.calls = []

  def __call__(self, info, priority):
    assert self.go.wait(feeding.DEADLINE_S)
    self.calls.append((info.key.tolist(), priority.tolist()))


@pytest.fixture(name='writes')
def fixture_writes():
  made = Writes()
  yield made
  made.go.set()


def add(sender, *numbers):
  for number in numbers:
    one = np.array([number])
    info = types.SampleInfo(one, one, one, one)
    sender.add(info, np.array([number + 0.5], np.float32))


def test_so_many_are_sent_together_and_the_rest_when_asked(writes):
  sender = priorities.PrioritySender(writes, learner.InlineExecutor(), 3)
  writes.go.set()
  add(sender, 0, 1)
  assert not writes.calls
  add(sender, 2, 3)
  assert writes.calls == [([0, 1, 2], [0.5, 1.5, 2.5])]
  sender.send()
  assert writes.calls[1:] == [([3], [3.5])]
  sender.send()
  assert len(writes.calls) == 2


def test_a_slow_replay_makes_it_fall_behind_until_it_answers(writes):
  sender = priorities.PrioritySender(writes, futures.ThreadPoolExecutor(1))
  add(sender, 0, 1)
  assert not sender.behind()
  add(sender, 2, 3)
  assert sender.behind()
  sender.wait(0.01)
  assert sender.behind()
  writes.go.set()
  feeding.wait_for(lambda: len(writes.calls) == 4)
  sender.wait(feeding.DEADLINE_S)
  assert not sender.behind()


def test_what_a_sending_met_reaches_the_learner(writes):
  def fail(info, priority):
    raise ConnectionError('replay is gone')

  sender = priorities.PrioritySender(fail, futures.ThreadPoolExecutor(1))
  with pytest.raises(ConnectionError, match='replay is gone'):
    add(sender, 0)
    sender.wait(feeding.DEADLINE_S)


def test_closing_does_not_wait_for_a_replay_that_never_answers(
  writes, monkeypatch
):
  monkeypatch.setattr(priorities, '_LAST_S', 0.05)
  sender = priorities.PrioritySender(writes, futures.ThreadPoolExecutor(1))
  add(sender, 0, 1)
  sender.close()
  assert not writes.calls

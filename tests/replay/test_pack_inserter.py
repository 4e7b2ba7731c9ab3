"""An actor's way into replay: packs, waiting for the limits, and the stop."""

import re
import threading
import time

import numpy as np
import pytest

from distacme import replay_spec
from distacme.replay import pack_inserter
from tests.replay import backends

# An insert may leave inserts - samples at 4 + 3 and no more.
SPEC = replay_spec.single(
  replay_spec.NStep(1, 0.9),
  batch_size=2,
  max_size=100,
  min_size=4,
  samples_per_insert=1.0,
  error_buffer=3.0,
)
MOST = 7


@pytest.fixture(name='replay', params=backends.ALL[1:])
def fixture_replay(request, layout):
  """Returns the replay of a worker."""
  replay = request.param(SPEC, layout)
  yield replay
  replay.close()


def make(replay, layout, **kwargs):
  return pack_inserter.PackInserter(
    replay.way(),
    SPEC,
    SPEC.tables,
    layout,
    replay._stopped.is_set,
    **kwargs,
  )


@pytest.fixture(name='blocked')
def fixture_blocked(replay, layout, wait_until):
  """Returns an inserter that a thread is blocked in, and the thread."""
  inserter = make(replay, layout, explain_after_s=0.15)
  wait, waits = inserter._way.wait, threading.Event()

  def noting(on_the_way, timeout_s):
    if timeout_s:
      waits.set()
    return wait(on_the_way, timeout_s)

  def insert():
    while not replay._stopped.is_set():
      inserter.insert(np.zeros((4, 1), layout.dtype), np.ones(4))

  inserter._way.wait = noting
  thread = threading.Thread(target=insert, daemon=True)
  thread.start()
  wait_until(lambda: replay.metrics()['inserted'] == MOST)
  waits.clear()
  assert waits.wait(10)
  yield inserter, thread
  replay.stop()
  thread.join(10)
  inserter.close()


def test_a_blocked_actor_goes_on_when_the_learner_samples(blocked, replay):
  time.sleep(0.2)
  assert replay.metrics()['inserted'] == MOST
  for _ in range(30):
    replay.sample()
  assert replay.metrics()['inserted'] > 50


def test_a_blocked_actor_says_who_waits_for_whom(blocked, caplog, wait_until):
  wait_until(lambda: len(caplog.messages) >= 2, timeout_s=10)
  pattern = (
    r'writing to replay has been blocked for \d\.\d s: replay holds in table '
    r"'experience' 7 windows, of 7 inserted, with 0 sampled so far.*"
  )
  assert re.fullmatch(pattern, caplog.messages[0])


def test_a_blocked_actor_notices_the_stop(blocked, replay):
  inserter, thread = blocked
  replay.stop()
  start = time.monotonic()
  thread.join(10)
  inserter.close()
  assert time.monotonic() - start < 3.0
  assert inserter.blocked_s > 0.0


def test_items_are_sent_together_or_when_one_has_waited_long_enough(
  replay, layout, monkeypatch
):
  monkeypatch.setattr(pack_inserter, '_ITEMS', 3)
  monkeypatch.setattr(pack_inserter, '_SEND_AFTER_S', 1e6)
  sent = []
  inserter = make(replay, layout)
  send = inserter._way.send
  monkeypatch.setattr(
    inserter._way, 'send', lambda pack: (sent.append(pack), send(pack))
  )
  counts = []
  for number in range(6):
    if number == 4:
      inserter._send_at = 0.0
    inserter.insert(np.zeros((1, 1), layout.dtype), np.ones(1))
    counts.append(len(sent))
  assert counts == [0, 0, 1, 1, 2, 2]
  inserter.close()
  replay.settle(6)
  assert replay.metrics()['inserted'] == 6


def test_closing_waits_until_all_is_inserted(replay, layout):
  inserter = make(replay, layout)
  inserter.insert(np.zeros((MOST, 1), layout.dtype), np.ones(MOST))
  inserter.close()
  replay.settle(MOST)
  assert replay.metrics()['inserted'] == MOST
  inserter.close()  # Once more does no harm.


def test_an_item_that_is_too_large_is_refused_at_the_start(
  replay, layout, monkeypatch
):
  monkeypatch.setattr('distacme.replay.packs.MAX_BYTES', layout.itemsize - 1)
  with pytest.raises(ValueError, match='too large for replay, which takes'):
    make(replay, layout)


def test_what_comes_at_once_is_sent_in_packs_of_bounded_size(
  layout, monkeypatch
):
  monkeypatch.setattr(pack_inserter, '_BYTES', 4 * layout.itemsize)
  monkeypatch.setattr('distacme.replay.packs.MAX_BYTES', 1000)
  spec = replay_spec.queue(replay_spec.NStep(1, 0.9), batch_size=2, max_size=50)
  replay = backends.Worker(spec, layout)
  inserter = replay.inserter()
  sent = []
  send = inserter._way.send
  monkeypatch.setattr(
    inserter._way, 'send', lambda pack: (sent.append(len(pack)), send(pack))
  )
  inserter.insert(np.zeros((50, 1), layout.dtype), np.ones(50))
  assert len(sent) == 13 and max(sent) < 1000
  assert replay.metrics()['inserted'] == 50
  replay.close()

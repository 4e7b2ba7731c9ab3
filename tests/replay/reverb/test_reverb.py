"""Reverb as a queue of packs: when it is blocked, gone, late or asked to stop."""

import dataclasses
import importlib.util
import logging
import re
import subprocess
import sys
import threading
import time

import numpy as np
import portpicker
import pytest

from distacme import replay_spec
from distacme.replay import packs
from distacme.replay import store as store_lib
from distacme.replay.reverb import connection
from distacme.replay.reverb import queue as queue_lib
from distacme.replay.reverb import way as way_lib

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec('reverb') is None, reason='Reverb is not installed.'
)

SPEC = replay_spec.single(
  replay_spec.NStep(1, 0.9),
  batch_size=2,
  max_size=100_000,
  min_size=1,
  samples_per_insert=None,
)
# No item goes in after the first.
FULL = replay_spec.queue(replay_spec.NStep(1, 0.9), batch_size=1, max_size=1)


def pack_of(count, size=8):
  items = np.arange(count * size, dtype=np.uint32).astype(np.uint8)
  return packs.encode(
    packs.Pack((0,), items.reshape(count, size), np.ones(count), None)
  )


@pytest.fixture(name='serve')
def fixture_serve():
  """Returns a function that starts a queue: its store and address."""
  made = []

  def serve(spec=SPEC):
    port = portpicker.pick_unused_port()
    store = store_lib.Store(spec)
    made.append(queue_lib.PackQueue(store, port))
    return store, f'127.0.0.1:{port}'

  serve.made = made
  yield serve
  for queue in made:
    queue.stop()


@pytest.fixture(name='nowhere')
def fixture_nowhere():
  """Returns an address at which nobody listens."""
  return f'127.0.0.1:{portpicker.pick_unused_port()}'


def open_way(address, stopped=lambda: False):
  return way_lib.ReverbWay(address, stopped, lambda: 'Described.')


@pytest.mark.parametrize('size', [8, 900, 20_000, 3_000_000])
def test_packs_of_any_length_arrive_whole(serve, size, wait_until):
  (table,) = SPEC.tables
  table = dataclasses.replace(table, max_size=100)
  store, address = serve(dataclasses.replace(SPEC, tables=(table,)))
  way = open_way(address)
  for _ in range(3):
    way.send(pack_of(2, size))
  assert way.wait(0, 10.0)
  wait_until(lambda: store.metrics()['inserted'] == 6)
  way.close()
  drawn = store.draw(1.0)
  whole = np.arange(2 * size, dtype=np.uint32).astype(np.uint8).reshape(2, size)
  for item in drawn.items:
    assert (item == whole).all(axis=1).any()


def test_what_is_no_pack_is_said_once_and_left_out(serve, wait_until, caplog):
  store, address = serve()
  way = open_way(address)
  way.send(b'no pack')
  way.send(pack_of(3))
  assert way.wait(0, 10.0)
  wait_until(lambda: store.metrics()['inserted'] == 3)
  assert (
    'replay refused packs of actors, 1 so far: No pack of items' in caplog.text
  )
  way.close()


def test_nobody_at_the_address_is_an_error_that_says_so(nowhere):
  message = (
    f'no replay server answered at {nowhere} within 1 s .* Look at the log '
    'of the replay worker'
  )
  with pytest.raises(ConnectionError, match=message):
    connection.connect(nowhere, timeout_s=1.0)


def test_whoever_waits_for_a_server_says_for_whom_ever_more_rarely(
  nowhere, caplog
):
  waiting = threading.Thread(
    target=connection.connect,
    args=(nowhere, lambda: len(caplog.messages) == 2),
    kwargs={'explain_after_s': 0.5},
  )
  with caplog.at_level(logging.WARNING):
    waiting.start()
    waiting.join(10)
  assert not waiting.is_alive()
  pattern = (
    f'the replay server at {nowhere} has not answered for (.*) s, in [2-9] '
    r'tries \(.*refused\). It may be loading a checkpoint: its log says whether '
    'it is alive.'
  )
  first, second = (
    float(re.fullmatch(pattern, message)[1]) for message in caplog.messages
  )
  assert first >= 0.5 and second >= 2.0  # and not again and again


def test_a_run_that_is_over_is_not_held_up_by_a_server_that_is_gone(nowhere):
  start = time.monotonic()
  way = open_way(nowhere, lambda: True)
  way.send(pack_of(10))
  assert not way.wait(0, 0.1)
  way.close()
  assert time.monotonic() - start < 5.0


_SERVE = """
import sys, threading
from distacme.replay import store
from distacme.replay.reverb import queue
from tests.replay.reverb import test_reverb as test
queue = queue.PackQueue(store.Store(test.SPEC), int(sys.argv[1]))
print('ready', flush=True)
threading.Event().wait()
"""


@pytest.fixture(name='start_process')
def fixture_start_process():
  """Returns a function that starts a server process at an address."""
  started = []

  def start(address):
    process = subprocess.Popen(
      [sys.executable, '-c', _SERVE, address.rpartition(':')[2]],
      stdout=subprocess.PIPE,
    )
    started.append(process)
    assert process.stdout.readline() == b'ready\n'
    return process

  yield start
  for process in started:
    process.kill()
    process.communicate()


def test_a_way_says_how_often_it_tried_a_restarted_server(
  nowhere, start_process, wait_until, caplog
):
  process = start_process(nowhere)
  way = open_way(nowhere)
  way.send(pack_of(1))
  assert way.wait(0, 10.0)
  process.kill()
  process.wait()
  way.send(pack_of(1))
  while way._in_vain < 2:
    assert not way.wait(0, 0.05)
  assert way.describe() == (
    f'Described. Its server was tried {way._in_vain} times in vain; it is tried '
    'again.'
  )
  start_process(nowhere)
  wait_until(lambda: way.wait(0, 0.05), timeout_s=30)
  pattern = (
    f'writing to replay goes on: the server at {nowhere} was tried (\\d+) times '
    'in vain.'
  )
  (message,) = [m for m in caplog.messages if ' goes on: ' in m]
  assert int(re.fullmatch(pattern, message)[1]) > 1
  way.close()


_DESTROY_WHILE_BLOCKED = """
import gc, sys, threading, time
from tests.replay.reverb import test_reverb as test
way = test.open_way(sys.argv[1])
for _ in range(20):
  way.send(test.pack_of(4))
assert not way.wait(0, 0.2)

longest = 0.0
def tick():
  global longest
  last = time.monotonic()
  while True:
    time.sleep(0.001)
    now = time.monotonic()
    longest, last = max(longest, now - last), now
threading.Thread(target=tick, daemon=True).start()

if sys.argv[2] == 'close':
  way.close()
del way
gc.collect()
print('longest', longest, flush=True)
"""


@pytest.mark.parametrize('how', ['close', 'destroy'])
def test_a_blocked_way_ends_without_holding_the_lock(serve, how):
  """Run in another process, since to fail is to hang."""
  _, address = serve(FULL)
  process = subprocess.run(
    [sys.executable, '-c', _DESTROY_WHILE_BLOCKED, address, how],
    capture_output=True,
    text=True,
    timeout=20,
  )
  assert process.returncode == 0, process.stderr
  assert float(process.stdout.split()[1]) < 0.3


@pytest.mark.parametrize('spec', [SPEC, FULL])
def test_a_queue_ends_with_its_thread(spec, wait_until):
  before = threading.active_count()
  store = store_lib.Store(spec)
  port = portpicker.pick_unused_port()
  queue = queue_lib.PackQueue(store, port)
  way = open_way(f'127.0.0.1:{port}')
  for _ in range(4):
    way.send(pack_of(2))
  wait_until(lambda: store.metrics()['inserted'] >= 1)
  way.close()
  start = time.monotonic()
  queue.stop()
  assert time.monotonic() - start < 5.0
  wait_until(lambda: threading.active_count() <= before)


def test_what_ends_the_thread_is_raised(serve, wait_until):
  store, address = serve()  # of too many large items
  way = open_way(address)
  way.send(pack_of(2, 3_000_000))
  (queue,) = serve.made
  wait_until(lambda: queue._error)
  with pytest.raises(MemoryError, match='needs 279.4 GiB .* Lower max_size'):
    queue.check()
  way.close()

"""The Reverb backend when a side is blocked, fails, or finds nobody."""

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
from distacme import specs
from distacme import types
from distacme.replay.items import rows
from distacme.replay.reverb import connection
from distacme.replay.reverb import inserter as inserter_lib
from distacme.replay.reverb import sampler as sampler_lib
from distacme.replay.reverb import server as server_lib

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec('reverb') is None, reason='Reverb is not installed.'
)

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


@pytest.fixture
def server():
  """Returns a server of `SPEC` and its address."""
  port = portpicker.pick_unused_port()
  made = server_lib.ReplayServer(SPEC, port)
  yield made, f'localhost:{port}'
  made.stop()


@pytest.fixture
def stopped():
  event = threading.Event()
  yield event
  event.set()


@pytest.fixture
def connect(server, stopped, layout):
  """Returns a function that makes an inserter, closed at the end."""
  made = []

  def connect(**kwargs):
    inserter = inserter_lib.ReverbInserter(
      server[1], SPEC.tables, layout, stopped.is_set, **kwargs
    )
    made.append(inserter)
    return inserter

  yield connect
  stopped.set()
  for inserter in made:
    inserter.close()


@pytest.fixture
def blocked(server, connect, stopped, layout, wait_until):
  """Returns an inserter that a thread is blocked in, and the thread."""
  inserter = connect(explain_after_s=0.15)

  def insert():
    inserter.insert(np.zeros((100, 1), layout.dtype), np.ones(100))

  thread = threading.Thread(target=insert, daemon=True)
  thread.start()
  wait_until(lambda: server[0].metrics()['inserted'] == MOST)
  yield inserter, thread
  stopped.set()
  thread.join(10)


def test_a_blocked_writer_goes_on_when_the_learner_samples(
  blocked, server, layout, wait_until
):
  _, thread = blocked
  thread.join(0.2)
  assert thread.is_alive()
  assert server[0].metrics()['inserted'] == MOST
  sampler = sampler_lib.ReverbSampler(server[1], SPEC, layout)
  while thread.is_alive():
    sampler.sample()
    thread.join(0.001)
  assert server[0].metrics()['inserted'] > 50


def test_blocks_count_as_the_transitions_that_they_hold(
  make_server, stopped, layout, wait_until
):
  server, address = make_server(block_size=2)
  inserter = inserter_lib.ReverbInserter(
    address, SPEC.tables, layout, stopped.is_set
  )

  def insert():
    inserter.insert(np.zeros((100, 2), layout.dtype), np.ones(100))

  thread = threading.Thread(target=insert, daemon=True)
  thread.start()
  wait_until(lambda: server.metrics()['inserted'] >= 6)
  thread.join(0.2)
  assert server.metrics()['inserted'] == 6  # 8 would be one more than `MOST`.
  stopped.set()
  thread.join(10)
  inserter.close()


def test_a_blocked_writer_says_who_waits_for_whom(blocked, caplog, wait_until):
  with caplog.at_level(logging.WARNING):
    wait_until(lambda: len(caplog.messages) >= 2, timeout_s=5)
  pattern = (
    r'writing to replay has been blocked for \d\.\d s: the replay server at '
    r'localhost:\d+ holds 7 items; 7 were inserted and 0 sampled so far, and '
    r'sampling starts at 4\. The actor waits for the learner to sample more\.'
  )
  assert re.fullmatch(pattern, caplog.messages[0])


def test_a_blocked_writer_notices_the_stop(blocked, stopped):
  inserter, thread = blocked
  stopped.set()
  start = time.monotonic()
  thread.join(10)
  assert time.monotonic() - start < 3.0
  assert inserter.blocked_s > 0.05
  start = time.monotonic()
  inserter.close()
  assert time.monotonic() - start < 3.0


def test_items_are_sent_together_or_when_one_has_waited_long_enough(
  server, connect, layout, wait_until, monkeypatch
):
  monkeypatch.setattr(inserter_lib, '_SEND_TOGETHER', 3)
  monkeypatch.setattr(inserter_lib, '_SEND_AFTER_S', 1e6)
  row, inserter = np.zeros((1, 1), layout.dtype), connect()
  created = []
  create_item = inserter._writer.CreateItem

  class Writer:
    Append, Flush = inserter._writer.Append, inserter._writer.Flush

    def CreateItem(self, *item):  # noqa: N802
      created.append(item)
      create_item(*item)

  inserter._writer = Writer()
  counts = []
  for number in range(6):
    if number == 4:  # The last sending was long ago, as before the first.
      inserter._send_at = 0.0
    inserter.insert(row, np.ones(1))
    counts.append(len(created))
  assert counts == [1, 1, 1, 4, 5, 5]
  inserter.flush()
  assert server[0].metrics()['inserted'] == 6


def test_closing_waits_until_all_is_inserted(server, connect, layout):
  inserter = connect()
  inserter.insert(np.zeros((MOST, 1), layout.dtype), np.ones(MOST))
  inserter.close()
  assert server[0].metrics()['inserted'] == MOST
  inserter.close()  # Once more does no harm.


_DESTROY_WHILE_BLOCKED = """
import gc, sys, threading, time
import numpy as np
from distacme.replay.reverb import inserter as inserter_lib
from tests.replay.reverb import test_reverb as test
address, close = sys.argv[1], sys.argv[2] == 'close'
stopped = threading.Event()
inserter = inserter_lib.ReverbInserter(
  address, test.SPEC.tables, test.LAYOUT, stopped.is_set
)
inserter.insert(np.zeros((40, 1), test.LAYOUT.dtype), np.ones(40))

longest = 0.0
def tick():
  global longest
  last = time.monotonic()
  while True:
    time.sleep(0.001)
    now = time.monotonic()
    longest, last = max(longest, now - last), now
threading.Thread(target=tick, daemon=True).start()

if close:
  stopped.set()
  inserter.close()
del inserter
gc.collect()
print('longest', longest, flush=True)
"""

LAYOUT = rows.make_layout(
  replay_spec.NStep(1, 0.9),
  specs.EnvironmentSpec(
    specs.Array((4,), np.float32),
    specs.DiscreteArray(2),
    specs.Array((), np.float32),
    specs.BoundedArray((), np.float32, 0.0, 1.0),
  ),
)


@pytest.mark.parametrize('how', ['close', 'destroy'])
def test_a_blocked_writer_ends_without_holding_the_lock(server, how):
  """Run in another process, since to fail is to hang."""
  process = subprocess.run(
    [sys.executable, '-c', _DESTROY_WHILE_BLOCKED, server[1], how],
    capture_output=True,
    text=True,
    timeout=20,
  )
  assert process.returncode == 0, process.stderr
  assert float(process.stdout.split()[1]) < 0.3


def test_many_rows_at_once_stay_below_what_reverb_complains_of(
  make_server, layout, stopped, capfd
):
  server, address = make_server(error_buffer=1e9)
  inserter = inserter_lib.ReverbInserter(
    address, SPEC.tables, layout, stopped.is_set
  )
  inserter.insert(np.zeros((1000, 1), layout.dtype), np.ones(1000))
  inserter.close()
  assert server.metrics()['inserted'] == 1000
  assert 'alarmingly high' not in capfd.readouterr().err


@pytest.fixture
def make_server():
  """Returns a function that makes servers of other specs."""
  made = []

  def make_server(**changes):
    port = portpicker.pick_unused_port()
    (table,) = SPEC.tables
    table = dataclasses.replace(table, **changes)
    spec = dataclasses.replace(SPEC, tables=(table,))
    made.append(server_lib.ReplayServer(spec, port))
    return made[-1], f'localhost:{port}'

  yield make_server
  for server in made:
    server.stop()


def test_rows_of_another_layout_are_refused(server, connect, layout):
  inserter = connect()
  inserter.insert(np.zeros((MOST, 1), layout.dtype), np.ones(MOST))
  inserter.flush()
  sampler = sampler_lib.ReverbSampler(server[1], SPEC, LAYOUT)
  message = (
    f'replay holds items of {layout.itemsize} bytes, this agent and '
    f'environment need 1 x {LAYOUT.itemsize}'
  )
  with pytest.raises(ValueError, match=message):
    sampler.sample()


def test_a_sampler_describes_what_it_waits_for(server, connect, layout):
  sampler = sampler_lib.ReverbSampler(server[1], SPEC, layout)
  inserter = connect()
  inserter.insert(np.zeros((2, 1), layout.dtype), np.ones(2))
  inserter.close()
  assert sampler.describe() == (
    f'the replay server at {server[1]} holds 2 items; 2 were inserted and 0 '
    'sampled so far, and sampling starts at 4. The learner waits for the actors '
    'to insert more.'
  )
  # A sampler in the server's process that waits takes 3 s to end.
  inserter = connect()
  inserter.insert(np.zeros((4, 1), layout.dtype), np.ones(4))
  inserter.flush()


@pytest.fixture(name='nowhere')
def fixture_nowhere():
  """Returns an address at which nobody listens."""
  return f'localhost:{portpicker.pick_unused_port()}'


def test_nobody_at_the_address_is_an_error_that_says_so(nowhere):
  message = (
    f'no replay server answered at {nowhere} within 1 s .* Look at the log '
    'of the replay worker'
  )
  with pytest.raises(ConnectionError, match=message):
    connection.connect(nowhere, timeout_s=1.0)


def test_whoever_waits_for_a_server_says_for_whom_ever_more_rarely(
  nowhere, caplog, stopped
):
  waiting = threading.Thread(
    target=connection.connect,
    args=(nowhere, lambda: len(caplog.messages) == 2 or stopped.is_set()),
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


def test_a_server_that_comes_late_is_waited_for(nowhere, stopped, layout):
  made = []
  waiting = threading.Thread(
    target=lambda: made.append(
      inserter_lib.ReverbInserter(nowhere, SPEC.tables, layout, stopped.is_set)
    )
  )
  waiting.start()
  waiting.join(0.2)
  assert not made
  server = server_lib.ReplayServer(SPEC, int(nowhere.rpartition(':')[2]))
  waiting.join(10)
  (inserter,) = made
  inserter.insert(np.zeros((1, 1), layout.dtype), np.ones(1))
  inserter.close()
  assert server.metrics()['inserted'] == 1
  server.stop()


def test_a_run_that_is_over_is_not_held_up_by_a_server_that_is_gone(
  nowhere, stopped, layout
):
  stopped.set()
  start = time.monotonic()
  inserter = inserter_lib.ReverbInserter(
    nowhere, SPEC.tables, layout, stopped.is_set
  )
  inserter.insert(np.zeros((100, 1), layout.dtype), np.ones(100))
  inserter.close()
  sampler_lib.ReverbSampler(nowhere, SPEC, layout, stopped.is_set)
  assert time.monotonic() - start < 5.0


def test_a_stop_reaches_those_who_wait_for_a_server(nowhere, stopped, layout):
  waiting = threading.Thread(
    target=sampler_lib.ReverbSampler,
    args=(nowhere, SPEC, layout, stopped.is_set),
  )
  waiting.start()
  waiting.join(0.2)
  assert waiting.is_alive()
  stopped.set()
  waiting.join(2)
  assert not waiting.is_alive()


@pytest.fixture
def start_process():
  """Returns a function that starts a server process at an address."""
  started = []

  def start(address):
    port = address.rpartition(':')[2]
    process = subprocess.Popen(
      [sys.executable, '-c', _SERVE, port], stdout=subprocess.PIPE
    )
    started.append(process)
    assert process.stdout.readline() == b'ready\n'
    return process

  yield start
  for process in started:
    process.kill()
    process.communicate()


_SERVE = """
import sys, threading
from distacme.replay.reverb import server as server_lib
from tests.replay.reverb import test_reverb as test
server = server_lib.ReplayServer(test.SPEC, int(sys.argv[1]))
print('ready', flush=True)
threading.Event().wait()
"""


def test_writers_and_samplers_say_how_often_they_tried_a_restarted_server(
  nowhere, start_process, stopped, wait_until, caplog
):
  process = start_process(nowhere)
  inserter = inserter_lib.ReverbInserter(
    nowhere, SPEC.tables, LAYOUT, stopped.is_set
  )
  sampler = sampler_lib.ReverbSampler(nowhere, SPEC, LAYOUT)
  counts = {'insert': 0, 'sample': 0}

  def insert():
    while not stopped.is_set():
      inserter.insert(np.zeros((1, 1), LAYOUT.dtype), np.ones(1))
      counts['insert'] += 1

  def sample():
    while not stopped.is_set():
      sampler.sample()
      counts['sample'] += 1

  threads = [threading.Thread(target=f, daemon=True) for f in (insert, sample)]
  for thread in threads:
    thread.start()
  wait_until(lambda: min(counts.values()) > 100)
  process.kill()
  process.wait()
  watches = [inserter._watch, sampler._watch]
  with caplog.at_level(logging.WARNING):
    wait_until(lambda: all(watch._in_vain > 1 for watch in watches))
    for watch in watches:
      assert watch.describe().endswith('refused); it is tried again.')
    start_process(nowhere)
    wait_until(lambda: caplog.text.count(' goes on: ') == 2, timeout_s=30)
  stopped.set()
  threads[0].join(10)
  inserter.close()
  doing = set()
  for message in (m for m in caplog.messages if ' goes on: ' in m):
    pattern = (
      f'(.*) goes on: the replay server at {nowhere} was tried (\\d+) times in '
      r'vain\.'
    )
    match = re.fullmatch(pattern, message)
    assert int(match[2]) > 1
    doing.add(match[1])
  assert doing == {'writing to replay', 'sampling from replay'}


def test_a_server_that_was_gone_is_not_said_to_wait(
  make_server, nowhere, stopped, layout
):
  _, address = make_server()
  client = connection.connect(address)
  watch = connection.Watch(nowhere, client, 'x', 'The actor waits.')
  watch.look()
  watch.look()
  watch._address = address  # as if it had come back there
  assert watch.describe().endswith(
    'It was tried 2 times in vain and is connected to again; once that is done, '
    'the actor waits.'
  )


def test_a_sampler_that_nobody_keeps_is_not_looked_after(
  server, layout, wait_until
):
  def lookers():
    return {t for t in threading.enumerate() if t.name == 'replay'}

  before = lookers()  # of other tests, which may end meanwhile
  sampler = sampler_lib.ReverbSampler(server[1], SPEC, layout)
  (looker,) = lookers() - before
  assert looker.is_alive()
  del sampler
  wait_until(lambda: not looker.is_alive())


def test_priorities_that_a_server_is_not_there_for_are_counted(
  server, layout, caplog
):
  class Gone:
    def MutatePriorities(self, *updates):  # noqa: N802
      raise RuntimeError('Socket closed')

  (table,) = SPEC.tables
  spec = replay_spec.ReplaySpec(
    (dataclasses.replace(table, priority_exponent=1.0),), SPEC.batch_size
  )
  sampler = sampler_lib.ReverbSampler(server[1], spec, layout)
  sampler._client = Gone()
  key = np.array([1], np.uint64)
  info = types.SampleInfo(key, np.ones(1), np.zeros(1), np.zeros(1, np.int32))
  with caplog.at_level(logging.WARNING):
    for _ in range(3):
      sampler.update_priorities(info, np.ones(1))
  assert caplog.messages == [
    f'the replay server at {server[1]} did not take priorities, {times} times so '
    'far: Socket closed'
    for times in (1, 2)
  ]

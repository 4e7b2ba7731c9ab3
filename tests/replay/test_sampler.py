"""A learner's way out of replay: restarts, refusals and the stop."""

import os
import socket
import sys
import threading
import time

import numpy as np
import pytest

from distacme import replay_spec
from distacme import specs
from distacme import types
from distacme.replay import form as form_lib
from distacme.replay import sampler as sampler_lib
from distacme.replay import store as store_lib
from distacme.replay import tables
from distacme.replay.items import rows
from distacme.replay.shared_memory import messages
from distacme.replay.shared_memory import outlet
from distacme.replay.shared_memory import server
from distacme.replay.shared_memory import slots
from tests.replay import backends

SPEC = replay_spec.single(
  replay_spec.NStep(1, 0.9),
  batch_size=2,
  max_size=100,
  min_size=4,
  samples_per_insert=None,
  priority_exponent=1.0,
)
OTHER = rows.make_layout(
  replay_spec.NStep(1, 0.9),
  specs.EnvironmentSpec(
    specs.Array((4,), np.float32),
    specs.DiscreteArray(2),
    specs.Array((), np.float32),
    specs.BoundedArray((), np.float32, 0.0, 1.0),
  ),
)


@pytest.fixture(name='replay')
def fixture_replay(layout):
  replay = backends.Worker(SPEC, layout)
  replay.insert(np.zeros((8, 1), layout.dtype), np.ones(8))
  yield replay
  replay.close()


def test_rows_of_another_layout_are_refused(replay, layout):
  form = form_lib.Form.of(SPEC, OTHER)
  made = sampler_lib.Sampler(
    lambda: outlet.LocalOutlet(replay._socket, form), OTHER, str
  )
  message = rf'items \[2, {layout.itemsize}\] .*need \[2, {OTHER.itemsize}\].*do not agree'
  with pytest.raises(ValueError, match=message):
    made.sample()
  made.close()


def test_it_describes_what_it_waits_for(replay):
  assert replay.sampler.describe().startswith(
    "replay holds in table 'experience' 8 windows, of 8 inserted, with "
  )
  assert replay.sampler.describe().endswith(
    'The learner waits for the actors to insert more.'
  )


def test_a_replay_that_does_not_answer_is_described(replay, layout):
  def describe():
    raise ConnectionError('it is gone')

  made = sampler_lib.Sampler(replay.outlet, layout, describe)
  assert made.describe() == (
    'replay does not answer (it is gone); it is tried again.'
  )
  made.close()


def test_a_replay_without_a_thread_to_answer_is_not_waited_for(
  tmp_path, layout, monkeypatch
):
  monkeypatch.setattr(outlet, '_ANSWER_S', 0.1)
  silent = messages.listen(tmp_path / 'socket')
  with pytest.raises(OSError):
    outlet.LocalOutlet(tmp_path / 'socket', form_lib.Form.of(SPEC, layout))
  silent.close()


def test_a_learner_leaves_no_descriptor_behind(replay, wait_until):
  def files():
    return len(os.listdir('/proc/self/fd'))

  replay.sample()
  replay.sampler.close()
  wait_until(lambda: not replay._server._open)
  before = files()
  for _ in range(3):
    replay.outlet().close()
  wait_until(lambda: not replay._server._open and files() <= before)


def test_a_restarted_replay_is_found_and_lost_priorities_are_counted(
  replay, layout, caplog, wait_until
):
  made = replay.sampler
  made.sample()
  following = made._outlet
  tried_in_vain, open_outlet = threading.Event(), following._open_outlet

  def opened():
    try:
      return open_outlet()
    except OSError:
      tried_in_vain.set()
      raise

  following._open_outlet = opened
  replay._server.stop()
  got = []

  def sample():
    for _ in range(5):
      got.append(made.sample())

  thread = threading.Thread(target=sample, daemon=True)
  thread.start()
  wait_until(tried_in_vain.is_set)  # before replay is there again
  keys = np.array([1], np.uint64)
  info = types.SampleInfo(keys, np.ones(1), np.zeros(1), np.zeros(1, np.int32))
  for _ in range(3):
    made.update_priorities(info, np.ones(1))
  assert 'did not take priorities, 2 times so far' in caplog.text
  assert 'did not take priorities, 3 times' not in caplog.text
  replay._server = server.LocalServer(replay.store, replay._socket)
  thread.join(10)
  assert len(got) == 5
  assert 'sampling from replay goes on: it was tried' in caplog.text


def test_a_sampler_that_waits_ends_when_it_is_closed(layout):
  replay = backends.Worker(SPEC, layout)
  made = replay.sampler
  ended = []

  def sample():
    with pytest.raises(ConnectionError, match='closed'):
      made.sample()
    ended.append(True)

  thread = threading.Thread(target=sample)
  thread.start()
  time.sleep(0.05)
  made.close()
  thread.join(10)
  assert ended
  replay.close()


def test_a_run_that_is_over_waits_for_nobody(tmp_path, layout):
  form = form_lib.Form.of(SPEC, layout)
  made = sampler_lib.Sampler(
    lambda: outlet.LocalOutlet(tmp_path / 'nobody', form),
    layout,
    str,
    lambda: True,
  )
  made.close()
  with pytest.raises(ConnectionError, match='closed'):
    made.sample()


def test_only_this_user_reaches_the_socket(tmp_path, layout):
  path = tmp_path / ('long' * 40) / 'socket'  # longer than a socket's name
  path.parent.mkdir()
  served = server.LocalServer(store_lib.Store(SPEC), path)
  assert path.stat().st_mode & 0o777 == 0o600
  form = form_lib.Form.of(SPEC, layout)
  outlet.LocalOutlet(path, form).close()
  served.stop()
  assert not path.exists()


@pytest.mark.parametrize(
  ('kind', 'body'),
  [
    (messages.HELLO, b'{}'),
    (messages.HELLO, b'[1]'),
    (messages.HELLO, b'\xff'),
    (messages.HELLO, b'{"items": -1, "item_bytes": 3}'),
    (messages.HELLO, b'{"items": 1e9, "item_bytes": 3}'),
    (messages.FREE, b'\x00'),
    (b'?', b''),
  ],
)
def test_what_is_no_hello_is_refused(replay, kind, body):
  connection = messages.connect(replay._socket)
  messages.send(connection, kind, body)
  answer, sentence = messages.receive(connection)
  assert answer == messages.ERROR and sentence
  with pytest.raises(OSError):
    messages.receive(connection)
  connection.close()
  assert replay.sample()


@pytest.fixture(name='descriptors')
def fixture_descriptors():
  """Returns the number of files that this process has open."""
  return lambda: len(os.listdir('/proc/self/fd'))


@pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')
@pytest.mark.parametrize('broken', ['os.ftruncate', 'mmap.mmap'])
def test_memory_that_cannot_be_had_leaves_no_file_open(
  monkeypatch, descriptors, broken
):
  def refuse(*_):
    raise OSError('no memory')

  form = form_lib.Form(items=3, item_bytes=4, max_frames=0, frame_bytes=0)
  before = descriptors()
  monkeypatch.setattr(f'{slots.__name__}.{broken}', refuse)
  with pytest.raises(OSError, match='no memory'):
    slots.Slots(form, 2)
  assert descriptors() == before


@pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')
def test_memory_that_comes_with_half_an_answer_is_closed(descriptors):
  before = descriptors()
  mine, theirs = socket.socketpair()
  with mine, theirs, open('/dev/null') as file:
    socket.send_fds(mine, [messages.MEMORY], [file.fileno()])
    mine.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionError, match='hung up'):
      messages.receive_file(theirs)
  assert descriptors() == before


def test_frames_travel_by_shared_memory_once_each():
  form = form_lib.Form(items=3, item_bytes=4, max_frames=6, frame_bytes=5)
  ours = slots.Slots(form, 2)
  theirs = slots.Slots(form, 2, ours.file)
  frames = [np.full(5, value, np.uint8) for value in range(6)]
  drawn = tables.DrawnItems(
    np.arange(12, dtype=np.uint8).reshape(3, 4),
    np.arange(3, dtype=np.uint64),
    np.ones(3),
    np.zeros(3, np.int32),
    [frames[:1], frames[1:4], frames[4:]],
  )
  ours.write(1, drawn)
  got = theirs.read(1)
  for mine, yours in zip(got[:4], drawn[:4], strict=True):
    np.testing.assert_array_equal(mine, yours)
  assert [len(each) for each in got.frames] == [1, 3, 2]
  np.testing.assert_array_equal(got.frames[1][2], frames[3])

"""A shard's holdings on their way to the learner, and room on its way back."""

import contextlib
import queue as queue_lib

import pytest

from distacme.replay import packs
from distacme.replay import store as store_lib
from distacme.replay.service import exchange
from distacme.replay.service import wire
from distacme.rpc import line as line_lib
from distacme.rpc import token as token_lib
from tests.replay.service.conftest import pack_of
from tests.replay.service.test_outlet import prioritized


@pytest.fixture(name='open_line')
def fixture_open_line():
  """Returns a function that opens lines, which are closed at the end."""
  with contextlib.ExitStack() as stack:

    def make(endpoint):
      line = line_lib.Line(wire.SERVICE, endpoint)
      stack.callback(line.close)
      return line

    yield make


def insert(store, numbers):
  return store.insert(packs.decode(pack_of(numbers)), lambda: True)


def test_a_shard_tells_what_it_holds_and_takes_what_it_is_let(
  serve, open_line, wait_until
):
  store = store_lib.Store(prioritized(), first_room=3)
  assert insert(store, range(3))
  assert not insert(store, [3])
  rooms = queue_lib.SimpleQueue()
  told = exchange.exchange(
    open_line(serve(store).endpoint), iter(rooms.get, None)
  )
  assert next(told) == (3, 0, 3, 3.0)
  rooms.put(5)
  wait_until(lambda: insert(store, [4]))
  assert next(told) == (4, 0, 4, 4.0)
  assert next(told) == (4, 0, 4, 4.0)  # a second later, as a sign of life
  rooms.put(None)
  assert list(told) == []  # the shard, too, hangs up


@pytest.mark.parametrize('message', [b'1', b'123456789'])
def test_what_is_no_room_is_refused(serve, open_line, message):
  line = open_line(serve(prioritized()).endpoint)
  with pytest.raises(ValueError, match='no room of a shard'):
    list(line.stream('Exchange', iter([message])))


def test_only_who_has_the_token_is_told(serve, open_line, tmp_path):
  token = token_lib.make(tmp_path)
  endpoint = serve(prioritized(), token=token).endpoint
  line = open_line(endpoint._replace(token=None))
  with pytest.raises(ConnectionError, match='lacks the token of the run'):
    next(exchange.exchange(line, iter([1])))


def test_a_restored_shard_waits_for_the_learner(tmp_path):
  store = store_lib.Store(prioritized(), tmp_path, first_room=3)
  store.let_in(10)
  insert(store, range(8))
  store.save()
  again = store_lib.Store(prioritized(), tmp_path, first_room=3)
  assert again.holdings().inserted == 8
  assert not insert(again, [8])

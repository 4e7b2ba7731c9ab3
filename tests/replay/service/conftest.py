"""Replay served over gRPC in this process, and who talks to it."""

import contextlib

import numpy as np
import pytest

from distacme import replay_spec
from distacme.replay import form as form_lib
from distacme.replay import packs
from distacme.replay import store as store_lib
from distacme.replay.service import outlet as outlet_lib
from distacme.replay.service import server
from distacme.replay.service import way as way_lib

ITEM_BYTES = 8
FORM = form_lib.Form(items=4, item_bytes=ITEM_BYTES)


def pack_of(numbers, frames=None, tables=(0,)):
  """Returns the bytes of a pack whose items are `numbers`."""
  items = np.array(numbers, np.int64).reshape(-1, 1).view(np.uint8)
  return packs.encode(packs.Pack(tables, items, np.ones(len(items)), frames))


def numbers_of(drawn):
  """Undoes `pack_of` for what was drawn."""
  return np.ascontiguousarray(drawn.items).view(np.int64)[:, 0].tolist()


def queue(max_size=1000, batch_size=FORM.items):
  """Returns the spec of a queue."""
  return replay_spec.queue(replay_spec.NStep(1, 0.9), batch_size, max_size)


@pytest.fixture
def serve():
  """Returns a function that serves a store; all are stopped at the end."""
  with contextlib.ExitStack() as stack:

    def make(store, **kwargs):
      if isinstance(store, replay_spec.ReplaySpec):
        store = store_lib.Store(store)
      served = server.ReplayServer(store, **kwargs)
      stack.callback(served.stop, grace_s=0)
      return served

    yield make


@pytest.fixture
def connect():
  """Returns a function that makes ways, which are closed at the end."""
  with contextlib.ExitStack() as stack:

    def make(endpoint, find=None):
      way = way_lib.GrpcWay(endpoint, find)
      stack.callback(way.close)
      return way

    yield make


@pytest.fixture
def draw_from():
  """Returns a function that makes outlets, which are closed at the end."""
  with contextlib.ExitStack() as stack:

    def make(endpoint, form=FORM, **kwargs):
      outlet = outlet_lib.GrpcOutlet(endpoint, form, **kwargs)
      stack.callback(outlet.close)
      return outlet

    yield make

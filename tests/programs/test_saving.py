"""When the replay worker saves, and when it gives up."""

import threading

import pytest

from distacme.programs.workers import replay
from tests import feeding


class SlowServer:
  """Saves when it is let."""

  def __init__(self):
    self.let = threading.Event()
    self.started = self.saved = 0

  def save(self):
    self.started += 1
    assert self.let.wait(10)
    self.saved += 1


@pytest.fixture
def server():
  made = SlowServer()
  yield made
  made.let.set()


def test_a_save_at_the_end_is_waited_for(server):
  server.let.set()
  replay._Saving(server, period_s=1e9).finish(10.0)
  assert server.saved == 1


def test_a_save_at_the_end_that_takes_too_long_is_given_up(server, caplog):
  saving = replay._Saving(server, period_s=1e9)
  saving.finish(0.05)
  assert saving.under_way
  assert 'continues from the checkpoint before' in caplog.text


def test_at_the_end_what_came_since_is_saved_as_well(server):
  saving = replay._Saving(server, period_s=1e-9)
  saving.start_if_due()
  feeding.wait_for(lambda: server.started == 1)
  saving.start_if_due()  # one at a time
  server.let.set()
  saving.finish(10.0)
  assert server.started == server.saved == 2


def test_replay_that_is_not_to_be_saved_is_not(server):
  saving = replay._Saving(server, period_s=None)
  saving.start_if_due()
  saving.finish(10.0)
  assert not server.started


class FullDisk:
  """Cannot be written to, until there is room."""

  def __init__(self):
    self.room = False
    self.saved = 0

  def save(self):
    if not self.room:
      raise OSError('no space left')
    self.saved += 1


def test_a_save_that_fails_at_the_end_is_an_error():
  with pytest.raises(OSError, match='no space left'):
    replay._Saving(FullDisk(), period_s=1e9).finish(10.0)


def test_a_save_that_fails_is_said_at_once_and_tried_again(caplog):
  disk = FullDisk()
  saving = replay._Saving(disk, period_s=1e-9)
  assert saving.metrics() == {}
  for failed in (1, 2):
    saving.start_if_due()
    feeding.wait_for(lambda: not saving.under_way)
    assert saving.metrics() == {
      'failed_saves': failed,
      'failed_saves_in_a_row': failed,
    }
    assert str(saving.error) == 'no space left'
  assert caplog.messages[1] == (
    'saving replay failed, 2 times so far: no space left. It is tried again in 0 '
    's; until then a restart goes on from the checkpoint before. Is the disk full?'
  )
  disk.room = True
  saving.start_if_due()
  feeding.wait_for(lambda: disk.saved)
  saving.finish(10.0)
  assert saving.error is None
  assert saving.metrics() == {'failed_saves': 2, 'failed_saves_in_a_row': 0}
  assert disk.saved == 2

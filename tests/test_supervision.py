"""What dies is started again, not for ever, and not while the run ends."""

import collections
import dataclasses
import math

import pytest

from distacme.runtime import supervision

POLICY = supervision.RestartPolicy(
  max_restarts=2, first_delay_s=0.01, hang_timeout_s=0.1, start_s=0.1
)


class Fake:
  """A worker that ends as it is told, once for each time that it is started."""

  def __init__(self, name, *codes):
    self.name = name
    self.codes = collections.deque(codes)  # None: runs until it is killed
    self.starts = 1
    self.asked = 0

  def worker(self, restartable=True):
    return supervision.Worker(
      self.name,
      exit_code=lambda: self.codes[0],
      terminate=self.terminate,
      kill=self.kill,
      log=None,
      restart=self.restart if restartable else None,
    )

  def restart(self):
    self.starts += 1
    self.codes.popleft()

  def terminate(self):
    self.asked += 1

  def kill(self):
    self.codes[0] = -9


class FakeRun:
  """A run that notes what it is told, and ends when a worker has failed."""

  def __init__(self, silent=(), useless=(), stop_after=10_000):
    self.silent = set(silent)
    self.useless = useless
    self.polls_left = stop_after
    self.restarts = []
    self.failures = []
    self.absent = []

  def stopping(self):
    return bool(self.failures) or self.polls_left <= 0

  def poll(self):
    self.polls_left -= 1

  def silent_s(self, worker):
    return math.inf if worker in self.silent else 0.0

  def may_restart(self, worker, code):
    return worker not in self.useless

  def on_restart(self, worker, how, delay_s):
    self.restarts.append((worker.name, how, delay_s))
    self.silent.discard(worker.name)

  def on_absence(self, worker):
    self.absent.append(worker.name)

  def on_failure(self, worker, how):
    self.failures.append((worker.name, how))


def watch(run, *workers, grace_s=0.2, **changes):
  policy = dataclasses.replace(POLICY, **changes)
  supervision.Supervisor(
    workers, run, policy, grace_s=grace_s, period_s=0.001
  ).watch()


def test_what_dies_is_started_again_until_it_is_done():
  actor, learner = Fake('actor/0', -9, 1, 0), Fake('learner/0', 0)
  run = FakeRun()
  watch(run, actor.worker(), learner.worker())
  assert (actor.starts, learner.starts) == (3, 1)
  # Every time it waits twice as long.
  assert run.restarts == [
    ('actor/0', 'signal 9', 0.01),
    ('actor/0', 'exit code 1', 0.02),
  ]
  assert not run.failures


def test_what_keeps_dying_ends_the_run():
  actor = Fake('actor/0', *[1] * 9)
  run = FakeRun()
  watch(run, actor.worker())
  assert actor.starts == 3
  assert run.failures == [('actor/0', 'exit code 1')]


def test_a_restart_of_long_ago_does_not_count():
  actor = Fake('actor/0', 1, 1, 1, 1, 0)
  run = FakeRun()
  watch(run, actor.worker(), max_restarts=1, period_s=0.001)
  assert actor.starts == 5
  assert not run.failures


@pytest.mark.parametrize('restartable', [True, False])
def test_what_cannot_be_of_use_is_not_started_again(restartable):
  actor = Fake('actor/0', 1)
  run = FakeRun(useless=['actor/0'] if restartable else [])
  watch(run, actor.worker(restartable))
  assert actor.starts == 1
  assert run.failures == [('actor/0', 'exit code 1')]


def test_who_hangs_is_killed_and_started_again():
  actor = Fake('actor/0', None, 0)
  run = FakeRun(silent=['actor/0'])
  watch(run, actor.worker())
  assert actor.starts == 2
  ((name, how, _),) = run.restarts
  assert name == 'actor/0'
  assert how == 'no heartbeat for 0 s, so that it was killed'


def test_a_first_heartbeat_may_take_longer():
  actor = Fake('actor/0', None)
  run = FakeRun(silent=['actor/0'], stop_after=150)
  watch(run, actor.worker(), start_s=60.0, grace_s=0.02)
  assert not run.restarts
  assert run.failures  # at the end of the run, for which it was not hung either
  assert 'no heartbeat' not in str(run.failures)


def test_nothing_is_started_again_while_the_run_ends():
  actor, learner = Fake('actor/0', -9), Fake('learner/0', -15)
  run = FakeRun(stop_after=0)
  watch(run, actor.worker(), learner.worker())
  assert (actor.starts, learner.starts) == (1, 1)
  # One that had not begun yet did nothing wrong.
  assert run.failures == [('actor/0', 'signal 9')]


def test_who_waits_to_be_started_again_is_let_go_when_the_run_ends():
  actor = Fake('actor/0', 1, 1, 0)
  run = FakeRun(stop_after=3)
  watch(run, actor.worker(), first_delay_s=60.0)
  assert actor.starts == 1
  assert len(run.restarts) == 1
  assert run.absent == ['actor/0']
  assert not run.failures


def test_who_does_not_end_is_asked_and_then_killed():
  actor = Fake('actor/0', None)
  run = FakeRun(stop_after=0)
  watch(run, actor.worker(), grace_s=0.05)
  assert actor.asked == 1
  assert actor.codes[0] == -9
  assert run.failures == [('actor/0', 'no end 0 s after it was to stop')]

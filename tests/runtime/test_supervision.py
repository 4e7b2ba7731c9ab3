"""What dies is started again, not for ever, and not while the run ends."""

import collections
import dataclasses
import math

import pytest

from distacme.runtime import supervision

POLICY = supervision.RestartPolicy(
  max_restarts=2,
  first_delay_s=0.01,
  hang_timeout_s=0.1,
  start_s=0.1,
  explain_s=0.0,
  dismiss_s=0.1,
)
GRACE_S = 0.1


class Fake:
  """A worker that ends as it is told, once for each time that it is started."""

  def __init__(self, name, *codes):
    self.name = name
    self.codes = collections.deque(codes)  # None: runs until it is killed
    self.starts = 1
    self.asked = self.explained = 0

  def worker(self, restartable=True):
    return supervision.Worker(
      self.name,
      exit_code=lambda: self.codes[0],
      terminate=self.terminate,
      kill=self.kill,
      explain=self.explain,
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

  def explain(self):
    self.explained += 1


class FakeRun:
  """A run that notes what it is told, and ends when a worker has failed."""

  def __init__(self, silent=(), useless=(), stop_after=10_000, ends_with=None):
    self.ends_with = ends_with  # a worker whose end at 0 is the run's
    self.silent = set(silent)
    self.starting = set()
    self.useless = useless
    self.polls_left = stop_after
    self.restarts = []
    self.failures = []
    self.absent = []

  def stopping(self):
    return (
      bool(self.failures)
      or self.polls_left <= 0
      or (self.ends_with is not None and self.ends_with.codes[0] == 0)
    )

  def grace_s(self):
    return GRACE_S

  def hurried(self):
    return False

  def refresh(self):
    self.refreshed = True

  def poll(self):
    self.polls_left -= 1

  def silent_s(self, worker):
    return math.inf if worker in self.silent else 0.0

  def is_starting(self, worker):
    return worker in self.starting

  def may_restart(self, worker, code):
    return worker not in self.useless

  def on_restart(self, worker, how, delay_s):
    self.restarts.append((worker.name, how, delay_s))
    self.silent.discard(worker.name)

  def on_absence(self, worker):
    self.absent.append(worker.name)

  def on_failure(self, worker, how):
    self.failures.append((worker.name, how))


def watch(run, *workers, **changes):
  policy = dataclasses.replace(POLICY, **changes)
  supervision.Supervisor(workers, run, policy, period_s=0.001).watch()


def test_what_dies_is_started_again_until_the_run_ends():
  actor = Fake('actor/0', -9, 1, 0)
  run = FakeRun(ends_with=actor)
  watch(run, actor.worker())
  assert actor.starts == 3
  # Every time it waits twice as long.
  assert run.restarts == [
    ('actor/0', 'ended with signal 9', 0.01),
    ('actor/0', 'ended with exit code 1', 0.02),
  ]
  assert not run.failures


def test_what_ends_in_order_while_the_run_goes_on_is_started_again():
  # As after a SIGTERM that was sent to it alone.
  actor, learner = Fake('actor/0', None), Fake('learner/0', 0, None)
  run = FakeRun(stop_after=100)
  watch(run, actor.worker(), learner.worker())
  assert learner.starts == 2
  assert run.restarts == [('learner/0', 'ended although the run goes on', 0.01)]


def test_whether_the_run_ends_is_asked_before_an_end_is_judged():
  actor = Fake('actor/0', 0)
  run = FakeRun()
  run.refresh = lambda: setattr(run, 'polls_left', 0)  # it has just ended
  watch(run, actor.worker())
  assert actor.starts == 1
  assert not run.failures


def test_what_keeps_dying_ends_the_run():
  actor = Fake('actor/0', *[1] * 9)
  run = FakeRun()
  watch(run, actor.worker())
  assert actor.starts == 3
  assert run.failures == [('actor/0', 'ended with exit code 1')]


@pytest.mark.parametrize('tries', [1, 9])
def test_what_the_system_does_not_start_is_tried_again(tries):
  actor = Fake('actor/0', -9, 0)
  restart, left = actor.restart, iter(range(tries))

  def refuse():
    if next(left, None) is not None:
      raise OSError('no descriptor')
    restart()

  actor.restart = refuse
  run = FakeRun(ends_with=actor)
  watch(run, actor.worker())
  again = ('actor/0', 'could not be started (no descriptor)', 0.02)
  assert run.restarts == [('actor/0', 'ended with signal 9', 0.01), again]
  failed = ('actor/0', 'could not be started (no descriptor)')
  assert run.failures == ([] if tries == 1 else [failed])


def test_a_restart_of_long_ago_does_not_count():
  actor = Fake('actor/0', 1, 1, 1, 1, 0)
  run = FakeRun(ends_with=actor)
  watch(run, actor.worker(), max_restarts=1, period_s=0.001)
  assert actor.starts == 5
  assert not run.failures


@pytest.mark.parametrize('restartable', [True, False])
def test_what_cannot_be_of_use_is_not_started_again(restartable):
  actor = Fake('actor/0', 1)
  run = FakeRun(useless=['actor/0'] if restartable else [])
  watch(run, actor.worker(restartable))
  assert actor.starts == 1
  assert run.failures == [('actor/0', 'ended with exit code 1')]


def test_who_hangs_says_where_and_is_killed_and_started_again():
  actor = Fake('actor/0', None, 0)
  run = FakeRun(silent=['actor/0'], ends_with=actor)
  watch(run, actor.worker())
  assert (actor.starts, actor.explained) == (2, 1)
  ((name, how, _),) = run.restarts
  assert name == 'actor/0'
  assert how == 'gave no sign of life for 0 s and was killed'


def test_nobody_hung_while_the_launcher_itself_was_stopped(monkeypatch):
  clock = [0.0]
  monkeypatch.setattr(supervision.time, 'monotonic', lambda: clock[0])
  actor = Fake('actor/0', None)
  run = FakeRun(stop_after=10)
  heard = [0.0]
  run.silent_s = lambda worker: clock[0] - heard[0]

  def poll():
    run.polls_left -= 1
    clock[0] += 1000.0 if run.polls_left == 5 else 0.01
    if run.polls_left < 5:
      heard[0] = clock[0]  # only when the launcher looks again

  run.poll = poll
  watch(run, actor.worker())
  assert not run.restarts
  assert actor.explained == 0


def test_a_first_heartbeat_may_take_longer():
  actor = Fake('actor/0', None)
  run = FakeRun(silent=['actor/0'], stop_after=150)
  watch(run, actor.worker(), start_s=60.0)
  assert not run.restarts
  assert run.failures  # at the end of the run, for which it was not hung either
  assert 'no sign of life' not in str(run.failures)


def test_who_has_reported_and_not_worked_may_take_longer_too():
  # Imports and compilations come after the first report.
  actor = Fake('actor/0', None)
  run = FakeRun(stop_after=150)
  run.silent_s = lambda worker: 0.2  # and the timeout is 0.1 s
  run.starting = {'actor/0'}
  watch(run, actor.worker(), start_s=60.0)
  assert not run.restarts


def test_a_restart_waits_no_longer_than_so_long():
  actor = Fake('actor/0', -9, -9, -9, -9, 0)
  run = FakeRun(ends_with=actor)
  watch(run, actor.worker(), max_restarts=9, longest_delay_s=0.03)
  assert [delay_s for *_, delay_s in run.restarts] == [0.01, 0.02, 0.03, 0.03]


def test_nothing_is_started_again_while_the_run_ends():
  actor, learner = Fake('actor/0', -9), Fake('learner/0', -15)
  run = FakeRun(stop_after=0)
  watch(run, actor.worker(), learner.worker())
  assert (actor.starts, learner.starts) == (1, 1)
  # One that had not begun yet did nothing wrong.
  assert run.failures == [('actor/0', 'ended with signal 9')]


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
  watch(run, actor.worker())
  assert actor.asked == 1
  assert actor.codes[0] == -9
  ((name, how),) = run.failures
  assert name == 'actor/0'
  assert how == 'did not end within 0 s and was killed'


def test_in_a_hurry_all_are_killed_and_nobody_has_failed(tmp_path):
  actor, waiting = Fake('actor/0', None), Fake('learner/0', 1, None)
  run = FakeRun(stop_after=10**9)
  run.hurried = lambda: bool(run.restarts)
  worker = actor.worker()._replace(log=tmp_path / 'log')
  watch(run, worker, waiting.worker(), first_delay_s=60.0)
  assert (actor.asked, actor.codes[0]) == (0, -9)
  assert waiting.codes[0] == 1  # it had ended already
  assert not run.failures


@pytest.mark.parametrize('code', [0, -15])
def test_who_is_not_wanted_any_more_ends_for_good(code):
  actor = Fake('actor/0', None)
  actor.terminate = lambda: actor.codes.__setitem__(0, code)
  run = FakeRun(stop_after=100)
  supervisor = supervision.Supervisor(
    [actor.worker()], run, POLICY, period_s=0.001
  )
  supervisor.dismiss('actor/0')
  assert supervisor.has('actor/0')
  supervisor.watch()
  assert not supervisor.has('actor/0')
  assert (actor.starts, run.restarts, run.failures) == (1, [], [])
  # One that could not say goodbye has it said.
  assert run.absent == (['actor/0'] if code else [])


def test_who_is_not_wanted_any_more_and_hangs_is_killed():
  actor = Fake('actor/0', None)
  run = FakeRun()
  supervisor = supervision.Supervisor(
    [actor.worker()], run, POLICY, period_s=0.001
  )
  supervisor.dismiss('actor/0')
  supervisor.watch()
  assert actor.codes[0] == -9
  assert run.absent == ['actor/0']
  assert not run.failures


def test_who_is_asked_again_and_again_to_go_has_no_more_time_for_it():
  actor = Fake('actor/0', None)
  run = FakeRun(stop_after=10**9)
  supervisor = supervision.Supervisor(
    [actor.worker()],
    run,
    supervision.RestartPolicy(dismiss_s=0.05),
    period_s=0.001,
  )
  run.poll = lambda: supervisor.dismiss('actor/0')
  supervisor.watch()
  assert actor.codes[0] == -9
  assert actor.asked > 1

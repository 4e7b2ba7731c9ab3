"""The learner: what reaches params, priorities, checkpoints and the run."""

from concurrent import futures
import logging
import threading
import weakref

import jax
import numpy as np
import pytest

from distacme import core
from distacme import status as status_lib
from distacme.acting import params
from distacme.learning import batches
from distacme.learning import learner
from distacme.run import run_state as run_state_lib
from distacme.testing import telling_agent
from tests import feeding


class ListSink:
  """Keeps what is published."""

  def __init__(self):
    self.published = []

  def publish(self, version, nest):
    self.published.append((version, nest))

  @property
  def versions(self):
    return [version for version, _ in self.published]


class Rig:
  """A learner and everything around it."""

  def __init__(self, sampler=None, sink=None, run_state=None, **kwargs):
    self.sampler = sampler or feeding.ListSampler(*range(100))
    self.sink = sink or ListSink()
    self.run_state = run_state or run_state_lib.RunState()
    self.saved = []
    agent = telling_agent.TellingAgent()
    self.learner = learner.Learner(
      agent,
      batches.Batches(self.sampler),
      self.sink,
      self.run_state.reporter('learner'),
      agent.initial_learner_state(None),
      save=lambda steps, state: self.saved.append(
        (steps, jax.tree.map(np.array, state))
      ),
      **kwargs,
    )

  def status(self):
    return self.run_state.status().workers['learner']


@pytest.fixture
def metrics_in_every_report(monkeypatch):
  monkeypatch.setattr(learner, '_METRICS_PERIOD_S', 0.0)


def test_initial_params_are_published_before_the_first_step():
  assert Rig().sink.versions == [0]
  assert Rig(steps=70).sink.versions == [70]


def test_params_are_published_every_period():
  rig = Rig(publish_period=3)
  for _ in range(8):
    assert rig.learner.step()
  assert rig.sink.versions == [0, 3, 6]
  # Rewards of batch i are i: their sum over 4 items and all steps.
  sums = [float(nest['rewards'][0]) for _, nest in rig.sink.published]
  assert sums == [0, 4 * (0 + 1 + 2), 4 * (0 + 1 + 2 + 3 + 4 + 5)]


def test_params_are_published_no_more_often_than_asked():
  rig = Rig(publish_period=3, publish_period_s=1e6)
  for _ in range(8):
    assert rig.learner.step()
  assert rig.sink.versions == [0]
  rig.learner.close()
  assert rig.sink.versions == [0, 8]


def test_published_params_are_copies_and_survive_donation():
  rig = Rig()
  for step in range(1, 4):
    before = rig.learner.state
    rig.learner.step()
    assert all(leaf.is_deleted() for leaf in before)  # donated, indeed
    version, nest = rig.sink.published[-1]
    assert (version, int(nest['version'])) == (step, step)
  versions = [int(nest['version']) for _, nest in rig.sink.published]
  assert versions == [0, 1, 2, 3]


def test_what_an_update_was_given_is_let_go_once_that_has_ended():
  # Before, it would be waited for with Python's lock in hand.
  rig = Rig()
  rig.learner.step()
  given = weakref.ref(rig.learner.state.rewards)
  for _ in range(2):
    rig.learner.step()
    assert given() is not None
  ended = rig.learner._under_way[0][1]
  rig.learner.step()
  assert given() is None
  assert ended.priorities.is_ready()


def test_a_state_of_numpy_arrays_is_not_written_to():
  agent = telling_agent.TellingAgent()
  state = telling_agent.TellingLearnerState(
    np.int32(0), np.zeros(1_000_000, np.float32)
  )
  reporter = run_state_lib.RunState().reporter('learner')
  ones = batches.Batches(feeding.ListSampler(1.0, 1.0))
  made = learner.Learner(agent, ones, ListSink(), reporter, state)
  made.step()
  assert np.asarray(made.state.rewards)[-1] == 4.0
  assert not state.rewards.any()


def test_priorities_reach_the_sampler_with_their_keys():
  rig = Rig(feeding.ListSampler(0.5, 3.0))
  rig.learner.step()
  rig.learner.step()
  assert rig.sampler.priorities == [
    ([0, 1, 2, 3], [1.5] * 4),
    ([4, 5, 6, 7], [4.0] * 4),
  ]


def test_background_senders_deliver_the_same():
  rig = Rig(executor=learner.background_executor)
  for _ in range(50):
    rig.learner.step()
  rig.learner._report_at = 0.0
  rig.learner.tend()  # sends what would wait for more of its kind
  sent = rig.sampler.priorities
  feeding.wait_for(lambda: sum(len(keys) for keys, _ in sent) == 200)
  rig.learner.close()
  assert len(sent) == 13  # those of four updates together
  assert [key for keys, _ in sent for key in keys] == list(range(200))
  values = [value for _, values in sent for value in values]
  assert values[28:32] == [8.0] * 4
  assert rig.sink.versions == sorted(rig.sink.versions)
  assert rig.sink.versions[-1] == 50
  assert int(rig.sink.published[-1][1]['version']) == 50


class SlowSink(ListSink):
  """Takes until `go` is set for everything after the first params."""

  def __init__(self):
    super().__init__()
    self.go = threading.Event()
    self.started = threading.Event()

  def publish(self, version, nest):
    if version:
      self.started.set()
      assert self.go.wait(feeding.DEADLINE_S)
    super().publish(version, nest)


def test_a_slow_publication_does_not_hold_up_learning():
  sink = SlowSink()
  rig = Rig(sink=sink, executor=learner.background_executor)
  feeding.wait_for(lambda: sink.versions == [0])
  for _ in range(20):
    rig.learner.step()
  assert sink.started.wait(feeding.DEADLINE_S)
  assert sink.versions == [0]
  assert rig.learner.steps == 20
  sink.go.set()
  rig.learner.close()
  # Versions that came while one was under way are left out; the last is not.
  assert sink.versions[-1] == 20
  assert len(sink.versions) < 10


class BrokenSink(ListSink):
  def publish(self, version, nest):
    if version:
      raise ConnectionError('the variable server is gone')


@pytest.mark.parametrize(
  'executor', [learner.InlineExecutor, learner.background_executor]
)
def test_a_publication_that_fails_fails_the_learner(executor):
  rig = Rig(sink=BrokenSink(), executor=executor)
  with pytest.raises(ConnectionError, match='variable server is gone'):
    for _ in range(50):
      rig.learner.step()
      futures.wait([rig.learner._publishing])


class BrokenPriorities(feeding.ListSampler):
  def update_priorities(self, info, priority):
    raise ConnectionError('the replay server is gone')


@pytest.mark.parametrize(
  'executor', [learner.InlineExecutor, learner.background_executor]
)
def test_priorities_that_cannot_be_sent_fail_the_learner(executor):
  rig = Rig(BrokenPriorities(*range(50)), executor=executor)
  with pytest.raises(ConnectionError, match='replay server is gone'):
    for _ in range(50):
      rig.learner.step()


def test_the_run_hears_of_every_step():
  rig = Rig()
  for _ in range(5):
    rig.learner.step()
  rig.learner.report(status_lib.WorkerState.LEARNING)
  rig.learner.step()
  rig.learner.report(status_lib.WorkerState.LEARNING)
  assert rig.run_state.status().counts == {'learner_steps': 6}
  assert rig.status().state == 'learning'


def test_metrics_tell_the_last_loss_and_the_age_of_data(
  metrics_in_every_report,
):
  rig = Rig(feeding.ListSampler(0.5, 2.0, 3.0))
  for _ in range(3):
    rig.learner.step()
  rig.learner.report(status_lib.WorkerState.LEARNING)
  metrics = rig.status().metrics
  assert metrics['loss'] == 12.0
  assert metrics['data_age'] == (0 + 1 + 2) / 3  # all acted with version 0
  assert metrics['learner_steps_per_second'] > 0
  assert metrics['samples_per_second'] == pytest.approx(
    4 * metrics['learner_steps_per_second']
  )
  assert 0 <= metrics['share_waiting_for_data'] < 1


NOT_FINITE = r'loss is nan after learner step 2\. .*learning rate .* too high'


def test_a_loss_that_is_not_finite_ends_the_run(metrics_in_every_report):
  rig = Rig(feeding.ListSampler(1.0, np.nan))
  rig.learner.step()
  rig.learner.report(status_lib.WorkerState.LEARNING)
  rig.learner.step()
  with pytest.raises(FloatingPointError, match=NOT_FINITE):
    rig.learner.report(status_lib.WorkerState.LEARNING)


def test_the_last_checkpoint_is_named_where_a_loss_is_not_finite(
  metrics_in_every_report,
):
  rig = Rig(feeding.ListSampler(np.nan), last_saved=lambda: 'The last is 7.')
  rig.learner.step()
  with pytest.raises(FloatingPointError, match=r'is saved\. The last is 7\.$'):
    rig.learner.report(status_lib.WorkerState.LEARNING)


def test_who_is_told_to_goes_on_from_a_loss_that_is_not_finite(
  metrics_in_every_report,
):
  rig = Rig(
    feeding.ListSampler(np.nan, np.nan),
    stop_if_not_finite=False,
    save_period_s=1e-9,
  )
  for _ in range(2):
    assert rig.learner.step()
    rig.learner.tend()
  assert [steps for steps, _ in rig.saved] == [1, 2]


def test_such_a_loss_is_named_rather_than_its_priorities():
  class Replay(feeding.ListSampler):
    def update_priorities(self, info, priority):
      raise status_lib.NotFiniteError('a priority')

  message = r'loss is nan after learner step 1\.'
  with pytest.raises(status_lib.NotFiniteError, match=message):
    Rig(Replay(np.nan)).learner.step()
  with pytest.raises(status_lib.NotFiniteError, match='a priority'):
    Rig(Replay(1.0)).learner.step()


def test_what_followed_from_such_a_loss_is_not_saved():
  # At once: it does not wait for the next report of metrics.
  rig = Rig(feeding.ListSampler(1.0, np.nan), save_period_s=1e-9)
  rig.learner.step()
  rig.learner.tend()
  assert [steps for steps, _ in rig.saved] == [1]
  rig.learner.step()
  with pytest.raises(FloatingPointError, match=NOT_FINITE):
    rig.learner.tend()
  with pytest.raises(FloatingPointError, match=NOT_FINITE):
    rig.learner.close()
  assert [steps for steps, _ in rig.saved] == [1]


def test_nothing_is_saved_before_its_time():
  rig = Rig(save_period_s=3600.0)
  for _ in range(5):
    rig.learner.step()
    rig.learner.tend()
  assert rig.saved == []


class LateReporter:
  """A line to a run that hears of steps, and ends, some reports later."""

  def __init__(self, ends_after=3):
    self.counted = 0
    self.asked = []
    self._left = ends_after

  def report(self, counts=None, metrics=None, state=None):
    self.counted += (counts or {}).get('learner_steps', 0)
    if self.counted:
      self._left -= 1
    ended = self._left < 0 or self.asked
    return core.Directive(
      status_lib.StopReason.STEP_LIMIT if ended else None, {}
    )

  def request_stop(self, reason, detail=''):
    self.asked.append((reason, detail))


def run_to(last_step, reporter, count=1):
  agent = telling_agent.TellingAgent()
  made = learner.Learner(
    agent,
    batches.Batches(feeding.ListSampler(*range(20)), count),
    ListSink(),
    reporter,
    agent.initial_learner_state(None),
    steps=40,
    last_step=last_step,
  )
  made.run()
  assert reporter.counted == made.steps - 40
  return made.steps


@pytest.fixture
def no_pauses(monkeypatch):
  monkeypatch.setattr(learner, '_POLL_S', 0.0)


def test_it_makes_no_step_beyond_its_last_however_late_the_run_ends(no_pauses):
  reporter = LateReporter()
  assert run_to(47, reporter) == 47
  assert run_to(47, LateReporter(), count=2) == 48  # whole calls
  assert not reporter.asked  # the run's counters ended it


def test_a_run_that_lost_counts_is_asked_to_end_after_the_last_step(
  no_pauses, monkeypatch
):
  monkeypatch.setattr(learner, '_STOP_S', 0.0)
  reporter = LateReporter(ends_after=10**9)
  assert run_to(47, reporter) == 47
  assert reporter.asked == [
    (status_lib.StopReason.STEP_LIMIT, '47 learner_steps')
  ]


def test_close_publishes_and_saves_the_last_state():
  rig = Rig(publish_period=1000)
  for _ in range(5):
    rig.learner.step()
  rig.learner.close()
  assert rig.sink.versions == [0, 5]
  ((steps, state),) = rig.saved
  assert (steps, int(state.version)) == (5, 5)
  assert float(state.rewards[0]) == 4 * (0 + 1 + 2 + 3 + 4)
  assert rig.run_state.status().counts == {'learner_steps': 5}


def test_it_runs_until_the_run_stops():
  run_state = run_state_lib.RunState()

  class Stopping(feeding.ListSampler):
    def sample(self):
      if self.drawn == 30:
        run_state.request_stop(status_lib.StopReason.SOLVED)
      return super().sample()

  class EveryStep(learner.Learner):
    def tend(self, state=status_lib.WorkerState.LEARNING):
      self._report_at = 0.0
      super().tend(state)

  agent, sink = telling_agent.TellingAgent(), params.LocalParams()
  worker = EveryStep(
    agent,
    batches.Batches(Stopping(*[1.0] * 100)),
    sink,
    run_state.reporter('learner'),
    agent.initial_learner_state(None),
  )
  worker.run()
  assert worker.directive.stop == 'solved'
  assert worker.steps == sink.newest().version == 31
  assert run_state.status().counts == {'learner_steps': 31}


def test_a_learner_without_data_says_what_it_waits_for(caplog):
  class Empty(feeding.ListSampler):
    def sample(self):
      threading.Event().wait(feeding.DEADLINE_S)
      raise ConnectionError

    def describe(self):
      return 'replay holds 3 items.'

  run_state = run_state_lib.RunState()
  agent = telling_agent.TellingAgent()
  made = learner.Learner(
    agent,
    batches.PrefetchedBatches(Empty()),
    ListSink(),
    run_state.reporter('learner/0'),
    agent.initial_learner_state(None),
    explain_after_s=0.2,
  )
  running = threading.Thread(target=made.run)
  with caplog.at_level(logging.WARNING):
    running.start()
    feeding.wait_for(lambda: len(caplog.messages) >= 2)
    run_state.request_stop(status_lib.StopReason.INTERRUPTED)
    running.join(feeding.DEADLINE_S)
  assert not running.is_alive()
  assert 'has waited for data for 0.' in caplog.messages[0]
  assert caplog.messages[0].endswith(' s: replay holds 3 items.')

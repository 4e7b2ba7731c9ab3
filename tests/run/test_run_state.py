"""RunState against sequences made by hand."""

import threading

import pytest

from distacme import status as status_lib
from distacme.run import run_state


class Clock:
  """A clock that stands still until it is moved."""

  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


class ListSink:
  """Keeps what is written."""

  def __init__(self):
    self.rows = []

  def write(self, worker, seconds, counts, metrics):
    self.rows.append((worker, seconds, dict(counts), dict(metrics)))


class FullDisk:
  """Fails as a disk does."""

  def write(self, worker, seconds, counts, metrics):
    raise OSError('No space left on device')


@pytest.fixture
def clock():
  return Clock()


@pytest.mark.parametrize(
  'limits',
  [{'max_env_steps': 0}, {'max_learner_steps': 0}, {'max_seconds': -1.0}],
)
def test_limits_that_are_none_are_refused_by_name(limits):
  (name,) = limits
  with pytest.raises(ValueError, match=f'{name} must be positive, got'):
    status_lib.Limits(**limits)


def test_counts_of_workers_are_summed_onto_those_of_the_run_before(clock):
  state = run_state.RunState(counts={'env_steps': 100}, clock=clock)
  state.report('actor/0', {'env_steps': 3, 'episodes': 1})
  directive = state.report('actor/1', {'env_steps': 4})
  assert directive.counts == {'env_steps': 107, 'episodes': 1}
  workers = state.status().workers
  assert workers['actor/0'].counts == {'env_steps': 3, 'episodes': 1}
  assert workers['actor/1'].counts == {'env_steps': 4}


def test_no_increment_is_lost_between_threads():
  state = run_state.RunState()

  def work(worker):
    reporter = state.reporter(worker)
    for _ in range(2000):
      reporter.report({'env_steps': 1})

  threads = [threading.Thread(target=work, args=(f'a/{i}',)) for i in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert state.status().counts == {'env_steps': 8000}


def test_the_run_stops_at_the_step_limit_and_not_before(clock):
  state = run_state.RunState(status_lib.Limits(max_env_steps=10), clock=clock)
  assert state.report('a', {'env_steps': 9}).stop is None
  assert state.report('a', {'env_steps': 1}).stop == 'step_limit'


def test_the_run_stops_at_a_limit_of_learner_steps_with_those_before(clock):
  limits = status_lib.Limits(max_env_steps=1000, max_learner_steps=10)
  state = run_state.RunState(limits, counts={'learner_steps': 6}, clock=clock)
  assert state.report('a', {'env_steps': 999}).stop is None
  assert state.report('learner', {'learner_steps': 3}).stop is None
  assert state.report('learner', {'learner_steps': 1}).stop == 'step_limit'
  assert state.status().stop.detail == '10 learner_steps'


def test_the_run_stops_at_the_time_limit_though_nobody_reports(clock):
  state = run_state.RunState(status_lib.Limits(max_seconds=5.0), clock=clock)
  clock.now += 4.9
  assert state.status().stop is None
  clock.now += 0.2
  assert state.status().stop.reason == 'time_limit'


def test_a_limit_that_was_reached_comes_before_a_later_request(clock):
  state = run_state.RunState(status_lib.Limits(max_seconds=5.0), clock=clock)
  clock.now += 6
  state.request_stop(status_lib.StopReason.INTERRUPTED)
  assert state.directive().stop == 'time_limit'


def test_the_first_reason_stands_with_who_gave_it_and_why(clock):
  state = run_state.RunState(clock=clock)
  clock.now += 2
  failed = status_lib.StopReason.FAILED
  state.reporter('actor/1').request_stop(failed, 'Traceback: boom')
  state.reporter('actor/2').request_stop(failed, 'Traceback: later')
  state.request_stop(status_lib.StopReason.SOLVED)
  assert state.status().stop == status_lib.Stop(
    failed, 'Traceback: boom', 'actor/1', 2.0
  )


def test_an_unknown_reason_is_answered_with_the_known_ones():
  with pytest.raises(ValueError, match="'bored' is no reason.*solved.*failed"):
    status_lib.StopReason('bored')


@pytest.mark.parametrize('when', ['before', 'after'])
def test_a_stop_calls_back_once(when):
  state, calls = run_state.RunState(), []
  if when == 'before':
    state.on_stop(lambda: calls.append(1))
    assert not calls
  state.request_stop(status_lib.StopReason.SOLVED)
  if when == 'after':
    state.on_stop(lambda: calls.append(1))
  state.request_stop(status_lib.StopReason.SOLVED)
  state.report('a')
  assert calls == [1]


def test_counters_stay_within_64_bits():
  state = run_state.RunState()
  for _ in range(3):
    state.report('a', {'up': 2**63 - 1, 'down': -(2**63 - 1)})
  expected = {'up': 2**63 - 1, 'down': 1 - 2**63}
  assert state.status().counts == expected
  assert state.status().workers['a'].counts == expected


def test_rates_are_those_of_the_last_seconds(clock):
  state = run_state.RunState(counts={'env_steps': 1_000_000}, clock=clock)
  for _ in range(30):  # 30 s at 5 steps per second
    clock.now += 1
    state.report('a', {'env_steps': 5})
  for _ in range(30):  # and at 20
    clock.now += 1
    state.report('a', {'env_steps': 20})
  status = state.status()
  assert status.rates['env_steps'] == pytest.approx(20)
  assert status.workers['a'].rates['env_steps'] == pytest.approx(20)
  for _ in range(12):
    clock.now += 1
    rates = state.status().rates
  assert rates['env_steps'] == 0


def test_rates_at_the_start_are_over_the_time_that_there_was(clock):
  state = run_state.RunState(clock=clock)
  clock.now += 2
  state.report('a', {'env_steps': 10})
  assert state.status().rates == {'env_steps': 5}


def test_the_time_before_a_restart_of_the_server_has_no_part_in_rates(clock):
  counts = {'env_steps': 1_000}
  state = run_state.RunState(counts=counts, clock=clock, elapsed_s=90.0)
  clock.now += 2
  state.report('a', {'env_steps': 10})
  assert state.status().rates == {'env_steps': 5}
  assert state.status().seconds == 92


def test_a_learner_that_goes_back_to_its_checkpoint_has_no_negative_rate(clock):
  state = run_state.RunState(counts={'learner_steps': 500}, clock=clock)
  state.report('learner/0')
  for _ in range(8):
    clock.now += 1
    state.report('learner/0', {'learner_steps': 50, 'env_steps': 3})
  assert state.status().rates['learner_steps'] == 50
  state.report('learner/0', {'learner_steps': -700})
  for _ in range(12):
    clock.now += 1
    state.report('learner/0', {'learner_steps': 50, 'env_steps': 3})
    status = state.status()
    # Steps are made as fast as before, though some are made again.
    assert status.rates['learner_steps'] == pytest.approx(50)
    assert status.workers['learner/0'].rates['learner_steps'] == pytest.approx(
      50
    )
    assert status.rates['env_steps'] == pytest.approx(3)
  assert status.counts['learner_steps'] == 500 + 8 * 50 - 700 + 12 * 50


def test_status_tells_what_each_worker_does_and_when_it_was_heard(clock):
  state = run_state.RunState(clock=clock)
  state.report('actor/0', state=status_lib.WorkerState.WAITING_FOR_PARAMS)
  state.report('actor/0', metrics={'return': 1.0, 'length': 5})
  clock.now += 3
  state.report('actor/0', metrics={'return': 2.0})
  clock.now += 4
  worker = state.status().workers['actor/0']
  assert worker.state == status_lib.WorkerState.WAITING_FOR_PARAMS
  assert worker.seconds_since_report == 4
  assert worker.metrics == {'return': 2.0, 'length': 5}


@pytest.mark.parametrize('number', [0, 1001, 10**9])
def test_actors_without_end_are_refused(number):
  state = run_state.RunState()
  state.scale(1000)
  message = f'num_actors must be at least 1 and at most 1000 .*, got {number}'
  with pytest.raises(ValueError, match=message):
    state.scale(number)
  assert state.status().num_actors == 1000


def test_the_sink_gets_metrics_with_the_counts_of_that_moment(clock):
  sink = ListSink()
  state = run_state.RunState(sink=sink, clock=clock)
  state.report('actor/0', {'env_steps': 3})
  clock.now += 2
  state.report('learner', {'learner_steps': 1}, {'loss': 0.5})
  assert sink.rows == [
    ('learner', 2.0, {'env_steps': 3, 'learner_steps': 1}, {'loss': 0.5})
  ]


def test_metrics_that_cannot_be_written_stop_the_run_and_say_so():
  state = run_state.RunState(sink=FullDisk())
  state.report('learner', {'learner_steps': 1}, {'loss': 0.5})
  stop = state.status().stop
  assert stop.reason == 'failed'
  assert 'nothing can be written to the metrics (No space left' in (stop.detail)
  assert 'Make room there' in stop.detail
  assert state.status().counts == {'learner_steps': 1}


def test_only_workers_of_the_run_may_report_or_fail():
  state = run_state.RunState(is_worker=lambda name: name == 'actor/0')
  state.report('actor/0')
  with pytest.raises(ValueError, match="'actor/1' is no worker of this run"):
    state.report('actor/1', {'env_steps': 5})
  with pytest.raises(ValueError, match="'' is no worker of this run"):
    state.fail('', 'Traceback')
  assert set(state.status().workers) == {'actor/0'}
  assert not state.status().counts


def test_metrics_beyond_a_number_are_written_and_not_kept(monkeypatch):
  monkeypatch.setattr(run_state, '_MAX_METRICS', 3)  # of one letter
  sink = ListSink()
  state = run_state.RunState(sink=sink)
  for value in (1.0, 2.0):
    state.report('a', metrics={'x': value, 'y': value})
    state.report('b', metrics={'x': value, 'y': value})
  workers = state.status().workers
  assert workers['a'].metrics == {'x': 2.0, 'y': 2.0}
  assert workers['b'].metrics == {'x': 2.0}
  assert [metrics for *_, metrics in sink.rows] == [
    {'x': value, 'y': value} for value in (1.0, 1.0, 2.0, 2.0)
  ]


def test_so_many_failures_are_kept_in_full_and_only_until_a_new_start():
  state = run_state.RunState()
  for number in range(30):
    state.fail(f'actor/{number}', 'Traceback')
  workers = state.status().workers.values()
  assert [bool(w.failure) for w in workers] == [True] * 20 + [False] * 10
  state.fail('actor/0', 'another')
  assert state.status().workers['actor/0'].failure == 'another'
  state.report('actor/0', state=status_lib.WorkerState.STARTING)
  assert state.status().workers['actor/0'].failure == ''
  state.fail('actor/29', 'Traceback')
  assert state.status().workers['actor/29'].failure == 'Traceback'

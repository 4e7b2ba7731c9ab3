"""What the sink writes, readers must find."""

import json
import logging as std_logging
import math
import os
import threading

import pytest
from tensorboard.backend.event_processing import event_accumulator

from distacme.run import metrics


@pytest.fixture
def sink(tmp_path):
  sink = metrics.MetricsSink(tmp_path, tensorboard=False)
  yield sink
  sink.close()


@pytest.mark.parametrize(
  ('worker', 'kind'),
  [('actor/3', 'actor'), ('actor_12', 'actor'), ('learner', 'learner')],
)
def test_a_workers_kind_is_its_name_without_the_number(worker, kind):
  assert metrics.worker_kind(worker) == kind


def test_a_line_can_be_read_at_once_and_holds_all_fields(sink, tmp_path):
  sink.write('actor/0', 1.5, {'env_steps': 64}, {'episode_return': 9})
  (row,) = metrics.read_metrics(tmp_path)
  assert row.pop('time') > 1.6e9
  assert row == {
    'seconds': 1.5,
    'worker': 'actor/0',
    'env_steps': 64,
    'episode_return': 9.0,
  }


def test_a_metric_named_like_a_field_keeps_both(sink, tmp_path):
  sink.write('evaluator', 1.5, {'env_steps': 64}, {'env_steps': 60, 'time': 7})
  (row,) = metrics.read_metrics(tmp_path)
  assert row['env_steps'] == 64
  assert row['evaluator/env_steps'] == 60
  assert row['evaluator/time'] == 7


def test_values_that_are_not_finite_survive_as_strict_json(sink, tmp_path):
  values = {'a': math.nan, 'b': math.inf, 'c': -math.inf}
  sink.write('learner', 0.0, {}, values)

  def refuse(token):
    raise AssertionError(f'{token} is not JSON')

  text = (tmp_path / metrics.METRICS_FILE).read_text()
  assert json.loads(text, parse_constant=refuse)['a'] == 'NaN'
  (row,) = metrics.read_metrics(tmp_path)
  assert math.isnan(row['a'])
  assert (row['b'], row['c']) == (math.inf, -math.inf)


def test_a_metric_that_is_not_finite_is_warned_of_once(sink, caplog):
  with caplog.at_level(std_logging.WARNING):
    for _ in range(3):
      sink.write('learner', 0.0, {}, {'loss': math.nan})
  (record,) = caplog.records
  assert 'Metric learner/loss of learner is nan' in record.getMessage()


def test_a_torn_last_line_is_skipped(sink, tmp_path):
  sink.write('learner', 0.0, {}, {'loss': 1.0})
  path = tmp_path / metrics.METRICS_FILE
  with path.open('a') as f:
    f.write('{"time": 17')
  assert [row['loss'] for row in metrics.read_metrics(path)] == [1.0]


def test_a_resumed_run_goes_on_after_a_torn_line(tmp_path):
  path = tmp_path / metrics.METRICS_FILE
  path.write_text('{"loss": 1.0}\n{"time": 17')
  sink = metrics.MetricsSink(tmp_path, tensorboard=False)
  sink.write('learner', 0.0, {}, {'loss': 2.0})
  sink.close()
  assert [row['loss'] for row in metrics.read_metrics(path)] == [1.0, 2.0]


def test_lines_of_several_threads_stay_whole(sink, tmp_path):
  def write(worker):
    for i in range(200):
      sink.write(worker, 0.0, {}, {'x': i})

  threads = [threading.Thread(target=write, args=(f'a/{i}',)) for i in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(metrics.read_metrics(tmp_path)) == 800


def scalars(path, tag):
  """Returns the steps and values that TensorBoard shows of a run directory."""
  directory = path / metrics.TENSORBOARD_DIR
  events = event_accumulator.EventAccumulator(str(directory)).Reload()
  return [(event.step, event.value) for event in events.Scalars(tag)]


def test_tensorboard_shows_a_curve_per_kind_over_env_steps(tmp_path):
  sink = metrics.MetricsSink(tmp_path)
  sink.write('actor/0', 1.0, {'env_steps': 10}, {'episode_return': 1.0})
  sink.write('actor/1', 1.0, {'env_steps': 20}, {'episode_return': 2.0})
  sink.write('actor/1', 2.0, {'env_steps': 30}, {'episode_return': math.nan})
  sink.write('learner/0', 2.0, {'env_steps': 30}, {'episode_return': 7.0})
  sink.close()
  assert scalars(tmp_path, 'actor/episode_return') == [(10, 1.0), (20, 2.0)]
  assert scalars(tmp_path, 'learner/episode_return') == [(30, 7.0)]


def test_tensorboard_shows_curves_over_the_clock_of_the_run(tmp_path):
  sink = metrics.MetricsSink(tmp_path, clock='learner_steps')
  sink.write('learner', 1.0, {'env_steps': 7, 'learner_steps': 3}, {'loss': 1})
  sink.write('learner', 1.0, {'env_steps': 8}, {'loss': 2})
  sink.close()
  assert scalars(tmp_path, 'learner/loss') == [(3, 1), (0, 2)]


def test_a_thousand_workers_take_one_file_and_no_more_descriptors(tmp_path):
  sink = metrics.MetricsSink(tmp_path)
  sink.write('actor/0', 1.0, {'env_steps': 1}, {'x': 1.0})
  opened, threads = len(os.listdir('/proc/self/fd')), threading.active_count()
  for number in range(1000):
    sink.write(f'actor/{number}', 1.0, {'env_steps': 2}, {'x': 1.0})
  assert len(os.listdir('/proc/self/fd')) == opened
  assert threading.active_count() == threads
  sink.close()
  assert len(list((tmp_path / metrics.TENSORBOARD_DIR).iterdir())) == 1


@pytest.mark.parametrize(
  'worker', ['..', '.', '../../x', '/etc', 'a' * 5000, '\u00e9' * 300]
)
def test_the_name_of_a_worker_is_no_path(tmp_path, worker):
  sink = metrics.MetricsSink(tmp_path / 'run')
  sink.write(worker, 1.0, {'env_steps': 2**63 - 1}, {'x': 1.0})
  sink.close()
  assert [path.name for path in tmp_path.iterdir()] == ['run']
  names = {path.name for path in (tmp_path / 'run').iterdir()}
  assert names == {metrics.METRICS_FILE, metrics.TENSORBOARD_DIR}


def test_other_files_beside_tensorboards_are_passed_over(tmp_path):
  directory = tmp_path / metrics.TENSORBOARD_DIR
  directory.mkdir()
  (directory / 'notes.txt').write_text('of a person')
  sink = metrics.MetricsSink(tmp_path)
  sink.write('learner', 1.0, {'env_steps': 7}, {'loss': 1})
  sink.close()
  assert scalars(tmp_path, 'learner/loss') == [(7, 1)]


def test_tensorboard_forgets_what_a_resumption_lost(tmp_path):
  def log(env_steps, resumed_at):
    sink = metrics.MetricsSink(tmp_path, resumed_at=resumed_at)
    for steps in env_steps:
      counts = {'env_steps': steps}
      sink.write('actor/0', 1.0, counts, {'x': float(steps + resumed_at)})
    sink.close()

  log([10, 20, 30, 40], 0)
  # So that its file has another name: tensorboardX counts seconds.
  for path in (tmp_path / metrics.TENSORBOARD_DIR).iterdir():
    path.rename(path.with_name(path.name.replace('tfevents.', 'tfevents.0')))
  log([25, 30], 20)
  assert scalars(tmp_path, 'actor/x') == [
    (10, 10.0), (20, 20.0), (25, 45.0), (30, 50.0),
  ]  # fmt: skip


def test_a_reader_goes_on_where_it_stopped(sink, tmp_path):
  reader = metrics.MetricsReader(tmp_path)
  assert reader.read() == []
  sink.write('learner', 0.0, {}, {'loss': 1.0})
  path = tmp_path / metrics.METRICS_FILE
  with path.open('a') as file:
    file.write('{"loss": 2.0')
  assert [row['loss'] for row in reader.read()] == [1.0]
  with path.open('a') as file:
    file.write('}\n')
  assert [row['loss'] for row in reader.read()] == [2.0]


def test_events_that_find_no_room_are_an_error_and_no_traceback(
  tmp_path, monkeypatch
):
  printed = []
  monkeypatch.setattr(threading, 'excepthook', printed.append)
  metrics._silence_writers.cache_clear()
  sink = metrics.MetricsSink(tmp_path)
  events = sink._tensorboard._writer.file_writer.event_writer
  record = events._ev_writer._py_recordio_writer
  record._writer.close()
  record._writer = open('/dev/full', 'wb', buffering=0)
  sink.write('actor/0', 1.0, {'env_steps': 1}, {'policy_lag': 1.0})
  events._worker.join(10)
  assert not events._worker.is_alive()
  with pytest.raises(OSError, match='its writer has ended'):
    sink.write('actor/0', 2.0, {'env_steps': 2}, {'policy_lag': 1.0})
  sink.close()
  events.close()  # as at exit
  record._writer.close()
  assert not printed
  metrics._silence_writers.cache_clear()


def test_events_may_be_closed_twice(tmp_path):
  sink = metrics.MetricsSink(tmp_path)
  sink.write('actor/0', 1.0, {'env_steps': 1}, {'policy_lag': 1.0})
  sink.close()
  sink.close()

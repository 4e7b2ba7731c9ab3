"""`distacme watch`: a run is found by its directory, and explains itself."""

import dataclasses
import io
import json
import os
import pty
import re
import signal
import subprocess
import time

import numpy as np
import pytest
from rich import console as rich_console

from distacme import status as status_lib
from distacme.programs import cli
from distacme.programs.view import dashboard
from distacme.programs.view import observer
from distacme.run import curves
from distacme.run import endpoints
from distacme.run import files
from distacme.run import metrics as metrics_lib
from distacme.run import run_directory
from distacme.run import run_state
from distacme.variables import server
from tests.programs import launching

NOBODY = endpoints.Endpoint('127.0.0.1', 1)  # where no server is


@pytest.fixture(name='directory')
def fixture_directory(tmp_path):
  """A run's directory, before anything happened in it."""
  return make_directory(tmp_path / 'run')


def make_directory(path, **run):
  path.mkdir()
  run = {'mode': 'processes', 'max_env_steps': 9, 'max_seconds': None} | run
  directory = run_directory.RunDirectory(path)
  files.write_json(directory.config, {'run': run, 'agent': {}})
  return directory


def watched(capsys, path):
  with pytest.raises(SystemExit) as exit_:
    cli.main(['watch', str(path)])
  captured = capsys.readouterr()
  return exit_.value.code, captured.out + captured.err


def rendered(view, width=100):
  output = io.StringIO()
  rich_console.Console(file=output, width=width).print(view)
  return output.getvalue()


def test_a_run_shows_its_workers_and_who_waits(directory, capsys):
  state = run_state.RunState()
  actor = state.reporter('actor/0')
  metrics = {'share_blocked_by_replay': 0.62, 'policy_lag': 7}
  actor.report({'env_steps': 1500}, metrics, status_lib.WorkerState.ACTING)
  service = server.VariableServer(state)
  with directory.running():
    endpoints.write(directory.endpoints, 'variables/0', service.endpoint)
    code, text = watched(capsys, directory.path)
  service.stop()
  assert code == 0
  assert re.search(r'actor/0 +│ acting +│ +[\d,]+ │ +7 │ +0\.\d s', text), text
  assert 'env 1,500 steps' in text
  assert 'the actor waits for the learner (62% of the time)' in text


def test_a_run_in_local_mode_is_known_by_its_metrics(tmp_path, capsys):
  directory = make_directory(tmp_path / 'local', mode='local')
  sink = metrics_lib.MetricsSink(directory.path, tensorboard=False)
  with directory.running():
    assert observer.Observer(directory.path).look().phase == 'starting'
    counts = {'env_steps': 1234, 'learner_steps': 56}
    sink.write('actor/0', 5.0, counts, {'env_steps_per_second': 321.0})
    sink.write('evaluator/0', 5.0, counts, {'mean_return': 0.5})
    code, text = watched(capsys, directory.path)
  sink.close()
  assert code == 0
  assert 'env 1,234 steps' in text
  assert re.search(r'actor/0 +│ +│ +321 │', text), text
  assert 'mean_return 0.5' in text
  assert 'The run is in local mode: this is what its metrics say.' in text
  assert 'none waits for another' in text
  assert 'nobody waits' not in text


def test_the_metrics_of_an_earlier_session_are_no_workers(tmp_path):
  directory = make_directory(tmp_path / 'local', mode='local')
  sink = metrics_lib.MetricsSink(directory.path, tensorboard=False)
  sink.write('actor/7', 5.0, {'env_steps': 1}, {'episode_return': 1.0})
  sink.write('evaluator/0', 5.0, {'env_steps': 1}, {'mean_return': 1.0})
  with directory.running():
    run = observer.Observer(directory.path)
    assert run.look().phase == 'starting'
    sink.write('actor/0', 0.5, {'env_steps': 2}, {'episode_return': 1.0})
    assert list(run.look().status.workers) == ['actor/0']
    assert len(run.curve().steps) == 1  # but its curve goes on
  sink.close()


def test_rates_are_those_of_the_last_seconds(tmp_path):
  directory = make_directory(tmp_path / 'local', mode='local')
  with directory.running():
    now = time.time()
    rows = [
      {'time': now + second, 'seconds': second, 'worker': 'actor/0'}
      | {'env_steps': 100 * second**2}
      for second in range(21)
    ]
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    (directory.path / metrics_lib.METRICS_FILE).write_text(text)
    status = observer.Observer(directory.path).look().status
  assert status.rates['env_steps'] == 100 * (20**2 - 10**2) / 10
  assert status.counts == {'env_steps': 40000}


def test_no_rate_is_negative_after_a_learner_went_back(tmp_path):
  directory = make_directory(tmp_path / 'local', mode='local')
  with directory.running():
    now = time.time()
    rows = [
      {'time': now + second, 'seconds': second, 'worker': 'learner/0'}
      | {'learner_steps': steps}
      for second, steps in enumerate([1000, 1100, 500])
    ]
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    (directory.path / metrics_lib.METRICS_FILE).write_text(text)
    status = observer.Observer(directory.path).look().status
  assert status.rates['learner_steps'] == 0.0


def test_a_run_on_another_host_is_known_by_its_metrics(directory, monkeypatch):
  sink = metrics_lib.MetricsSink(directory.path, tensorboard=False)
  with directory.running():
    endpoints.write(directory.endpoints, 'variables/0', NOBODY)
    monkeypatch.setattr(run_directory.platform, 'node', lambda: 'elsewhere')
    sink.write('actor/0', 5.0, {'env_steps': 1}, {'episode_return': 1.0})
    view = observer.Observer(directory.path).look()
  sink.close()
  assert view.phase == 'running'
  assert 'this is what its metrics say' in view.note


def test_a_run_without_a_server_yet_is_starting(directory, capsys):
  with directory.running():
    code, text = watched(capsys, directory.path)
    assert (code, text) == (0, 'The run starts: no worker is there yet.\n')


def test_a_run_that_has_ended_says_how(directory, capsys):
  state = run_state.RunState()
  state.reporter('actor/0').report(
    {'env_steps': 5}, state=status_lib.WorkerState.DONE
  )
  failed = status_lib.StopReason.FAILED
  state.request_stop(failed, 'IndexError: [red]7[/red]', 'actor/0')
  directory.write_summary(state.status())
  code, text = watched(capsys, directory.path)
  assert code == 0
  assert 'ended: failed (actor/0) after 0.0 s, 5 environment steps' in text
  assert 'IndexError: [red]7[/red]' in text


def test_an_end_that_is_damaged_is_a_sentence(directory, capsys, caplog):
  directory.summary.write_text('{"stop"')
  code, text = watched(capsys, directory.path)
  assert code == 2
  assert 'did not say how it ended' in text or 'before it could say' in text
  assert f'{directory.summary} is damaged' in caplog.text


def test_a_killed_run_is_refused_and_says_since_when(directory, capsys):
  gone = subprocess.Popen(['true'])
  gone.wait()
  sink = metrics_lib.MetricsSink(directory.path, tensorboard=False)
  sink.write('actor/0', 5.0, {'env_steps': 1}, {'episode_return': 1.0})
  sink.close()
  with directory.running():
    running = dataclasses.replace(directory.read_running(), pid=gone.pid)
    path = directory.path / 'running.json'
    files.write_json(path, dataclasses.asdict(running))
    code, text = watched(capsys, directory.path)
  assert code == 2
  assert f'was killed: its process {gone.pid} is gone' in text
  assert re.search(r'last metrics are of \d\d:\d\d:\d\d, \d s ago', text)
  assert text.count('\n') == 1


def test_a_server_that_does_not_answer_is_named(directory, capsys, monkeypatch):
  monkeypatch.setattr(observer, '_START_S', 0.0)
  with directory.running():
    endpoints.write(directory.endpoints, 'variables/0', NOBODY)
    code, text = watched(capsys, directory.path)
  assert code == 2
  assert 'The variable server at 127.0.0.1:1 has not answered for 1 s' in text
  assert 'it has logged nothing' in text


def test_a_server_that_falls_silent_leaves_what_it_said_last(directory):
  state = run_state.RunState()
  state.reporter('actor/0').report(
    {'env_steps': 5}, state=status_lib.WorkerState.ACTING
  )
  service = server.VariableServer(state)
  sink = metrics_lib.MetricsSink(directory.path, tensorboard=False)
  with directory.running():
    endpoints.write(directory.endpoints, 'variables/0', service.endpoint)
    sink.write('actor/0', 1.0, {'env_steps': 5}, {'episode_return': 1.0})
    run = observer.Observer(directory.path)
    assert run.look().phase == 'running'
    service.stop()
    view = run.look()
  sink.close()
  assert view.phase == 'silent'
  text = rendered(dashboard.picture(view, run.curve(), 100))
  assert 'acting' in text
  assert f'{service.endpoint.address} has not answered for 1 s' in text


def test_a_run_that_never_began_is_refused(directory, capsys):
  code, text = watched(capsys, directory.path)
  assert code == 2
  assert 'has not begun, or ended before it could say' in text


def test_what_is_no_run_is_refused(capsys, tmp_path):
  code, text = watched(capsys, tmp_path)
  assert code == 2
  assert text.startswith(f'distacme: {tmp_path} is no run directory')


@pytest.mark.parametrize('width', [50, 80, 200])
def test_a_curve_is_drawn_within_the_terminal(width):
  curve = curves.Curve(
    np.array([1000, 2_500_000]), np.array([-12345.0, 0.5]), 'env_steps'
  )
  lines = dashboard.chart(curve, width).splitlines()
  assert max(map(len, lines)) <= width
  assert any('⠤' in line or '⡠' in line for line in lines)
  assert re.search(r'\dM', lines[-1])


def test_one_evaluation_is_no_curve_yet():
  view = observer.View('running', run_state.RunState().status())
  one = curves.Curve(np.array([10]), np.array([1.0]), 'env_steps')
  two = curves.Curve(np.array([10, 20]), np.array([1.0, 2.0]), 'env_steps')
  assert '(return)' not in rendered(dashboard.picture(view, one, 100))
  assert '(return)' in rendered(dashboard.picture(view, two, 100))


def test_interrupting_the_watch_leaves_the_run_alone(directory):
  state = run_state.RunState()
  state.reporter('actor/0').report(
    {'env_steps': 5}, state=status_lib.WorkerState.ACTING
  )
  service = server.VariableServer(state)
  with directory.running():
    endpoints.write(directory.endpoints, 'variables/0', service.endpoint)
    with on_a_terminal(directory.path) as watcher:
      watcher.wait_for('actor/0')
      watcher.process.send_signal(signal.SIGINT)
      assert watcher.process.wait(20) == 130
  assert 'Traceback' not in watcher.output
  assert state.directive().stop is None
  service.stop()


def test_watching_lasts_until_the_run_ends(directory):
  state = run_state.RunState()
  state.reporter('actor/0').report(
    {'env_steps': 5}, state=status_lib.WorkerState.ACTING
  )
  service = server.VariableServer(state)
  with on_a_terminal(directory.path, directory.running()) as watcher:
    endpoints.write(directory.endpoints, 'variables/0', service.endpoint)
    watcher.wait_for('actor/0')
    state.request_stop(status_lib.StopReason.SOLVED, 'well done')
    service.stop()
    directory.write_summary(state.status())
    watcher.run_ends()
    watcher.wait_for('well done')
    assert watcher.process.wait(20) == 0
  assert 'ended: solved' in watcher.output


class on_a_terminal:
  """Runs `distacme watch` as a user sees it."""

  def __init__(self, path, running=None):
    self._path = path
    self._running = running
    self.output = ''

  def __enter__(self):
    if self._running:
      self._running.__enter__()
    self._terminal, terminal = pty.openpty()
    self.process = subprocess.Popen(
      [launching.SCRIPT, 'watch', self._path],
      stdin=terminal,
      stdout=terminal,
      stderr=terminal,
      env={**os.environ, 'TERM': 'xterm', 'COLUMNS': '120'},
    )
    os.close(terminal)
    return self

  def __exit__(self, *exception):
    self.process.kill()
    self.process.wait()
    os.close(self._terminal)

  def run_ends(self):
    self._running.__exit__(None, None, None)

  def wait_for(self, text):
    deadline = time.monotonic() + 30
    while text not in self.output:
      assert time.monotonic() < deadline, self.output
      try:
        self.output += os.read(self._terminal, 65536).decode(errors='replace')
      except OSError:  # the end
        assert text in self.output, self.output


@pytest.mark.program
def test_a_program_can_be_watched_from_its_start_to_its_end(tmp_path):
  flags = ('--hidden-sizes', '8', '--min-replay-size', '300')
  with launching.Run(tmp_path / 'run', *flags, '--num-actors', '1') as run:
    run.wait_for(lambda: (run.run_dir / 'config.json').exists())
    outside = observer.Observer(run.run_dir)
    run.wait_for(lambda: (run.run_dir / 'running.json').exists())
    # Who looks late sees it run already.
    assert outside.look().phase in ('starting', 'running')
    run.wait_until_learning()
    view = outside.look()
    assert view.phase == 'running'
    assert {'actor/0', 'learner/0', 'replay/0'} <= set(view.status.workers)
    run.process.send_signal(signal.SIGINT)
    assert run.wait()[0] == 130
    view = outside.look()
    assert view.phase == 'ended'
    assert view.status.stop.reason == 'interrupted'
    run = json.loads((run.run_dir / 'config.json').read_text())['run']
    assert run['mode'] == 'processes'


def test_a_directory_of_runs_names_one_of_them(directory, capsys):
  code, text = watched(capsys, directory.path.parent)
  assert code == 2
  assert f'Give one of the runs in it, like {directory.path}.' in text


def test_a_clock_that_jumps_changes_neither_rates_nor_silence(
  tmp_path, monkeypatch
):
  directory = make_directory(tmp_path / 'local', mode='local')
  sink = metrics_lib.MetricsSink(directory.path, tensorboard=False)
  now = time.time()
  with directory.running():
    run = observer.Observer(directory.path)
    for seconds, jump_s in ((1.0, 0), (2.0, 3600), (3.0, -3600), (4.0, -3600)):
      monkeypatch.setattr(time, 'time', lambda: now + seconds + jump_s)  # noqa: B023
      counts = {'env_steps': int(100 * seconds)}
      sink.write('actor/0', seconds, counts, {'policy_lag': seconds})
      seen = run.look().status
      assert seen.seconds == seconds
      worker = seen.workers['actor/0']
      assert worker.seconds_since_report == 0.0
      assert worker.metrics == {'policy_lag': seconds}
  sink.close()
  assert seen.rates['env_steps'] == 100.0


def test_rows_that_no_run_has_written_are_skipped(tmp_path):
  directory = make_directory(tmp_path / 'local', mode='local')
  (directory.path / metrics_lib.METRICS_FILE).write_text('{}\n[]\nx\n')
  assert observer.Observer(directory.path).look().phase == 'lost'

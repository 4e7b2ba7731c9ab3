"""Workers are killed one after another, and the run comes to its end all the same."""

import importlib.util
import json
import random
import signal
import time

import psutil
import pytest

from distacme.variables import client
from tests.programs import launching

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec('launchpad') is None,
  reason='Launchpad and Reverb exist for Python 3.10 only',
)

CHECKPOINT_PERIOD_S = 3.0
# What a sample of the counters may be older than what it shows.
SLACK_S = 3.0
KILLED = ('actor/1', 'evaluator/0', 'variables/0', 'replay/0', 'learner/0')
FLAGS = (
  *('--hidden-sizes', '64', '--min-replay-size', '300', '--num-actors', '3'),
  *(
    '--checkpoint-period-s',
    f'{CHECKPOINT_PERIOD_S:g}',
    '--eval-period',
    '2000',
  ),
  *('--hang-timeout-s', '12', '--max-seconds', '600', '--eval-episodes', '100'),
)


class Counters:
  """Looks at a run's counters again and again, and holds them to the promise."""

  def __init__(self, run):
    self._run = run
    self._seen = []  # (seconds, counts)

  def look(self):
    """Returns the counters; None while the variable server is not there."""
    running = json.loads((self._run.run_dir / 'running.json').read_text())
    try:
      counts = client.status(running['address'], timeout_s=1.0)['counts']
    except ConnectionError:
      return None
    now = time.monotonic()
    interval_s = CHECKPOINT_PERIOD_S + SLACK_S
    before = [c for t, c in self._seen if t < now - interval_s]
    for name, count in (before[-1] if before else {}).items():
      assert counts.get(name, 0) >= count, (name, counts, before[-1])
    self._seen.append((now, counts))
    return counts

  def wait_for(self, condition):
    """Waits until `condition(counts)`."""

    def holds():
      counts = self.look()
      return counts is not None and condition(counts)

    self._run.wait_for(holds)

  def wait_for_progress(self, env_steps):
    """Waits until both sides of the run have gone on."""
    start = None
    while start is None:
      start = self.look()
    self.wait_for(
      lambda counts: (
        counts['env_steps'] >= start['env_steps'] + env_steps
        and counts['learner_steps'] > start['learner_steps']
      )
    )


def newest_checkpoint(run):
  names = [path.name for path in (run.run_dir / 'checkpoints').glob('*')]
  return max((int(name) for name in names if name.isdigit()), default=0)


def fault_each_in_turn(run, counters, chance):
  """Kills one of each kind of worker and stops an actor, at random moments."""
  for name in chance.sample(KILLED, len(KILLED)):
    counters.wait_for_progress(chance.randrange(50, 400))
    saved = newest_checkpoint(run)
    worker = run.worker(name)
    worker.kill()
    run.wait_for(lambda: run.restarted(name, worker))  # noqa: B023
    counters.wait_for(lambda counts: counts['learner_steps'] >= saved)  # noqa: B023
  counters.wait_for_progress(100)
  hung = run.worker('actor/0')
  hung.suspend()
  run.wait_for(lambda: run.restarted('actor/0', hung))
  counters.wait_for_progress(100)


def ports(processes):
  """Returns the ports that processes listen on."""
  return {
    connection.laddr.port
    for process in processes
    for connection in process.net_connections('tcp')
    if connection.status == psutil.CONN_LISTEN
  }


def test_a_run_survives_whatever_is_killed(tmp_path):
  chance = random.Random(0)
  flags = (*FLAGS, '--max-env-steps', '30000')
  with launching.Run(tmp_path / 'run', *flags) as run:
    run.wait_until_learning()
    counters = Counters(run)
    fault_each_in_turn(run, counters, chance)
    listened = ports(run.family())
    reached = counters.look()
    run.process.send_signal(signal.SIGTERM)
    code, seconds = run.wait()
    assert code == 143, run.output
    assert seconds < 10.0
    assert not run.left_after(1)
  restarts = {name: 1 for name in (*KILLED, 'actor/0')}
  assert run.summary['restarts'] == restarts
  with launching.Run(run.run_dir, *flags) as resumed:
    code, _ = resumed.wait(240)
    assert code == 0, resumed.output
    assert not resumed.left_after(1)
    counts = resumed.summary['counts']
  assert counts['env_steps'] >= max(30_000, reached['env_steps'])
  assert counts['learner_steps'] > reached['learner_steps']
  assert not resumed.summary['failures']
  best = json.loads((run.run_dir / 'best/score.json').read_text())
  assert best['mean_return'] >= 0.9
  left = {
    connection.laddr.port
    for connection in psutil.net_connections('tcp')
    if connection.status == psutil.CONN_LISTEN
  }
  assert not listened & left

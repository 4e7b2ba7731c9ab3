"""Workers are killed one after another, and the run comes to its end all the same.

`make chaos` does so for longer, and watches what memory the workers take.
"""

import random
import signal
import time

import psutil
import pytest

from distacme.variables import client
from tests.programs import launching

pytestmark = pytest.mark.program

# Counters are saved every second; on a busy machine that may come late.
SLACK_S = 5.0
MIN_SIZE = 300
KILLED = ('actor/1', 'evaluator/0', 'variables/0', 'replay/0', 'learner/0')
FLAGS = (
  *('--hidden-sizes', '64', '--min-replay-size', f'{MIN_SIZE}'),
  *('--num-actors', '3'),
  *('--checkpoint-period-s', '1', '--replay-checkpoint-period-s', '1'),
  *('--eval-period', '2000', '--max-eval-share', '1'),
  *('--hang-timeout-s', '12', '--eval-episodes', '100'),
)


class Counters:
  """Looks at a run's counters again and again, and holds them to the promise.

  Environment steps never fall below what they were some seconds before, nor learner
  steps below the checkpoint that there was then. What they were before the variable
  server was killed it had saved if it was some seconds before that.
  """

  def __init__(self, run):
    self._run = run
    self._promised = []  # (since when, counts)

  def look(self):
    """Returns the counters; None while the variable server is not there."""
    saved = newest_checkpoint(self._run)
    try:
      endpoint = self._run.server
      counts = client.status(endpoint, timeout_s=1.0).counts
    except ConnectionError:
      return None
    for _, promised in self._saved()[-1:]:
      for name, least in promised.items():
        assert counts.get(name, 0) >= least, (name, counts, least)
    # A server that was killed has lost a second of steps that the learner has made.
    saved = min(saved, counts['learner_steps'])
    least = {'env_steps': counts['env_steps'], 'learner_steps': saved}
    self._promised.append((time.monotonic(), least))
    return counts

  def note_killed_server(self):
    """Forgets what the variable server may not have saved before it was killed."""
    self._promised = self._saved()

  def _saved(self):
    before = time.monotonic() - SLACK_S
    return [promise for promise in self._promised if promise[0] < before]

  def wait_for(self, condition, timeout_s=launching.DEADLINE_S):
    """Waits until `condition(counts)`."""

    def holds():
      counts = self.look()
      return counts is not None and condition(counts)

    self._run.wait_for(holds, timeout_s)

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
    if name == 'replay/0':
      wait_for_two_savings_of_replay(run)
    worker = run.worker(name)
    worker.kill()
    killed_at = time.time()
    if name == 'variables/0':
      counters.note_killed_server()
    run.wait_for(lambda: run.restarted(name, worker))  # noqa: B023
    if name == 'replay/0':
      run.wait_for(lambda: sizes_of_replay(run, killed_at))  # noqa: B023
      size, *_ = sizes_of_replay(run, killed_at)
      # Less, and the learner would have waited for it to fill again.
      assert size >= MIN_SIZE, size
  counters.wait_for_progress(100)
  hung = run.worker('actor/0')
  hung.suspend()
  run.wait_for(lambda: run.restarted('actor/0', hung))
  counters.wait_for_progress(100)


def wait_for_two_savings_of_replay(run):
  """Waits until replay was saved twice: the kill may spoil the last time."""
  directory = run.run_dir / 'replay'
  before = set(directory.glob('[0-9]*'))  # which may hold nothing yet
  run.wait_for(lambda: len(set(directory.glob('[0-9]*')) - before) >= 2)


def sizes_of_replay(run, since):
  """Returns what replay said that it held since then, in order."""
  return [
    row['size']
    for row in run.metrics()
    if row['worker'] == 'replay/0' and row['time'] > since
  ]


def scores(run, since):
  """Returns the mean returns of evaluations since then."""
  return [
    row['mean_return']
    for row in run.metrics()
    if 'mean_return' in row and row['time'] > since
  ]


def ports(processes):
  """Returns the ports that processes listen on."""
  return {
    connection.laddr.port
    for process in processes
    for connection in process.net_connections('tcp')
    if connection.status == psutil.CONN_LISTEN
  }


@pytest.mark.parametrize(
  ('rounds', 'seed'),
  [
    pytest.param(1, 0, marks=pytest.mark.launchpad),
    *(pytest.param(5, seed, marks=pytest.mark.chaos) for seed in (1, 2, 3)),
  ],
)
def test_a_run_survives_whatever_is_killed(rounds, seed, tmp_path):
  chance = random.Random(seed)
  flags = (*FLAGS, '--max-restarts', f'{rounds + 1}')
  with launching.Run(tmp_path / 'run', *flags) as run:
    run.wait_until_learning()
    counters = Counters(run)
    for _ in range(rounds):
      fault_each_in_turn(run, counters, chance)
    listened = ports(run.family())
    reached = counters.look()
    run.process.send_signal(signal.SIGTERM)
    code, seconds = run.wait()
    assert code == 143, run.output
    assert seconds < 10.0
    assert not run.left_after(1)
  restarts = {name: ['ended with signal 9'] * rounds for name in KILLED}
  hung = 'gave no sign of life for 12 s and was killed'
  restarts['actor/0'] = [hung] * rounds
  assert run.summary.restarts == restarts
  target = reached['env_steps'] + 15_000
  flags = (*flags, '--max-env-steps', f'{target}')
  resumed_at = time.time()
  with launching.Run(run.run_dir, *flags) as resumed:
    code, _ = resumed.wait(240)
    assert code == 0, resumed.output
    assert not resumed.left_after(1)
    counts = resumed.summary.counts
  assert counts['env_steps'] >= target
  assert counts['learner_steps'] > reached['learner_steps']
  assert not resumed.summary.failures
  assert sizes_of_replay(resumed, resumed_at)[0] >= MIN_SIZE
  # Not the best of the run, which may be from before all this.
  assert max(scores(resumed, resumed_at)) >= 0.9
  left = {
    connection.laddr.port
    for connection in psutil.net_connections('tcp')
    if connection.status == psutil.CONN_LISTEN
  }
  assert not listened & left


@pytest.mark.chaos
def test_a_worker_that_hangs_does_not_outlive_a_killed_launcher(
  tmp_path, monkeypatch
):
  monkeypatch.setenv('HANG', str(tmp_path / 'hung'))
  with launching.Run(
    tmp_path / 'run', *FLAGS, env='broken_environments:hung_once'
  ) as run:
    run.wait_for((tmp_path / 'hung').exists)
    assert len(run.family()) == 7
    run.process.kill()
    assert not run.left_after(25)


@pytest.mark.chaos
def test_memory_stays_flat_over_a_million_inserts(tmp_path):
  flags = (
    *('--hidden-sizes', '32', '--num-actors', '2', '--envs-per-actor', '32'),
    *('--block-size', '32', '--priority-exponent', '0'),
    *('--samples-per-insert', '1', '--max-replay-size', '50000'),
    *('--max-env-steps', '1300000', '--eval-period', '100000'),
  )
  with launching.Run(tmp_path / 'run', *flags) as run:
    run.wait_until_learning()
    counters = Counters(run)
    # Until replay is full, and everything has been done once.
    counters.wait_for(lambda counts: counts['env_steps'] >= 250_000, 900)
    names = ('actor/0', 'actor/1', 'learner/0', 'replay/0', 'variables/0')
    workers = {name: run.worker(name) for name in (*names, 'evaluator/0')}
    workers['launcher'] = psutil.Process(run.process.pid)
    before = {n: w.memory_info().rss for n, w in workers.items()}
    counters.wait_for(lambda counts: counts['env_steps'] >= 1_250_000, 900)
    after = {n: w.memory_info().rss for n, w in workers.items()}
    code, _ = run.wait()
    assert code == 0, run.output
  grown_mb = {n: (after[n] - before[n]) / 1e6 for n in workers}
  # A leak of 32 bytes in each insert would be 32 MB.
  assert max(grown_mb.values()) < 25, grown_mb

"""Faults of a run by a random schedule: what is killed, and what was lost."""

from __future__ import annotations

import contextlib
import json
import signal
import time

from distacme.run import run_directory
from distacme.variables import client
from tests.programs import launching

# Counters are saved every second; on a busy machine that may come late.
SLACK_S = 5.0
MIN_SIZE = 300
KILLED = ('actor/1', 'evaluator/0', 'variables/0', 'replay/0', 'learner/0')
HANG_S = 12
HUNG = f'gave no sign of life for {HANG_S} s and was killed'
FLAGS = (
  *('--hidden-sizes', '64', '--min-replay-size', f'{MIN_SIZE}'),
  *('--num-actors', '3'),
  *('--checkpoint-period-s', '1', '--replay-checkpoint-period-s', '1'),
  *('--eval-period', '2000', '--max-eval-share', '1'),
  *('--hang-timeout-s', f'{HANG_S}', '--eval-episodes', '100'),
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
    self.last = {}
    self.lowest = {}  # since `begin`

  def begin(self):
    """Begins to note the lowest counters; returns those of now."""
    counts = None
    while counts is None:
      counts = self.look()
    self.lowest = dict(counts)
    return counts

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
    for name, count in counts.items():
      self.lowest[name] = min(count, self.lowest.get(name, count))
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


class Report:
  """Sums up the faults of a schedule, the restarts and what was lost."""

  def __init__(self, seed, rounds):
    self._start = time.monotonic()
    self._head = {'seed': seed, 'rounds': rounds}
    self._faults = {}

  def note(self, fault, seconds, before, lowest):
    """Notes a fault, the time until its worker ran again, and the counters."""
    row = self._faults.setdefault(
      fault, {'times': 0, 'restart_s': 0.0, 'lost': {}}
    )
    row['times'] += 1
    row['restart_s'] = round(max(row['restart_s'], seconds), 1)
    for name, count in before.items():
      lost = max(count - lowest.get(name, 0), row['lost'].get(name, 0))
      if lost:
        row['lost'][name] = lost

  def as_json(self):
    """Returns the report; the most of each number that any fault cost."""
    seconds = round(time.monotonic() - self._start)
    whole = {**self._head, 'seconds': seconds, 'faults': self._faults}
    return json.dumps(whole, indent=2, sort_keys=True)


def newest_checkpoint(run):
  """Returns the learner step of the newest checkpoint, 0 if there is none."""
  return run_directory.RunDirectory(run.run_dir).last_step() or 0


def fault_each_in_turn(run, counters, chance, report, hang):
  """Kills one of each kind of worker, at random moments; may stop an actor."""
  for name in chance.sample(KILLED, len(KILLED)):
    counters.wait_for_progress(chance.randrange(50, 400))
    if name == 'replay/0':
      wait_for_two_savings_of_replay(run)
    number = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
    if name == 'variables/0':  # whose SIGTERM is the run's
      number = signal.SIGKILL
    fault(run, counters, report, name, number)
  if hang:
    counters.wait_for_progress(100)
    fault(run, counters, report, 'actor/0', signal.SIGSTOP)


def fault(run, counters, report, name, number):
  """Sends a signal to a worker, and waits until it runs again and works."""
  worker = run.worker(name)
  before = counters.begin()
  sent_at, start = time.time(), time.monotonic()
  worker.send_signal(number)
  if name == 'variables/0':
    counters.note_killed_server()
  run.wait_for(lambda: run.restarted(name, worker))
  seconds = time.monotonic() - start
  if name == 'replay/0':
    run.wait_for(lambda: sizes_of_replay(run, sent_at))
    size, *_ = sizes_of_replay(run, sent_at)
    # Less, and the learner would have waited for it to fill again.
    assert size >= MIN_SIZE, size
  counters.wait_for_progress(100)
  kind = f'{signal.Signals(number).name} of {name}'
  report.note(kind, seconds, before, counters.lowest)


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


def kill_everything(run):
  """Kills launcher and workers at once, as where the machine dies."""
  processes = [run.process, *run.family()]
  for process in processes:
    with contextlib.suppress(Exception):  # it has just ended
      process.kill()
  run.process.wait()
  assert not run.left_after(1)

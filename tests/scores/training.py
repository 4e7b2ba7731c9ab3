"""Training runs of the command line, and the record that is kept of them.

The file that DISTACME_LEARNING_RESULTS names, by default docs/scores.jsonl, has the
last result of every command; `scripts/score_table` makes tables of it.
"""

import datetime
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
import time

from distacme.run import curves
from distacme.run import run_directory

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = pathlib.Path(
  os.environ.get('DISTACME_LEARNING_RESULTS', ROOT / 'docs/scores.jsonl')
)


def train(agent, flags, directory, control=False, timeout_s=1800, cwd=ROOT):
  """Runs `distacme train`; returns what the run came to, and keeps a record.

  Args:
    agent: its name.
    flags: all others.
    directory: of the run.
    control: whether this must not learn.
    timeout_s: how long the command may take.
    cwd: folder in which it runs.
  """
  command = command_of(agent, flags)
  program = pathlib.Path(sys.executable).with_name(command[0])
  code, start = machine(), time.monotonic()
  done = subprocess.run(
    [program, *command[1:], '--run-dir', directory],
    cwd=cwd,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=timeout_s,
  )
  wall_s = time.monotonic() - start
  assert done.returncode == 0, done.stdout[-4000:]
  summary = run_directory.RunDirectory(directory).read_summary()
  score = json.loads((directory / 'best/score.json').read_text())
  curve = curves.read_curve(directory)
  assert summary.counts['learner_steps'] > 0
  return record(
    shlex.join(command),
    control=control,
    env_steps=summary.counts.get('env_steps', 0),
    learner_steps=summary.counts['learner_steps'],
    wall_s=round(wall_s, 1),
    stop=summary.stop.reason,
    final_return=summary.workers['evaluator/0'].metrics['mean_return'],
    best_return=score['mean_return'],
    evaluations=summary.counts['evaluations'],
    # Environment steps and mean return of each; rows of before lack it.
    curve=[
      [int(steps), float(mean)]
      for steps, mean in zip(curve.steps, curve.returns, strict=True)
    ],
    **code,
  )


def command_of(agent, flags):
  """Returns the words of the command that `train` runs, but for the directory."""
  return ['distacme', 'train', '--agent', agent, *shlex.split(flags)]


def recorded(agent, flags):
  """Returns the last result of a command that `train` ran; fails if there is none."""
  command = shlex.join(command_of(agent, flags))
  rows = records()
  assert command in rows, f'{RESULTS} has no result of {command}'
  return rows[command]


def records():
  """Returns all results that are kept, by their commands."""
  lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
  return {row['command']: row for row in map(json.loads, lines)}


def record(command, **result):
  """Keeps a result in the place of the last one of this command."""
  row = {'command': command, **machine(), **result}
  RESULTS.parent.mkdir(parents=True, exist_ok=True)
  rows = records()
  rows[command] = row
  RESULTS.write_text(''.join(json.dumps(r) + '\n' for r in rows.values()))
  return row


def machine():
  """Returns where and when a result was measured, and of which code."""
  git = ['git', '-C', str(ROOT)]
  commit = subprocess.run(
    [*git, 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True
  ).stdout.strip()
  status = [*git, 'status', '--porcelain', '--', '*.py']
  changed = subprocess.run(status, capture_output=True, text=True).stdout
  return {
    'date': datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    'cores': len(os.sched_getaffinity(0)),
    'cpu': cpu_model(),
    'git': commit + ('+changes' if changed else ''),
  }


def cpu_model():
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return platform.processor()
  models = [line for line in lines if line.startswith('model name')]
  return models[0].partition(': ')[2] if models else platform.machine()

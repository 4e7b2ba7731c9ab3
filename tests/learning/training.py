"""Training runs of the command line, and the record that is kept of them.

Every run appends a line to the file that DISTACME_LEARNING_RESULTS names, by
default runs/learning.jsonl.
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

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = pathlib.Path(
  os.environ.get('DISTACME_LEARNING_RESULTS', ROOT / 'runs/learning.jsonl')
)


def train(agent, flags, directory):
  """Runs `distacme train`; returns what the run came to, and keeps a record."""
  command = ['distacme', 'train', '--agent', agent, *shlex.split(flags)]
  program = pathlib.Path(sys.executable).with_name(command[0])
  start = time.monotonic()
  done = subprocess.run(
    [program, *command[1:], '--run-dir', directory],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=1800,
  )
  wall_s = time.monotonic() - start
  assert done.returncode == 0, done.stdout[-4000:]
  summary = json.loads((directory / 'summary.json').read_text())
  score = json.loads((directory / 'best/score.json').read_text())
  config = json.loads((directory / 'config.json').read_text())
  result = {
    'command': shlex.join(command),
    'seed': config['run']['seed'],
    'env_steps': summary['counts']['env_steps'],
    'learner_steps': summary['counts']['learner_steps'],
    'wall_s': round(wall_s, 1),
    'run_s': round(summary['seconds'], 1),
    'stop': summary['stop']['reason'],
    'final_return': summary['workers']['evaluator/0']['metrics']['mean_return'],
    'best_return': score['mean_return'],
    'evaluations': summary['counts']['evaluations'],
    **machine(),
  }
  RESULTS.parent.mkdir(parents=True, exist_ok=True)
  with RESULTS.open('a') as file:
    file.write(json.dumps(result) + '\n')
  assert result['learner_steps'] > 0
  return result


def machine():
  """Returns where and when a result was measured, and of which code."""
  git = ['git', '-C', str(ROOT)]
  commit = subprocess.run(
    [*git, 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True
  ).stdout.strip()
  status = [*git, 'status', '--porcelain', '--untracked-files=no']
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

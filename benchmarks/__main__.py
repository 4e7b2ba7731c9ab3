"""Runs benchmarks and shows them as a table.

    python -m benchmarks [GROUP ...] [--record]

With --record, if no group failed, the rows replace those of the same name in the
table of docs/benchmarks.md. A run of all groups replaces the whole table.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys

from rich import console as rich_console
from rich import table as rich_table

from benchmarks import harness
from distacme.programs import program
from distacme.programs import run_config
from distacme.run import cores

_ROOT = pathlib.Path(__file__).parents[1]
_DOCUMENT = _ROOT / 'docs/benchmarks.md'
_PROGRAM = program.make_program(run_config.RunConfig(mode='processes'))
# One core for XLA, as the actor has it; benchmarks/learner.py says why.
_LEARNER = {**_PROGRAM['learner/0'].env, **cores.acting()}
# Environment variables of each group: those of its worker in a program.
_GROUPS = {
  'actor': _PROGRAM['actor/0'].env,
  'learner': _LEARNER,
  'agents': _LEARNER,
  'replay': _PROGRAM['learner/0'].env,
  'shards': _PROGRAM['learner/0'].env,
  'tables': {},
  'unrolls': {},
  'params': _PROGRAM['variables/0'].env,
  'fan_out': _PROGRAM['variables/0'].env,
  'scale': {},
  'program': {},
  'scaling': {},
  'search': _PROGRAM['actor/0'].env,
  'rivals': {},
  'one_core': {},
  'continuous_rivals': {},
}
_HEADER = ('what', 'ours', 'limit', 'figure', 'rounds', 'goal', 'met')
_RECORDED = (*_HEADER, 'date', 'commit')


def main() -> int:
  """Runs benchmarks; returns 0 if no group failed."""
  parser = argparse.ArgumentParser(prog='python -m benchmarks')
  parser.add_argument('groups', nargs='*', metavar='GROUP', default=[])
  parser.add_argument('--record', action='store_true')
  flags = parser.parse_args()
  unknown = set(flags.groups) - set(_GROUPS)
  if unknown:
    parser.error(f'unknown groups {unknown}; there are {", ".join(_GROUPS)}.')
  results: list[harness.Result] = []
  failed = []
  for group in flags.groups or _GROUPS:
    found, code = run(group)
    results += found
    if code:
      failed.append(group)
  show(results)
  if failed:
    print(f'failed: {", ".join(failed)}', file=sys.stderr)
    return 1
  if flags.record:
    record(results, keep=bool(flags.groups))
  return 0


def run(group: str) -> tuple[list[harness.Result], int]:
  """Runs a group, printing results at once; returns them and the exit code."""
  process = subprocess.Popen(
    [sys.executable, '-m', f'benchmarks.{group}'],
    cwd=_ROOT,
    env=os.environ | dict(_GROUPS[group]),
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout is not None
  results = []
  for line in process.stdout:
    if line.startswith('{"result"'):
      results.append(harness.Result(**json.loads(line)['result']))
      print(' | '.join(cells(results[-1])), flush=True)
    elif line.startswith(('SKIPPED', '| ')):
      print(line, end='', flush=True)
  return results, process.wait()


def cells(result: harness.Result) -> tuple[str, ...]:
  """Returns the cells of a result's row in the table."""
  limit, percent = '', result.limit is not None

  def figure(value: float) -> str:
    return f'{value:.0%}' if percent else f'{value:,.4g}'

  if result.limit is not None:
    limit = f'{_number(result.limit)} ({result.limit_name})'
  goal = ''
  if result.at_least is not None:
    goal = f'at least {figure(result.at_least)}'
  elif result.at_most is not None:
    goal = f'at most {figure(result.at_most)}'
  return (
    result.name,
    f'{_number(result.ours)} {result.unit}',
    limit,
    figure(result.figure) if percent else '',
    f'{figure(result.low)} to {figure(result.high)}',
    goal,
    {True: 'yes', False: 'NO', None: ''}[result.met],
  )


def _number(value: float) -> str:
  return f'{value:,.0f}' if abs(value) >= 100 else f'{value:.3g}'


def show(results: list[harness.Result]) -> None:
  """Prints the table."""
  table = rich_table.Table(*_HEADER)
  for result in results:
    table.add_row(*cells(result))
  rich_console.Console().print(table)


def record(results: list[harness.Result], keep: bool) -> None:
  """Writes rows into the document's table.

  Args:
    results: new rows.
    keep: whether rows of other names stay.
  """
  text = _DOCUMENT.read_text()
  found = re.search(r'(?s)<!-- speed -->\n(.*?)<!-- /speed -->', text)
  assert found, f'{_DOCUMENT} has no place for the table'
  old = found[1].splitlines()[2:] if keep else []
  rows = {line.split(' | ')[0]: line for line in old if line.startswith('| ')}
  measured = (
    str(datetime.datetime.now(datetime.timezone.utc).date()),
    _commit(),
  )
  for result in results:
    line = f'| {" | ".join((*cells(result), *measured))} |'
    rows[line.split(' | ')[0]] = line
  lines = [
    f'| {" | ".join(_RECORDED)} |',
    '|' + '---|' * len(_RECORDED),
    *rows.values(),
    '',
    f'{len(os.sched_getaffinity(0))} cores, {_cpu()}.',
  ]
  table = '\n'.join(lines) + '\n\n'
  _DOCUMENT.write_text(text[: found.start(1)] + table + text[found.end(1) :])


def _commit() -> str:
  return subprocess.run(
    ['git', '-C', str(_ROOT), 'describe', '--always', '--dirty'],
    capture_output=True,
    text=True,
  ).stdout.strip()


def _cpu() -> str:
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return platform.processor()
  models = [line for line in lines if line.startswith('model name')]
  return models[0].partition(': ')[2] if models else platform.machine()


if __name__ == '__main__':
  sys.exit(main())

"""Flags that commands share which play episodes with a run's params."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

from distacme.programs import trusted_names

_PARTS = ('env', 'agent', 'network')


def add_run_dir(parser: argparse.ArgumentParser) -> None:
  """Adds the argument that names a run to a parser."""
  parser.add_argument(
    'run_dir',
    type=pathlib.Path,
    metavar='RUN_DIR',
    help="what 'distacme train' printed as 'run directory'",
  )


def add(parser: argparse.ArgumentParser, episodes: int | None) -> None:
  """Adds the flags of a run, its params and the episodes to a parser.

  Args:
    parser: of a command.
    episodes: to play by default; None for a command that plays one, which has no
      flag for the number.
  """
  add_run_dir(parser)
  if episodes is not None:
    parser.add_argument(
      '--episodes',
      type=int,
      default=episodes,
      metavar='N',
      help=f'how many to play (default: {episodes})',
    )
  parser.add_argument(
    '--seed',
    type=int,
    default=0,
    metavar='N',
    help='of the environments (default: 0); none plays the episodes of training',
  )
  parser.add_argument(
    '--newest',
    action='store_true',
    help='take the params of the newest checkpoint, not the best',
  )
  for part in _PARTS:
    parser.add_argument(
      f'--{part}',
      metavar='NAME',
      help=f"of the run, as for 'distacme train', if the {part} is of your own",
    )
  parser.add_argument(
    trusted_names.FLAG,
    action='store_true',
    help='import the environment, agent and network that the directory names, '
    'also those that are no part of distacme; this runs their code',
  )


def check(flags: argparse.Namespace) -> None:
  """Checks the numbers.

  Raises:
    ValueError: if one is too small.
  """
  for name, least in (('episodes', 1), ('seed', 0)):
    if getattr(flags, name, least) < least:
      raise ValueError(
        f'{name} must be at least {least}, got {getattr(flags, name)}.'
      )


def of_loading(flags: argparse.Namespace) -> dict[str, Any]:
  """Returns the arguments of `loading.load` beside the run's directory."""
  own = {part: getattr(flags, part) for part in _PARTS}
  return {
    'best': not flags.newest,
    'trust_run_dir': flags.trust_run_dir,
    **own,
  }


def num_episodes(count: int) -> str:
  """Returns a number of episodes in words."""
  return f'{count} episode{"s" if count != 1 else ""}'


def cut_off(count: int) -> str:
  """Returns a sentence about the episodes that did not end by themselves."""
  return f'; {count} did not end and were cut off' if count else ''

"""`distacme plot RUN_DIR...`: draws learning curves as PNG."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import pathlib

from distacme.programs import trusted_names
from distacme.programs.view import curve_groups
from distacme.programs.view import plotting


def main(arguments: Sequence[str]) -> int:
  """Draws the curves and prints the paths of the pictures."""
  parser = argparse.ArgumentParser(
    prog='distacme plot',
    description='Draws the evaluated returns of runs over environment steps (or '
    'learner steps, by their --clock), a panel for each environment. Runs that '
    'differ in their seed only share a line, their mean, in a band from the '
    'lowest to the highest.',
  )
  parser.add_argument(
    'run_dirs',
    type=pathlib.Path,
    nargs='+',
    metavar='RUN_DIR',
    help="what 'distacme train' printed as 'run directory', or as 'directory of "
    "the runs' (--seeds)",
  )
  parser.add_argument(
    '--output',
    type=pathlib.Path,
    metavar='FILE',
    default=pathlib.Path(plotting.FILE),
    help=f'file to write (default: {plotting.FILE})',
  )
  parser.add_argument(
    trusted_names.FLAG,
    action='store_true',
    help='import agents that the directories name and that are no part of '
    'distacme, for the defaults of settings that some of their runs lack; this '
    'runs their code',
  )
  flags = parser.parse_args(arguments)
  if flags.output.suffix != '.png':
    raise ValueError(
      f'output must be a .png file, got {str(flags.output)!r}. Write for '
      f'instance {str(flags.output.with_suffix(".png"))!r}.'
    )
  if not flags.output.parent.is_dir():
    raise ValueError(
      f'{flags.output.parent} is no directory. Make it, or choose another '
      '--output.'
    )
  groups = curve_groups.grouped(flags.run_dirs, trusted=flags.trust_run_dir)
  plotting.draw(groups, flags.output)
  print(flags.output.resolve())
  return 0

"""Runs `distacme train` for one of several seeds, ended with its parent."""

from __future__ import annotations

import sys

from distacme.runtime import ending

if __name__ == '__main__':
  ending.at_signals()
  # Not above: a signal would end these imports in a traceback.
  from distacme.programs import start
  from distacme.runtime import process_tree

  process_tree.die_with_parent()
  start.main(['train', *sys.argv[1:]])

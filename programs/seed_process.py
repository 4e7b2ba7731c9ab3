"""Runs `distacme train` for one of several seeds, ended with its parent."""

from __future__ import annotations

import sys

from distacme.programs import cli
from distacme.runtime import process_tree

if __name__ == '__main__':
  process_tree.die_with_parent()
  cli.main(['train', *sys.argv[1:]])

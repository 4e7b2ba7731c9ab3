"""`distacme cluster-example`: prints a cluster.toml with every field."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from distacme.deploy import cluster


def main(arguments: Sequence[str]) -> int:
  """Prints the example."""
  argparse.ArgumentParser(
    prog='distacme cluster-example',
    description='Prints a description of a cluster with every field and its '
    'default, for --cluster: change what differs on yours.',
  ).parse_args(arguments)
  print(cluster.EXAMPLE.read_text(), end='')
  return 0

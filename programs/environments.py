"""`distacme environments`: where an agent can learn, and what it is called."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

# By family: a name, and what its second part is.
EXAMPLES = {
  'bsuite': ('bsuite:catch/0', 'experiment/number of its settings'),
  'gymnasium': ('gymnasium:CartPole-v1', 'the id that gymnasium.make takes'),
}
_OF_YOUR_OWN = 'distacme.testing.environments:catch'


def main(arguments: Sequence[str]) -> int:
  """Prints each family with an example."""
  argparse.ArgumentParser(
    prog='distacme environments',
    description='Lists the families of environments and how to name them.',
  ).parse_args(arguments)
  from distacme.environments import families

  for family in sorted(families.FAMILIES):
    example, rest = EXAMPLES.get(family, (f'{family}:NAME', ''))
    print(f'{family:12}--env {example:38}{rest}'.rstrip())
  print(
    f'{"your own":12}--env {_OF_YOUR_OWN:38}package.module:function of a seed'
    "\n\nTrain in one with 'distacme train --env NAME'. A function of a seed "
    'returns a\ndm_env.Environment or a gymnasium.Env. A name that is not known '
    'is answered with\nthe nearest ones.'
  )
  return 0

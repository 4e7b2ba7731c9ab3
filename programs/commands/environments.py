"""`distacme environments`: lists families of environments and their names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import textwrap

# By family: an example of a name, and the meaning of the name's second part.
EXAMPLES = {
  'atari': ('atari:Pong', 'a game of ale-py'),
  'bsuite': ('bsuite:catch/0', 'experiment/number of its settings'),
  'dm_control': ('dm_control:cartpole/balance', 'domain/task of its suite'),
  'gymnasium': ('gymnasium:CartPole-v1', 'the id that gymnasium.make takes'),
  'jax': ('jax:catch', 'written in JAX, for searches'),
  'minatar': ('minatar:breakout', 'a game of MinAtar'),
  'pgx': ('pgx:connect_four', 'a game of pgx, for searches'),
}
# Options of families that have no dataclass of options.
_OPTIONS = {
  'gymnasium': 'max_episode_steps=50, and what the constructor of the '
  'environment takes, like is_slippery=false of FrozenLake-v1'
}
_OF_YOUR_OWN = 'distacme.testing.environments:catch'


def main(arguments: Sequence[str]) -> int:
  """Prints each family with an example."""
  argparse.ArgumentParser(
    prog='distacme environments',
    description='Lists the families of environments and how to name them.',
  ).parse_args(arguments)
  from distacme.environments import families
  from distacme.environments import name_options

  for family in sorted(families.FAMILIES):
    example, rest = EXAMPLES.get(family, (f'{family}:NAME', ''))
    print(f'{family:12}--env {example:38}{rest}'.rstrip())
    options = families.FAMILIES[family].options
    known = name_options.describe(options) if options else _OPTIONS.get(family)
    if known:
      print(textwrap.indent(textwrap.fill(f'?{known}', 60), ' ' * 18))
  print(
    f'{"your own":12}--env {_OF_YOUR_OWN:38}package.module:function of a seed'
    "\n\nTrain in one with 'distacme train --env NAME'. Options follow the name: "
    "--env\n'atari:Pong?sticky_actions=0.25&clip_rewards=true'; shown are their "
    'defaults. A\nfunction of a seed returns a dm_env.Environment or a '
    'gymnasium.Env. A name that\nis not known is answered with the nearest ones.'
  )
  return 0

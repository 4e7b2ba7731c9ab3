"""Compares learners of agents for continuous control with their updates.

Settings are the agents' defaults, sizes those of HalfCheetah. For the method see
`benchmarks/learner.py`.
"""

from __future__ import annotations

import numpy as np

from benchmarks import harness
from benchmarks import learner
from benchmarks import servers
from distacme import specs
from distacme.agents import d4pg
from distacme.agents import ddpg
from distacme.agents import dmpo
from distacme.agents import mpo
from distacme.agents import sac
from distacme.agents import td3

_SPEC = specs.EnvironmentSpec(
  observations=specs.Array((17,), np.float32),
  actions=specs.BoundedArray((6,), np.float32, -1.0, 1.0),
  rewards=specs.Array((), np.float32),
  discounts=specs.BoundedArray((), np.float32, 0.0, 1.0),
)
# Neither side waits for the other: the speed of reading is measured.
_FREE = 1e12


def main() -> None:
  """Measures and reports."""
  for module in (ddpg, d4pg, td3, sac, mpo, dmpo):
    agent = module.make_agent(module.Config(error_buffer=_FREE), _SPEC)
    case = learner.Case(agent, _SPEC)
    with learner.live(case, servers.replay) as batches:
      rates = harness.rates(
        {
          'bare': learner.bare(case),
          'at hand': learner.learning(case, learner.AtHand(case)),
          'replay': learner.learning(case, batches),
        },
        seconds=0.5,
        rounds=5,
      )
    name = module.__name__.rpartition('.')[2]
    for place, which in (('in memory', 'at hand'), ('from replay', 'replay')):
      harness.compare(
        f'learner, {name}, batch {agent.replay.batch_size}, data {place}',
        rates[which],
        rates['bare'],
        unit='updates/s',
        limit_name='compiled update',
        at_least=0.9,
      )


if __name__ == '__main__':
  main()

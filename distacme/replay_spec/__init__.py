"""Replay as an agent wants it, as data that every backend interprets.

A `ReplaySpec` holds numbers and names only, so a replay server imports no agent.
"""

from distacme.replay_spec.shards import check_shards
from distacme.replay_spec.shards import first_room
from distacme.replay_spec.shards import of_shard
from distacme.replay_spec.spec import ReplaySpec
from distacme.replay_spec.spec import as_dict
from distacme.replay_spec.spec import from_dict
from distacme.replay_spec.spec import queue
from distacme.replay_spec.spec import single
from distacme.replay_spec.tables import RateLimits
from distacme.replay_spec.tables import Table
from distacme.replay_spec.tables import check_priorities
from distacme.replay_spec.windows import NStep
from distacme.replay_spec.windows import Sequences
from distacme.replay_spec.windows import Window
from distacme.replay_spec.windows import learnt_reward

__all__ = (
  'ReplaySpec',
  'as_dict',
  'check_shards',
  'first_room',
  'from_dict',
  'of_shard',
  'queue',
  'single',
  'RateLimits',
  'Table',
  'check_priorities',
  'NStep',
  'Sequences',
  'Window',
  'learnt_reward',
)

"""Recorded episodes: a user's arrays, or Minari datasets on disk.

`from_episodes` takes arrays. `datasets` reads Minari's format,
`dataset_writer` writes it. Replay is filled by `distacme.replay.filling`.
"""

from distacme.demonstrations.episodes import Episode
from distacme.demonstrations.recorded import Demonstrations
from distacme.demonstrations.recorded import from_episodes

__all__ = ('Demonstrations', 'Episode', 'from_episodes')

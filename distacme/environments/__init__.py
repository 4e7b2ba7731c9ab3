"""Environments by name, in vectors, checked against what they promise.

`make('gymnasium:CartPole-v1', seed=0)` is one dm_env environment,
`make_vector` several that are stepped by one call, and `wrap` turns an
environment object into a vector of one row. The names are in `families`.
"""

from distacme.environments.checks import check_first_episode
from distacme.environments.families import make
from distacme.environments.families import make_vector
from distacme.environments.families import row_seed
from distacme.environments.families import wrap

__all__ = ('check_first_episode', 'make', 'make_vector', 'row_seed', 'wrap')

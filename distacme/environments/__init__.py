"""Makes environments by name, single or as vectors, and checks their specs.

`make('gymnasium:CartPole-v1', seed=0)` returns one dm_env environment,
`make_vector` several that are stepped by one call. `wrap` turns an environment
object into a vector of one row. `families` holds the names.
"""

from distacme.environments.checks import check_first_episode
from distacme.environments.families import make
from distacme.environments.families import make_vector
from distacme.environments.families import row_seed
from distacme.environments.families import wrap

__all__ = ('check_first_episode', 'make', 'make_vector', 'row_seed', 'wrap')

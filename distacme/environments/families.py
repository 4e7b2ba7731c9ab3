"""Makes environments by name: 'family:environment' or 'package.module:factory'.

To add a family, write a module with a `make(environment, seed, render)` that
imports its library inside `make`, and add a line to `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import importlib
import inspect
import operator
from typing import Any, NamedTuple
import urllib.parse

import dm_env
import numpy as np
import tree

from distacme import core
from distacme import specs
from distacme.environments import atari_family
from distacme.environments import bsuite_family
from distacme.environments import dm_control_family
from distacme.environments import gymnasium_adapters
from distacme.environments import gymnasium_family
from distacme.environments import gymnasium_interface
from distacme.environments import hints
from distacme.environments import jax_family
from distacme.environments import jax_vector
from distacme.environments import minatar_family
from distacme.environments import pgx_family
from distacme.environments import rendering
from distacme.environments import vector
from distacme.environments import wrappers


class Family(NamedTuple):
  """Makes the environments of one library.

  Attributes:
    make: (environment, seed, render) to an environment, where `environment` is
      the part of the name after the colon. With `render` the environment may
      get a method `render`. Raises ValueError with a remedy if it fails.
    make_native_vector: (environment, seeds of the rows) to a vector that the
      library steps by itself, or None where a loop over single environments
      is faster or the only way.
    has_models: whether native vectors are `core.ModelEnvironment`s, with a method
      `render` that draws the first row if `make` can draw it.
    options: the dataclass of the options after a question mark in the name.
  """

  make: Callable[[str, int, bool], dm_env.Environment]
  make_native_vector: (
    Callable[[str, Sequence[int]], core.VectorEnvironment | None] | None
  ) = None
  has_models: bool = False
  options: type[Any] | None = None


FAMILIES = {
  'atari': Family(
    atari_family.make,
    atari_family.make_native_vector,
    options=atari_family.Options,
  ),
  'bsuite': Family(bsuite_family.make),
  'dm_control': Family(dm_control_family.make),
  'gymnasium': Family(
    gymnasium_family.make, gymnasium_family.make_native_vector
  ),
  'jax': Family(
    jax_family.make,
    jax_family.make_native_vector,
    has_models=True,
    options=jax_family.Options,
  ),
  'minatar': Family(minatar_family.make, options=minatar_family.Options),
  'pgx': Family(
    pgx_family.make, pgx_family.make_native_vector, has_models=True
  ),
}


_SEED_BITS = 31
_WORD = 2**32 - 1

# A name, or a function of the seed that returns an environment.
NameOrFactory = str | Callable[[int], Any]


def make(
  name: NameOrFactory, seed: int, render: bool = False
) -> dm_env.Environment:
  """Returns the environment called `name`.

  Args:
    name: 'family:environment' with a family of `FAMILIES`, for instance
      'gymnasium:CartPole-v1' or 'atari:Pong'; or 'package.module:factory'
      where `factory(seed)` returns a dm_env.Environment or a gymnasium.Env;
      or such a function itself.
    seed: at least 0; the same seed gives the same episodes for the same
      actions. A seed of more than 31 bits is hashed to 31.
    render: whether the environment gets a method `render() -> uint8 [H, W, 3]`,
      a picture of its present state; needs no display.

  Raises:
    ValueError: if there is no such environment, or it cannot be made or
      rendered here.
  """
  environment = _make(name, _checked_seed(seed), render)
  if not render:
    return environment
  return rendering.with_render(_name_of(name), environment)


def _make(name: NameOrFactory, seed: int, render: bool) -> dm_env.Environment:
  if seed >> _SEED_BITS:
    seed = _hashed(seed)
  if not isinstance(name, str):
    return _call_factory(repr(name), name, seed)
  family, environment = _split(name)
  if family in FAMILIES:
    return _in_32_bits(FAMILIES[family].make(environment, seed, render))
  return _make_from_factory(name, family, environment, seed)


def make_vector(
  name: NameOrFactory,
  num_envs: int,
  seed: int,
  searchable: bool = False,
  render: bool = False,
) -> core.VectorEnvironment:
  """Returns `num_envs` environments called `name`, stepped by one call.

  Row i is `make(name, row_seed(seed, i))`, except in gymnasium's vector
  versions: their rows draw from one generator, seeded with `row_seed(seed, 0)`.

  Args:
    name: as in `make`.
    num_envs: number of rows, at least 1.
    seed: at least 0.
    searchable: whether rows are wanted that a search can step: a model, or single
      environments, which may be saved one by one.
    render: whether the vector gets a method `render`, a picture of its first row.
      Its rows are those of a searchable vector.

  Raises:
    ValueError: as in `make`, or if num_envs is below 1.
  """
  if num_envs < 1:
    raise ValueError(f'num_envs must be at least 1, got {num_envs}.')
  seed = _checked_seed(seed)
  seeds = [row_seed(seed, row) for row in range(num_envs)]
  native = _native_vector(name, seeds, has_model=searchable or render)
  if native is None:
    rows = [make(name, seed, render and not i) for i, seed in enumerate(seeds)]
    if isinstance(rows[0], vector.SingleRow):
      of_one = rows[0].vector
      if isinstance(of_one, jax_vector.JaxVector):
        return of_one.with_seeds(seeds)
    return vector.DrawnRows(rows) if render else vector.LoopVector(rows)
  if render:
    make(name, seeds[0], render).close()  # refuses what cannot be drawn
  return native


def _native_vector(
  name: NameOrFactory, seeds: Sequence[int], has_model: bool
) -> core.VectorEnvironment | None:
  """Returns the library's own vector; None if a loop is to be used.

  Args:
    name: as in `make`.
    seeds: of the rows.
    has_model: whether only a `core.ModelEnvironment` will do.
  """
  if not isinstance(name, str):
    return None
  family, environment = _split(name)
  known = FAMILIES.get(family)
  if known is None or known.make_native_vector is None:
    return None
  if has_model and not known.has_models:
    return None
  return known.make_native_vector(environment, seeds)


def is_built_in(name: str) -> bool:
  """Returns whether making an environment imports no module that its name names.

  Gymnasium, too, imports the module of 'gymnasium:module:Id-v0'.
  """
  family, _, environment = name.partition(':')
  return family in FAMILIES and ':' not in urllib.parse.unquote(environment)


def row_seed(seed: int, row: int) -> int:
  """Returns the seed of one row of a vector: 31 bits, hashed from both.

  Hashing keeps runs with neighbouring seeds from sharing a row. Every library
  takes seeds of 31 bits. All bits of a larger `seed` count.
  """
  low, high = seed & _WORD, seed >> 32
  # High bits come last: in between, a 1 with row 0 would equal row 1.
  return _hashed([low, row, high] if high else [seed, row])


def _hashed(entropy: int | list[int]) -> int:
  random = np.random.SeedSequence(entropy).generate_state(1)
  return int(random[0] >> (32 - _SEED_BITS))


def wrap(environment: Any) -> core.VectorEnvironment:
  """Returns a vector around an environment object.

  Args:
    environment: a dm_env.Environment or gymnasium.Env, for a vector of one row;
      a gymnasium VectorEnv; or a `core.VectorEnvironment`, which is returned as
      it is if its numbers have at most 32 bits.

  Raises:
    ValueError: if `environment` is none of these.
  """
  if isinstance(environment, vector.SingleRow):
    return environment.vector
  if hasattr(environment, 'num_envs') and hasattr(environment, 'reward_spec'):
    return _in_32_bits(environment)
  if gymnasium_interface.is_vector_environment(environment):
    return gymnasium_adapters.NativeVector(environment)
  single = _as_dm_env(environment, seed=None)
  if single is None:
    raise ValueError(
      f'Not an environment: {environment!r}. '
      f'{gymnasium_interface.remedy(environment)}Give a dm_env.Environment, '
      'a gymnasium.Env or a distacme.core.VectorEnvironment.'
    )
  return vector.LoopVector([single])


def _split(name: str) -> tuple[str, str]:
  family, colon, environment = name.partition(':')
  if not (family and colon and environment):
    raise ValueError(
      f"Environment name {name!r} is not of the form 'family:environment' "
      f"or 'package.module:factory'. {_known_families(name)}"
    )
  return family, environment


def _known_families(name: str) -> str:
  return (
    f'{hints.did_you_mean(name, FAMILIES)}Known families: '
    f'{", ".join(sorted(FAMILIES))}.'
  )


def _in_32_bits(environment: Any) -> Any:
  """Returns an environment, or a vector, with its numbers in 32 bits.

  Raises:
    ValueError: if a number has no 32-bit form, or the reward is not one number;
      names the field.
  """
  seen = specs.make_environment_spec(environment)
  own = environment.observation_spec(), environment.action_spec()
  dtypes = (
    [leaf.dtype for leaf in tree.flatten(nest)]
    for nest in (own, (seen.observations, seen.actions))
  )
  if operator.eq(*dtypes):
    return environment
  return wrappers.SinglePrecision(environment)


def _checked_seed(seed: int) -> int:
  if seed < 0:
    raise ValueError(f'seed must be at least 0, got {seed}.')
  return operator.index(seed)


def _make_from_factory(
  name: str, module_name: str, factory_name: str, seed: int
) -> dm_env.Environment:
  """Returns the environment of `module_name:factory_name`."""
  try:
    module = importlib.import_module(module_name)
  except ImportError as error:
    raise ValueError(
      f'Environment {name!r}: {module_name!r} is neither a family of '
      f'environments nor a module that can be imported here ({error}). '
      f'{_known_families(module_name)} For a module of your own, check the '
      'spelling, and that its folder is on PYTHONPATH.'
    ) from error
  factory = getattr(module, factory_name, None)
  if not callable(factory):
    found = 'nothing' if factory is None else f'{factory!r}, not a function,'
    functions = [key for key, value in vars(module).items() if callable(value)]
    raise ValueError(
      f'Environment {name!r}: {found} is called {factory_name!r} in '
      f'{module.__file__}. {hints.did_you_mean(factory_name, functions)}'
      'Name a function that takes a seed and returns an environment.'
    )
  return _call_factory(name, factory, seed)


def _call_factory(
  name: str, factory: Callable[[int], Any], seed: int
) -> dm_env.Environment:
  """Calls a user's function; returns its environment, adapted to dm_env."""
  function = _name_of(factory)
  try:
    inspect.signature(factory).bind(seed)
  except TypeError as error:
    raise ValueError(
      f'Environment {name!r}: {function}{inspect.signature(factory)} '
      f'cannot be called with one argument, the seed ({error}). Define it '
      f'as {function}(seed: int).'
    ) from error
  made = factory(seed)
  if isinstance(made, jax_vector.JaxVector):
    made = vector.SingleRow(made.with_seeds([seed]))
  environment = _as_dm_env(made, seed)
  if environment is None:
    raise ValueError(
      f'Environment {name!r}: {function}(seed) returned {made!r}, which '
      'is neither a dm_env.Environment nor a gymnasium.Env. '
      f'{gymnasium_interface.remedy(made)}Return one.'
    )
  return environment


def _name_of(name: NameOrFactory) -> str:
  return (
    name if isinstance(name, str) else getattr(name, '__name__', repr(name))
  )


def _as_dm_env(environment: Any, seed: int | None) -> dm_env.Environment | None:
  """Returns `environment` as dm_env.Environment; None if it is neither kind."""
  if isinstance(environment, dm_env.Environment):
    return _in_32_bits(environment)
  if gymnasium_interface.is_environment(environment):
    return gymnasium_adapters.SingleEnvironment(environment, seed)
  return None

"""`make`, `make_vector`, `wrap`: which names there are, seeds, messages."""

import dataclasses
import sys

import dm_env
import gymnasium
import numpy as np
import pytest

from distacme import core
from distacme import environments
from distacme.environments import families
from distacme.environments import vector
from distacme.testing import environments as testing_environments

from . import contract

THIS_PACKAGE = __name__.rpartition('.')[0]
CATCH = 'distacme.testing.environments:catch'
COUNTING = 'distacme.testing.environments:counting'


TestBsuiteCatch = contract.contract_test('bsuite:catch/0')
TestCatch = contract.contract_test(CATCH)
TestCounting = contract.contract_test(COUNTING)
TestNested = contract.contract_test('distacme.testing.environments:nested')


@pytest.mark.parametrize(
  'name',
  [
    'gymnasium:CartPole-v1',
    'bsuite:catch/0',
    'bsuite:catch_noise/3',
    'bsuite:cartpole_swingup/0',
    'bsuite:deep_sea_stochastic/0',
    'bsuite:memory_len/3',
    'bsuite:umbrella_length/3',
    CATCH,
  ],
)
def test_the_seed_decides_the_episodes(name):
  episodes = contract.episode(environments.make(name, seed=1))
  again = contract.episode(environments.make(name, seed=1))
  assert contract.same(episodes, again)
  other = contract.episode(environments.make(name, seed=2))
  assert not contract.same(episodes, other)


def test_later_episodes_differ_from_the_first():
  environment = environments.make('gymnasium:CartPole-v1', seed=1)
  assert not contract.same(environment.reset(), environment.reset())


@pytest.mark.parametrize('name', ['gymnasium:CartPole-v1', 'bsuite:catch/0'])
def test_row_i_of_a_vector_is_the_environment_of_row_seed_i(name):
  rows = environments.make_vector(name, num_envs=3, seed=7).reset().observation
  for i, row in enumerate(rows):
    single = environments.make(name, families.row_seed(7, i))
    np.testing.assert_array_equal(row, single.reset().observation)


def test_the_seed_decides_the_episodes_of_a_native_vector():
  def first(seed):
    return environments.make_vector('gymnasium:CartPole-v1', 8, seed).reset()

  assert contract.same(first(1), first(1))
  assert not contract.same(first(1), first(2))
  assert len(np.unique(first(1).observation, axis=0)) == 8


def test_row_seeds_are_all_different_and_fit_in_31_bits():
  seeds = {families.row_seed(s, row) for s in range(30) for row in range(30)}
  assert len(seeds) == 900
  assert max(seeds) < 2**31


def test_all_bits_of_a_seed_count_in_its_rows():
  seeds = [0, 1, 2**31, 2**32, 2**32 + 1, 2**40, 2**63, 2**64, 2**100, 2**200]
  rows = {families.row_seed(seed, row) for seed in seeds for row in range(9)}
  assert len(rows) == 9 * len(seeds)
  assert max(rows) < 2**31


def test_rows_of_small_seeds_are_what_they_have_always_been():
  assert families.row_seed(0, 0) == 1484405855
  assert families.row_seed(2**32 - 1, 3) == 408509264


@pytest.mark.parametrize(
  'name',
  [
    'gymnasium:CartPole-v1',
    'bsuite:catch/0',
    'minatar:breakout',
    'dm_control:cartpole/balance',
    'atari:Pong',
    CATCH,
  ],
)
def test_a_seed_of_any_size_will_do(name):
  if name.startswith('dm_control'):
    pytest.importorskip('dm_control')
  for seed in (2**31, 2**64 + 1):
    assert environments.make(name, seed).reset().first()
  rows = environments.make_vector(name, 2, seed).reset()
  assert rows.step_type.tolist() == [dm_env.StepType.FIRST] * 2


def test_a_large_seed_reaches_a_factory_in_31_bits():
  seeds = []

  def factory(seed):
    seeds.append(seed)
    return testing_environments.catch(seed)

  for seed in (7, 2**31 - 1, 2**31, 2**32, 2**33):
    environments.make(factory, seed)
  assert seeds[:2] == [7, 2**31 - 1]
  assert len(set(seeds)) == 5
  assert max(seeds) < 2**31


def test_a_factory_may_return_a_gymnasium_environment():
  environment = environments.make(f'{__name__}:gymnasium_factory', seed=3)
  assert isinstance(environment, dm_env.Environment)
  reference = environments.make('gymnasium:CartPole-v1', seed=3)
  assert contract.same(environment.reset(), reference.reset())


def gymnasium_factory(seed):
  del seed  # It arrives at the first reset.
  return gymnasium.make('CartPole-v1')


@pytest.mark.parametrize(
  'name, message',
  [
    ('CartPole-v1', "not of the form 'family:environment'"),
    ('gymnasium:', "not of the form 'family:environment'"),
    (
      'gymnasiun:CartPole-v1',
      "'gymnasiun' is neither a family .* Did you mean 'gymnasium'\\? "
      'Known families: atari, bsuite, dm_control, gymnasium, jax, minatar, pgx',
    ),
    (
      'gymnasium:CartPol-v1',
      "'gymnasium:CartPol-v1' .*Did you mean 'CartPole-v1'",
    ),
    ('gymnasium:CartPole', "Did you mean .*'CartPole-v1'.* version too"),
    ('gymnasium:no_such_module:A-v0', "No module named 'no_such_module'"),
    ('bsuite:katch/0', "'bsuite:katch/0'.*Did you mean 'catch/0'.*bandit"),
    ('bsuite:catch', 'an experiment and the number of its settings'),
    ('no_such_package.module:make', 'on PYTHONPATH'),
    (
      'distacme.testing.environments:katch',
      "nothing is called 'katch' .*Did you mean 'catch'",
    ),
    (
      f'{THIS_PACKAGE}.broken:not_a_function',
      "3, not a function, is called 'not_a_function'",
    ),
    (
      f'{THIS_PACKAGE}.broken:not_an_environment',
      r'returned \[\d+\], which is neither a dm_env.Environment nor',
    ),
    (
      f'{THIS_PACKAGE}.broken:without_a_seed',
      r'Define it as without_a_seed\(seed: int\)',
    ),
  ],
)
def test_a_name_that_cannot_be_made_is_refused_with_what_to_do(name, message):
  with pytest.raises(ValueError, match=message):
    environments.make(name, seed=5)
  with pytest.raises(ValueError, match=message):
    environments.make_vector(name, num_envs=2, seed=5)


@pytest.mark.parametrize('num_envs', [1, 8])
def test_a_package_that_an_environment_misses_is_named(num_envs, monkeypatch):
  spec = dataclasses.replace(
    gymnasium.spec('CartPole-v1'),
    entry_point='no_such_package:Env',
    vector_entry_point='no_such_package:VectorEnv',
  )
  monkeypatch.setitem(gymnasium.registry, 'CartPole-v1', spec)
  with pytest.raises(
    ValueError,
    match="'gymnasium:CartPole-v1' needs a package .*'no_such_package'",
  ):
    environments.make_vector('gymnasium:CartPole-v1', num_envs, seed=0)


@pytest.mark.parametrize(
  'package, name',
  [
    ('ale_py', 'atari:Pong'),
    ('gymnasium', 'gymnasium:CartPole-v1'),
    ('bsuite', 'bsuite:catch/0'),
    ('dm_control', 'dm_control:cartpole/balance'),
    ('minatar', 'minatar:breakout'),
  ],
)
def test_a_missing_package_is_named_with_its_extra(package, name, monkeypatch):
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(
    ValueError, match=rf"{name}.*{package}.*pip install 'distacme\[envs\]'"
  ):
    environments.make(name, seed=0)


def test_data_that_cannot_be_loaded_is_reported_with_where_it_belongs(
  monkeypatch,
):
  def no_network():
    raise OSError('Name or service not known')

  monkeypatch.setattr('bsuite.utils.datasets.load_mnist', no_network)
  with pytest.raises(
    ValueError,
    match=r"'bsuite:mnist/0' cannot load its data \(Name or .*/tmp/mnist",
  ):
    environments.make('bsuite:mnist/0', seed=0)


@pytest.mark.parametrize('name', ['bsuite:mnist/0', 'bsuite:mnist_noise/0'])
def test_mnist_keeps_the_contract(name, monkeypatch):
  random = np.random.default_rng(0)
  images = random.integers(-128, 128, (20, 28, 28)).astype(np.int8)
  data = images, random.integers(10, size=20).astype(np.uint8)
  monkeypatch.setattr('bsuite.utils.datasets.load_mnist', lambda: (data, data))
  environment = environments.make_vector(name, 2, seed=0)
  assert contract.check_vector(environment, num_steps=9)[0] == 10


def test_impossible_seeds_and_sizes_are_refused():
  with pytest.raises(ValueError, match='seed must be at least 0, got -1'):
    environments.make(CATCH, seed=-1)
  with pytest.raises(ValueError, match='num_envs must be at least 1, got 0'):
    environments.make_vector(CATCH, num_envs=0, seed=0)


def test_wrap_makes_one_row_of_an_environment_object():
  for environment in (
    testing_environments.catch(0),
    gymnasium.make('CartPole-v1'),
  ):
    wrapped = environments.wrap(environment)
    assert wrapped.num_envs == 1
    assert wrapped.reset().step_type.tolist() == [dm_env.StepType.FIRST]


def test_wrap_passes_vectors_through():
  environment = environments.make_vector(CATCH, num_envs=2, seed=0)
  assert environments.wrap(environment) is environment
  native = gymnasium.make_vec(
    'CartPole-v1', 2, vectorization_mode='vector_entry_point'
  )
  assert environments.wrap(native).num_envs == 2


def test_wrap_refuses_what_is_no_environment():
  with pytest.raises(ValueError, match='Not an environment: 3'):
    environments.wrap(3)


def test_few_cart_poles_are_stepped_in_a_loop_and_many_natively():
  few = environments.make_vector('gymnasium:CartPole-v1', 1, seed=0)
  many = environments.make_vector('gymnasium:CartPole-v1', 32, seed=0)
  assert isinstance(few, vector.LoopVector)
  assert not isinstance(many, vector.LoopVector)


def test_a_function_stands_for_a_name():
  made = environments.make(testing_environments.catch, seed=3)
  assert isinstance(made, testing_environments.Catch)
  rows = environments.make_vector(testing_environments.catch, 2, seed=3)
  assert rows.num_envs == 2
  with pytest.raises(ValueError, match='cannot be called with one argument'):
    environments.make(lambda: None, seed=0)
  with pytest.raises(ValueError, match='neither a dm_env.Environment nor'):
    environments.make(lambda seed: seed, seed=0)


def own_model(seed):
  """Returns an environment in JAX, as a user's function may."""
  from distacme.environments import jax_family

  return jax_family.make_native_vector('catch?rows=4', [seed])


def test_an_environment_in_jax_of_one_s_own_has_a_model_in_every_row():
  pytest.importorskip('jax')
  single = environments.make(own_model, seed=3)
  assert single.reset().first()
  made = environments.make_vector(own_model, 3, seed=0, searchable=True)
  assert isinstance(made, core.ModelEnvironment)
  assert made.step(np.zeros(3, np.int32)).observation.shape == (3, 4, 5)
  wrapped = environments.wrap(environments.make('jax:catch', seed=0))
  assert isinstance(wrapped, core.ModelEnvironment)

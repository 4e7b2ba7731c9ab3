"""Environments come back from a search exactly as they were."""

import collections
import functools
import random as python_random
import threading

import dm_env
import numpy as np
import pytest

from distacme import core
from distacme import environments
from distacme import specs
from distacme.environments import simulators
from distacme.environments import vector
from distacme.environments import wrappers
from distacme.testing import environments as testing_environments

from . import contract
from . import simulation

TESTING = 'distacme.testing.environments'
ITERATOR = iter([1])
PONG = 'gymnasium:ale_py:ALE/Pong-v5'


@pytest.mark.parametrize(
  'name',
  [
    'bsuite:bandit/0',
    'bsuite:bandit_noise/0',
    'bsuite:cartpole/0',
    'bsuite:cartpole_noise/0',
    'bsuite:cartpole_scale/0',
    'bsuite:cartpole_swingup/0',
    'bsuite:catch/0',
    'bsuite:catch_noise/0',
    'bsuite:deep_sea/0',
    'bsuite:deep_sea_stochastic/0',
    'bsuite:discounting_chain/0',
    'bsuite:memory_len/3',
    'bsuite:memory_size/3',
    'bsuite:mountain_car/0',
    'bsuite:umbrella_distract/3',
    'bsuite:umbrella_length/3',
    'gymnasium:Acrobot-v1?max_episode_steps=40',
    'gymnasium:Blackjack-v1',
    'gymnasium:CartPole-v1',
    'gymnasium:CliffWalking-v1?max_episode_steps=40',
    'gymnasium:FrozenLake-v1',
    'gymnasium:FrozenLake-v1?is_slippery=false',
    'gymnasium:MountainCar-v0?max_episode_steps=40',
    'gymnasium:MountainCarContinuous-v0?max_episode_steps=40',
    'gymnasium:Pendulum-v1?max_episode_steps=40',
    'gymnasium:Taxi-v4?max_episode_steps=40',
    'minatar:asterix',
    'minatar:breakout',
    'minatar:freeway',
    'minatar:seaquest',
    'minatar:space_invaders',
    f'{TESTING}:cartpole_reward_at_the_end',
    f'{TESTING}:cartpole_without_velocities',
    f'{TESTING}:catch',
    f'{TESTING}:counting',
    f'{TESTING}:nested',
    f'{TESTING}:remember_the_door',
    f'{TESTING}:reward_at_the_end',
  ],
)
def test_a_searched_environment_goes_on_like_its_twin(name):
  def make():
    return environments.make(name, seed=3)

  in_play, in_search = simulation.check(make)
  # These take longer than the play here.
  if not name.startswith(('bsuite:mount', 'bsuite:cartpole_sw', 'minatar:fr')):
    if not name.endswith(':reward_at_the_end'):
      assert in_play > 0
      assert in_search > 0


def test_searched_pong_goes_on_like_its_twin():
  def make():
    # Games of 25 steps end in play, and in searches.
    return environments.make(
      f'{PONG}?repeat_action_probability=0&max_num_frames_per_episode=100',
      seed=3,
    )

  assert min(simulation.check(make, num_steps=60, depth=8)) > 0


def test_stacked_and_limited_frames_come_back():
  def make():
    return wrappers.wrap_all(
      environments.make('bsuite:catch/0', seed=3),
      [
        wrappers.ObservationActionReward,
        functools.partial(wrappers.ActionRepeat, num_repeats=2),
        functools.partial(wrappers.FrameStack, num_frames=3),
        functools.partial(wrappers.StepLimit, max_steps=3),
      ],
    )

  assert min(simulation.check(make)) > 0


@pytest.mark.parametrize(
  'name',
  ['gymnasium:CartPole-v1', 'gymnasium:FrozenLake-v1', f'{TESTING}:catch'],
)
def test_filmed_environments_come_back_with_their_pictures(name):
  pytest.importorskip('pygame')
  environment = environments.make(name, seed=3, render=True)
  environment.reset()
  simulator = simulators.as_simulator(environment)
  environment.render()
  saved, picture = simulator.save(), np.array(environment.render())
  for seed in range(3):
    simulator.step(0)
    environment.render()
    simulator.restore(saved, seed)
  np.testing.assert_array_equal(environment.render(), picture)


class Everything(dm_env.Environment):
  """Keeps its state in every way that can be saved."""

  def __init__(self, seed=0):
    self._random = np.random.RandomState(seed)
    self._bits = np.random.Generator(np.random.MT19937(seed))
    self._philox = np.random.Philox(seed)
    self._python = python_random.Random(seed)
    self._modern = np.random.RandomState(np.random.PCG64(seed))
    self._board = np.zeros((3, 4))
    self._row = self._board[1]  # shares its memory
    self._shown = self._board.view()
    self._shown.flags.writeable = False
    self._queue = collections.deque([1, 2], maxlen=3)
    self._order = collections.OrderedDict(a=1, b=2)
    self._counts = collections.Counter()
    self._lists = collections.defaultdict(list)
    self._cars = [Car(0), Car(1)]
    self._again = self._cars  # the same list
    self._visited = {3}
    self._pair = (np.zeros(2), [0])
    self._by_car = {self._cars[0]: [0]}
    self._slots = Slots()
    self._step_bits = functools.partial(self._bits.integers, 100)
    self._count, self._read = counter()

  def reset(self):
    return dm_env.restart(self._observation())

  def step(self, action):
    time = self._count()
    self._row += self._random.randn() + self._step_bits()
    self._board[2, time % 4] = self._modern.randn()
    self._board[0, time % 4] = self._python.random() + action
    self._queue.append(time)
    self._order.move_to_end('a' if time % 2 else 'b')
    self._counts[time % 3] += 1
    self._lists[time % 5].append(time)
    self._again.append(Car(time))
    self._cars[0].place += self._philox.random_raw() % 7
    self._cars.pop(1)
    self._visited ^= {time % 4}
    self._pair[0][0] += 1
    self._pair[1][0] += 2
    self._by_car[self._cars[0]].append(time)
    self._slots.move()
    if time % 3 == 0:
      self._new = time
    elif hasattr(self, '_new'):
      del self._new
    if time % 11 == 0:
      self.__dict__ = dict(self.__dict__)
    return dm_env.transition(np.float32(0.0), self._observation())

  def observation_spec(self):
    return specs.Array((), np.int64)

  def action_spec(self):
    return specs.DiscreteArray(3)

  def _observation(self):
    cars = [car.place for car in self._cars]
    shown = self._shown.tolist(), [a.tolist() for a in self._pair[:1]]
    rest = (
      *(self._row.tolist(), list(self._queue), list(self._order)),
      *(dict(self._counts), dict(self._lists), cars, len(self._again)),
      *(sorted(self._visited), self._pair[1], list(self._by_car.values())),
      *(self._slots.told(), self._read(), getattr(self, '_new', None)),
    )
    return np.frombuffer(f'{shown}{rest}'.encode(), np.uint8)


class Car:
  """A helper that is no environment."""

  def __init__(self, place):
    self.place = place


class Slots:
  """A helper with slots, one of them empty every other time."""

  __slots__ = ('path', 'x')

  def __init__(self):
    self.path = []
    self.x = 0

  def move(self):
    self.path.append(len(self.path))
    if hasattr(self, 'x'):
      del self.x
    else:
      self.x = self.path[-1]

  def told(self):
    return list(self.path), getattr(self, 'x', None)


def counter():
  """Returns a function that counts its calls, and one that tells the count."""
  count = 0

  def add():
    nonlocal count
    count += 1
    return count

  return add, lambda: count


def test_all_kinds_of_state_come_back():
  simulation.check(Everything)


@pytest.mark.parametrize(
  'kind', ['attributes', 'arrays', 'lists', 'others', 'sources']
)
def test_a_simulator_that_forgets_a_kind_of_state_is_caught(kind):
  class Forgetful(simulators.ObjectSimulator):
    def save(self):
      state = super().save()
      getattr(state, kind).clear()
      return state

  with pytest.raises(AssertionError):
    simulation.check(Everything, as_simulator=Forgetful)


def test_a_forgotten_counter_is_caught():
  class Forgetful(simulators.ObjectSimulator):
    def restore(self, saved, seed=None):
      limit = self._environment._environment
      steps = limit._elapsed_steps
      super().restore(saved, seed)
      limit._elapsed_steps = steps

  def make():
    return environments.make(
      'gymnasium:CartPole-v1?max_episode_steps=9', seed=3
    )

  simulation.check(make)
  with pytest.raises(AssertionError):
    simulation.check(make, as_simulator=Forgetful)


@pytest.mark.parametrize(
  'name',
  ['gymnasium:FrozenLake-v1', 'minatar:asterix', f'{TESTING}:nested'],
)
def test_the_seed_decides_all_chance_from_there_on(name):
  environment = environments.make(name, seed=3)
  environment.reset()
  simulator = simulators.as_simulator(environment)
  saved = simulator.save()
  random = np.random.default_rng(0)
  actions = [
    contract.random_action(random, environment.action_spec()) for _ in range(30)
  ]

  def after(seed):
    simulator.restore(saved, seed)
    return simulation.play(simulator, actions)

  real = after(None)
  ways = [after(seed) for seed in range(8)]
  assert [after(seed) for seed in range(8)] == ways
  assert after(None) == real
  assert all(way != real for way in ways)
  assert all(ways.count(way) == 1 for way in ways)


def test_all_generators_of_an_environment_are_seeded_and_differ():
  class Many(Everything):
    def __init__(self):
      super().__init__()
      self.pcg = [np.random.default_rng(0) for _ in range(2)]
      self.mersenne = [np.random.RandomState(0) for _ in range(2)]

    def draws(self):
      generators = (*self.pcg, *self.mersenne, self._bits)
      generators += self._python, self._modern
      return [g.uniform(0.0, 1.0) for g in generators]

  environment = Many()
  simulator = simulators.as_simulator(environment)
  saved = simulator.save()
  real = environment.draws()
  drawn = [*real]
  for seed in (0, 1, 2**31 - 1, 2**40):
    simulator.restore(saved, seed)
    draws = environment.draws()
    assert len(set(draws)) == len(draws)
    assert not set(drawn) & set(draws)
    drawn += draws
    simulator.restore(saved, seed)
    assert environment.draws() == draws
  simulator.restore(saved)
  assert environment.draws() == real


def test_observations_and_saved_states_stay_as_they_are():
  class Reusing(testing_environments.Catch):
    board = np.zeros((10, 5), np.float32)

    def _observation(self):
      self.board = self.__dict__.setdefault('board', self.board.copy())
      self.board[...] = super()._observation()
      return self.board

  environment = Reusing(seed=0)
  environment.reset()
  simulator = simulators.as_simulator(environment)
  saved = simulator.save()
  shown = [simulator.step(action).observation for action in (0, 1, 2)]
  copies = [observation.copy() for observation in shown]
  for _ in range(2):
    simulator.restore(saved)
    again = [simulator.step(action).observation for action in (0, 1, 2)]
    np.testing.assert_array_equal(again, copies)
  np.testing.assert_array_equal(shown, copies)


class Saving(testing_environments.Catch):
  """Saves itself."""

  saves = 0

  def save(self):
    self.saves += 1
    return dict(vars(self)), self._random.bit_generator.state

  def restore(self, saved, seed=None):
    attributes, random = saved
    vars(self).update(attributes)
    self._random.bit_generator.state = random
    if seed is not None:
      self._random = np.random.default_rng(seed)


def test_an_environment_that_saves_itself_is_a_simulator():
  environment = Saving(0)
  assert simulators.as_simulator(environment) is environment
  assert isinstance(environment, core.Simulator)


def test_a_wrapper_of_such_an_environment_is_saved_with_it():
  inner = []

  def make():
    inner.append(Saving(3))
    return wrappers.StepLimit(inner[-1], 4)

  assert min(simulation.check(make)) > 0
  assert inner[0].saves > 10


def test_methods_that_save_to_files_are_not_taken_for_a_simulators():
  class Filing(testing_environments.Catch):
    def save(self, path):
      raise AssertionError('Not to be called.')

    restore = save

  simulation.check(lambda: Filing(3), num_steps=30)


def test_rows_of_a_vector_are_simulators():
  environment = environments.make_vector('bsuite:catch/0', 2, seed=3)
  twin = environments.make_vector('bsuite:catch/0', 2, seed=3)
  assert isinstance(environment, vector.LoopVector)
  environment.reset()
  twin.reset()
  assert environment.simulators is environment.simulators
  saved = [simulator.save() for simulator in environment.simulators]
  for simulator, state in zip(environment.simulators, saved, strict=True):
    assert isinstance(simulator, core.Simulator)
    for seed in range(12):
      simulator.step(0)
      simulator.restore(state, seed)
    simulator.restore(state)
  random = np.random.default_rng(0)
  for _ in range(30):
    actions = contract.random_actions(random, twin)
    assert contract.same(environment.step(actions), twin.step(actions))


@pytest.mark.parametrize(
  'name, message',
  [
    (
      'gymnasium:LunarLander-v3',
      r'LunarLander|SingleEnvironment\._env.*SwigPy',
    ),
    ('gymnasium:HalfCheetah-v5', r'_environment\..*mujoco.* cannot be read'),
    (PONG, r'\.ale is an emulator with sticky actions.*probability=0'),
    ('atari:Pong', r'SingleRow\._environment\._environment\.ale is of type'),
    ('dm_control:cartpole/balance', r'_physics.* cannot be read'),
    ('jax:catch', r'SingleRow\._environment\.'),
  ],
)
def test_families_that_keep_their_state_in_c_are_refused(name, message):
  if name.startswith('dm_control') or 'Cheetah' in name:
    pytest.importorskip('dm_control')
  if 'Lunar' in name:
    pytest.importorskip('Box2D')
  environment = environments.make(name, seed=3)
  environment.reset()
  with pytest.raises(ValueError, match=message):
    simulators.as_simulator(environment)
  environment.close()


class Holding(testing_environments.Catch):
  """Holds something that cannot be saved."""

  def __init__(self, held):
    super().__init__(0)
    self.parts = {'held': [1, held]}


class FromC(int):
  """An integer with attributes."""


@pytest.mark.parametrize(
  'held, message',
  [
    (
      threading.Lock(),
      r"Holding\.parts\['held'\]\[1\] is of type _thread.lock",
    ),
    (threading.Thread(), r'is of type _thread'),
    (ITERATOR, 'is of type builtins.list_iterator'),
    ((i for i in [1]), 'is of type builtins.generator'),
    (np.random, 'is the module numpy.random, whose random numbers the whole'),
    (python_random, 'is the module random'),
    (np.array([None]), 'is a numpy array of objects; use a list'),
    (FromC(3), 'FromC, whose state cannot be read'),
    (np.zeros(2**20), 'above 4 MiB, too much'),
    ([0] * 2**20, 'above 4 MiB, too much'),
    (lambda held=ITERATOR: held, r'\[1\]\[0\] is of type .*list_iterator'),
  ],
)
def test_what_cannot_be_saved_is_named_with_what_to_do(held, message):
  with pytest.raises(
    ValueError, match=rf'(?s){message}.*save\(\) and restore\(.*muzero'
  ):
    simulators.as_simulator(Holding(held))


def test_open_files_are_refused(tmp_path):
  with (
    (tmp_path / 'log').open('w') as file,
    pytest.raises(ValueError, match='is of type _io.TextIOWrapper'),
  ):
    simulators.as_simulator(Holding(file))


def test_objects_nested_too_deep_are_refused():
  chain = []
  for _ in range(10_000):
    chain = [chain]
  with pytest.raises(ValueError, match='too deep to follow'):
    simulators.as_simulator(Holding(chain))


def test_a_vector_says_which_environment_cannot_be_searched():
  environment = vector.LoopVector([Holding(threading.Lock())])
  with pytest.raises(ValueError, match='A search cannot step this environment'):
    _ = environment.simulators


def test_the_pictures_of_mnist_are_too_many(monkeypatch):
  data = np.zeros((6000, 28, 28), np.int8), np.zeros(6000, np.uint8)
  monkeypatch.setattr('bsuite.utils.datasets.load_mnist', lambda: (data, data))
  environment = environments.make('bsuite:mnist/0', seed=0)
  with pytest.raises(ValueError, match=r'_images brings .* above 4 MiB'):
    simulators.as_simulator(environment)

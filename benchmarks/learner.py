"""Compares the learner's loop with its compiled update alone.

`__main__` gives XLA one core, for limits and for distacme; the other core is for
sampling, sending and the servers. Otherwise the compiled update would take both.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from benchmarks import servers
from distacme import core
from distacme import row_layout
from distacme import specs
from distacme import types
from distacme.acting import params as params_lib
from distacme.agents import dqn
from distacme.agents import r2d2
from distacme.learning import batches as batches_lib
from distacme.learning import frame_stacks
from distacme.learning import learner
from distacme.learning import placement as placement_lib
from distacme.learning import updates
from distacme.replay.items import rows as rows_lib
from distacme.run import run_state
from distacme.run import seeding

# The numbers of CartPole.
_SPEC = specs.EnvironmentSpec(
  observations=specs.Array((4,), np.float32),
  actions=specs.DiscreteArray(2),
  rewards=specs.Array((), np.float32),
  discounts=specs.BoundedArray((), np.float32, 0.0, 1.0),
)
# Neither side waits for the other: the speed of reading is measured.
_ITEMS = dqn.Config(batch_size=256, error_buffer=1e12)
_UNIFORM = dataclasses.replace(_ITEMS, priority_exponent=0.0)
_BLOCKS = dataclasses.replace(_UNIFORM, block_size=32)
_SEVEN_MB = dataclasses.replace(_ITEMS, hidden_sizes=(1320, 1320))
_PONG = dqn.Config(batch_size=32, error_buffer=1e12)
_R2D2 = r2d2.Config(error_buffer=1e12)
_ROWS = 20_000
_INSERTS_PER_SECOND = 1_000
_SEVERAL = 8


def main() -> None:
  """Measures and reports."""
  in_memory()
  from_replay()
  for_an_accelerator()
  of_other_windows()
  publishing()


def in_memory() -> None:
  """Measures the cost of the loop around the update, on batches in memory."""
  case = of_dqn(_ITEMS)
  rates = harness.rates(
    {
      'bare': bare(case),
      'ours': learning(case, AtHand(case)),
      'bare, several': bare(case, _SEVERAL),
      'ours, several': learning(case, AtHand(case, _SEVERAL)),
    }
  )
  calls = f', {_SEVERAL} updates a call'
  for ours, bare_, more, limit in (
    ('ours', 'bare', '', ''),
    ('ours, several', 'bare, several', calls, calls),
    ('ours, several', 'bare', f'{calls}, and single ones', ''),
  ):
    harness.compare(
      f'learner, MLP, batch 256, data in memory{more}',
      rates[ours],
      rates[bare_],
      unit='updates/s',
      limit_name=f'compiled update{limit}',
      at_least=0.97,
    )


def from_replay() -> None:
  """Measures learning from a replay worker that is written to meanwhile."""
  for kind, config in (
    ('blocks of 32', _BLOCKS),
    ('uniform', _UNIFORM),
    ('prioritized', _ITEMS),
  ):
    case = of_dqn(config)
    for place, server in (
      ('in its process', servers.replay_here),
      ('beside', servers.replay),
    ):
      with live(case, server) as ours, live(case, server) as sampled:
        rates = harness.rates(
          {
            'bare': bare(case),
            'sampled': harness.repeated(lambda s=sampled: take(s), 4),
            'ours': learning(case, ours),
          }
        )
      name = f'learner, MLP, batch 256, {kind} replay {place}'
      # Without 1.3 times the batches that the update takes, sampling is the
      # bottleneck, and the loop has no goal.
      harness.compare(
        f'{name}: sampling alone',
        rates['sampled'],
        rates['bare'],
        unit='batches/s',
        limit_name='compiled update',
      )
      able = np.median(np.divide(rates['sampled'], rates['bare'])) >= 1.3
      harness.compare(
        name,
        rates['ours'],
        rates['bare'],
        unit='updates/s',
        limit_name='compiled update',
        at_least=(0.95 if config is _ITEMS else 0.9) if able else None,
      )


def for_an_accelerator() -> None:
  """Measures how many batches reach an update that takes half a millisecond.

  The update stands for an accelerator's: it waits, with neither core nor lock.
  """
  case = of_dqn(_ITEMS)
  priority = np.full(case.agent.replay.batch_size, 0.5)
  with live(case, servers.replay) as ours:

    def wait() -> float:
      time.sleep(0.0005)
      return 1

    def learn() -> float:
      drawn = ours.get()
      assert drawn is not None
      time.sleep(0.0005)
      ours.sampler.update_priorities(drawn.info, priority)
      return 1

    rates = harness.rates(
      {'bare': harness.repeated(wait), 'ours': harness.repeated(learn)},
      seconds=1.0,
    )
  name = 'learner, an update that waits 0.5 ms, batch 256, prioritized'
  harness.number(
    f'{name} replay beside', rates['ours'], unit='batches/s', at_least=1_000.0
  )
  harness.number(f'{name}: waiting alone', rates['bare'], unit='batches/s')


def of_other_windows() -> None:
  """Measures learning from frames and sequences of a live replay."""
  stacks = _SPEC._replace(
    observations=specs.FrameStack((84, 84, 4), np.uint8, 0, 255)
  )
  for name, agent, spec, number in (
    ('DQN, Pong frames', dqn.make_agent(_PONG, stacks), stacks, 2_000),
    ('R2D2, CartPole sequences', r2d2.make_agent(_R2D2, _SPEC), _SPEC, 1_000),
  ):
    case = Case(agent, spec)
    case = Case(frame_stacks.learning_from(case.layout(), agent), spec)
    with live(case, servers.replay, number) as ours:
      rates = harness.rates(
        {'bare': bare(case), 'ours': learning(case, ours)},
        seconds=2.0,
        rounds=5,
      )
    harness.compare(
      f'learner, {name}, batch {agent.replay.batch_size}, replay beside',
      rates['ours'],
      rates['bare'],
      unit='updates/s',
      limit_name='compiled update',
      at_least=0.9,
    )


def publishing() -> None:
  """Measures the cost of publishing 7 MB to 8 subscribers every second.

  The first number is the learner's own CPU, the whole cost on a machine of its
  own. The second is the loss of speed here, where subscribers share its cores.
  """
  with (
    servers.variables() as running,
    servers.subscribers(running.endpoint, 8),
  ):
    from distacme.variables import client

    sink = client.VariableClient(running.endpoint, 'learner/0')
    case = of_dqn(_SEVEN_MB)
    state = case.state()
    costs = [
      own_cost(sink, version, case.agent, state) for version in range(12)
    ]
    never = learning(case, AtHand(case))
    first = harness.rates({'never': never}, 2.0, rounds=1)['never'][0]
    rates = harness.rates(
      {
        'never': never,
        'every second': learning(case, AtHand(case), sink, round(first)),
      },
      4.0,
      rounds=5,
    )
  harness.number(
    'CPU of the learner for 7 MB to 8 subscribers once a second',
    costs[2:],
    unit='ms',
    at_most=20.0,
  )
  harness.compare(
    'learner, publishing 7 MB to 8 subscribers once a second',
    rates['every second'],
    rates['never'],
    unit='updates/s',
    limit_name='never',
    at_least=0.98,
  )


def own_cost(
  sink: core.ParamsSink,
  version: int,
  agent: core.Agent,
  state: types.LearnerState,
) -> float:
  """Returns the milliseconds of this process's CPU that publishing takes."""
  start = time.process_time()
  sink.publish(version, jax.tree.map(jnp.copy, agent.actor_params(state)))
  return 1e3 * (time.process_time() - start)


class Case(NamedTuple):
  """Holds an agent that learns from transitions, and its environment's spec."""

  agent: core.Agent
  spec: specs.EnvironmentSpec

  def state(self) -> types.LearnerState:
    """Returns the agent's first state."""
    return jax.jit(self.agent.initial_learner_state)(seeding.learner_key(0))

  def layout(self) -> rows_lib.RowLayout:
    """Returns the layout of transitions in replay."""
    params = self.agent.actor_params(self.state())
    return row_layout.row_layout(self.agent, self.spec, params)

  def rows(self, number: int) -> np.ndarray:
    """Returns so many random transitions, or empty sequences, in replay's layout."""
    random = np.random.default_rng(0)
    rows = np.zeros(number, self.layout().dtype)
    data = self.layout().views(rows)
    if not isinstance(data, types.Transition):
      return rows
    for observation in (data.observation, data.next_observation):
      observation[:] = random.normal(size=observation.shape)
    if isinstance(self.spec.actions, specs.DiscreteArray):
      data.action[:] = random.integers(0, self.spec.actions.num_values, number)
    else:
      data.action[:] = random.uniform(-1, 1, data.action.shape)
    data.reward[:] = 1.0
    data.discount[:] = 0.97
    return rows


def of_dqn(config: dqn.Config) -> Case:
  """Returns DQN on CartPole."""
  return Case(dqn.make_agent(config, _SPEC), _SPEC)


class _One:
  """Samples the same batch again and again."""

  def __init__(self, case: Case):
    size = case.agent.replay.batch_size
    layout = case.layout()
    self._data = (
      layout.views(case.rows(size))
      if layout.frames is None
      else layout.example(size)
    )
    key = np.arange(size, dtype=np.uint64)
    self._info = types.SampleInfo(
      key,
      np.full(size, 1e-4),
      np.zeros(size, np.int64),
      np.zeros(size, np.int32),
    )

  def sample(self) -> tuple[Any, types.SampleInfo]:
    return self._data, self._info

  def update_priorities(
    self, info: types.SampleInfo, priority: np.ndarray
  ) -> None:
    """Drops priorities, since no measured work has any."""

  def describe(self) -> str:
    return ''

  def close(self) -> None:
    """Does nothing."""


class AtHand(batches_lib.Batches):
  """Draws a batch once, to the device, and returns it again and again."""

  def __init__(self, case: Case, count: int = 1):
    super().__init__(_One(case), count)
    drawn = self._draw()
    self._drawn = drawn._replace(batch=jax.device_put(drawn.batch))

  def get(self, timeout_s: float | None = None) -> batches_lib.DrawnBatch:
    """Returns the batch at once."""
    return self._drawn


def bare(case: Case, count: int = 1) -> harness.Work:
  """Returns the work of the compiled update on data of the device.

  Keeps a donated state until its update ends, as the learner does: JAX waits
  where such a state is dropped before, so the loop would be no limit.
  """
  state = case.state()
  placement = placement_lib.Placement(case.agent.replay.batch_size, count)
  update = updates.compiled(case.agent, count, placement)
  batch = AtHand(case, count).get().batch
  under_way: collections.deque[Any] = collections.deque()

  def call() -> float:
    nonlocal state
    given = state
    state, output = update(given, batch)
    under_way.append((given, output))
    del given
    if len(under_way) > 2:
      jax.block_until_ready(under_way[0][1])
      under_way.popleft()
    return count

  return finished(harness.repeated(call, 16 // count), lambda: state)


def learning(
  case: Case,
  batches: batches_lib.Batches,
  sink: Any = None,
  publish_period: int = 10,
) -> harness.Work:
  """Returns the work of a learner as in a program, with its senders."""
  worker = learner.Learner(
    case.agent,
    batches,
    sink or params_lib.LocalParams(),
    run_state.RunState().reporter('learner/0'),
    case.state(),
    publish_period=publish_period if sink else 10**9,
    executor=learner.background_executor,
  )

  def call() -> float:
    before = worker.steps
    worker.step(1.0)
    worker.tend()
    return worker.steps - before

  return finished(
    harness.repeated(call, 16 // batches.count), lambda: worker.state
  )


def finished(work: harness.Work, result: Callable[[], Any]) -> harness.Work:
  """Returns `work` that also waits for its result on the device."""

  def whole(seconds: float) -> float:
    done = work(seconds)
    jax.block_until_ready(result())
    return done

  return whole


@contextlib.contextmanager
def live(
  case: Case, server: Any, number: int = _ROWS
) -> Iterator[batches_lib.Batches]:
  """Yields prefetched batches of a server, filled by another process."""
  layout, spec = case.layout(), case.agent.replay
  block = spec.block_size
  rows = case.rows(number // block * block).reshape(-1, block)
  with (
    server(spec) as running,
    servers.inserter(
      running,
      spec,
      layout,
      case.spec.observations,
      rows,
      _INSERTS_PER_SECOND / block,
    ),
  ):
    sampler = servers.make_sampler(running, spec, layout)
    placement = placement_lib.Placement(spec.batch_size)
    batches = batches_lib.PrefetchedBatches(sampler, 1, placement)
    yield batches
    batches.close()


def take(batches: batches_lib.Batches) -> float:
  """Takes a batch and drops it."""
  batches.get()
  return 1


if __name__ == '__main__':
  main()

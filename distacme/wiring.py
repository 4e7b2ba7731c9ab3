"""Builds a learner, an actor and an evaluator from their parts, in every mode.

One process, threads, processes and clusters call these functions. Modes differ in
the arguments: the ways to replay, to params and to the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax

from distacme import core
from distacme import environments
from distacme import row_layout
from distacme import specs
from distacme import types
from distacme.acting import actor as actor_lib
from distacme.acting import evaluator as evaluator_lib
from distacme.acting import planning
from distacme.acting import policy as policy_lib
from distacme.learning import batches as batches_lib
from distacme.learning import frame_stacks
from distacme.learning import learner as learner_lib
from distacme.learning import placement as placement_lib
from distacme.learning import updates
from distacme.replay.items import rows as rows_lib
from distacme.replay.writers import factory
from distacme.replay.writers import inserter as inserter_lib


def make_learner(
  agent: core.Agent,
  spec: specs.EnvironmentSpec,
  state: types.LearnerState,
  make_sampler: Callable[[rows_lib.RowLayout], core.Sampler],
  sink: core.ParamsSink,
  reporter: core.Reporter,
  *,
  devices: Sequence[jax.Device] | None = None,
  updates_per_call: int = 1,
  in_background: bool = False,
  **settings: Any,
) -> learner_lib.Learner:
  """Returns a learner that samples replay, updates its state and publishes.

  Args:
    agent: has the `update` to use.
    spec: of the environment.
    state: to start from; the caller may not use it afterwards.
    make_sampler: connects to replay, given the layout of its rows.
    sink: takes the params.
    reporter: the learner's line to the run.
    devices: to learn on; by default all local ones.
    updates_per_call: updates in one compiled call; see `updates.choose_count`.
    in_background: whether threads draw batches ahead and send params and
      priorities while the learner's thread learns; else all happens in turn.
    **settings: other arguments of `learner.Learner`.

  Raises:
    ValueError: if replay's rate limits leave no room for `updates_per_call`
      batches, a batch cannot be split over `devices`, or the agent would choose
      illegal actions.
  """
  check_masks(agent, spec)
  devices = jax.local_devices() if devices is None else devices
  params = jax.eval_shape(agent.actor_params, state)
  layout = row_layout.row_layout(agent, spec, params)
  agent = frame_stacks.learning_from(layout, agent)
  count = updates.choose_count(
    updates_per_call, agent, state, layout, devices[0].platform
  )
  replay = agent.replay
  placement = placement_lib.Placement(replay.batch_size, count, devices)
  sampler = make_sampler(layout)
  batches: batches_lib.Batches
  if in_background:
    batches = batches_lib.PrefetchedBatches(
      sampler,
      count,
      placement,
      # A queue's batches grow old while they wait here.
      depth=1 if replay.used_once else 2,
      padded=replay.padded,
    )
    settings['executor'] = learner_lib.background_executor
  else:
    batches = batches_lib.Batches(
      sampler, count, placement, padded=replay.padded
    )
  try:
    return learner_lib.Learner(
      agent, batches, sink, reporter, state, placement=placement, **settings
    )
  except BaseException:
    batches.close()
    raise


def make_actor(
  agent: core.Agent,
  environment: core.VectorEnvironment,
  make_inserter: Callable[[rows_lib.RowLayout], inserter_lib.Inserter],
  source: core.ParamsSource,
  reporter: core.Reporter,
  *,
  key: types.Key,
  streams: types.Streams,
) -> actor_lib.Actor:
  """Returns an actor that steps environments and writes to replay.

  Args:
    agent: makes the policy that acts.
    environment: to act in; its rows are `streams`.
    make_inserter: connects to replay, given the layout of its rows.
    source: of params; holds params already.
    reporter: the actor's line to the run.
    key: consumed; decides all exploration.
    streams: positions of the rows among all environments of the run.

  Raises:
    ValueError: if the agent would choose illegal actions.
  """
  spec = specs.make_environment_spec(environment)
  check_masks(agent, spec)
  newest = source.newest()
  assert newest is not None  # as promised
  layout = row_layout.row_layout(agent, spec, newest.params)
  inserter = make_inserter(layout)
  return actor_lib.Actor(
    environments.check_first_episode(environment),
    make_policy(agent, source, environment, key, streams),
    functools.partial(
      factory.make_writer,
      agent,
      layout,
      environment.num_envs,
      inserter,
    ),
    reporter,
  )


def make_evaluator(
  agent: core.Agent,
  environment: core.VectorEnvironment,
  source: core.ParamsSource,
  reporter: core.Reporter,
  settings: evaluator_lib.Settings,
  *,
  key: types.Key,
  **others: Any,
) -> evaluator_lib.Evaluator:
  """Returns an evaluator of the params of `source`.

  Args:
    agent: makes the policy that is evaluated.
    environment: of `evaluator.num_rows(settings.episodes)` rows.
    source: of params.
    reporter: the evaluator's line to the run.
    settings: amount and times of evaluations.
    key: consumed; seeds a random policy.
    **others: other arguments of `evaluator.Evaluator`.
  """

  def make(fixed: core.ParamsSource) -> core.Policy:
    return make_policy(agent, fixed, environment, key, streams=None)

  return evaluator_lib.Evaluator(
    environment, make, source, reporter, settings, **others
  )


def make_policy(
  agent: core.Agent,
  source: core.ParamsSource,
  environment: core.VectorEnvironment,
  key: types.Key,
  streams: types.Streams | None,
) -> core.Policy:
  """Returns the policy for `environment`: a search, or the compiled `act`.

  Args:
    agent: a `core.PlanningAgent` searches the environment's states.
    source: of params; asked before every action.
    environment: to act in.
    key: consumed; decides all that is random.
    streams: see `core.Agent.initial_actor_state`; None evaluates.
  """
  if isinstance(agent, core.PlanningAgent):
    return planning.make_policy(agent, source, environment, key, streams)
  return policy_lib.CompiledPolicy(
    agent, source, environment.num_envs, key, streams
  )


def check_masks(agent: core.Agent, spec: specs.EnvironmentSpec) -> None:
  """Refuses an agent that would choose illegal actions.

  Raises:
    ValueError: if not all actions of the environment are legal in all states, and
      the agent does not say that it leaves illegal ones out (`masks_actions`).
  """
  if not specs.has_legal_actions(spec.observations):
    return
  if not getattr(agent, 'masks_actions', False):
    raise ValueError(
      f'in this environment not all actions are legal in all states (observation'
      f'[{specs.LEGAL_ACTIONS!r}]), and {type(agent).__name__} chooses among all. '
      'Use an agent that leaves illegal actions out: mcts or muzero, or one of '
      'your own that has masks_actions = True.'
    )

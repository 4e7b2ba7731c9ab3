"""Refuses runs that cannot work, before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
import contextlib
import os
import shutil
from typing import IO, TYPE_CHECKING, Any

from distacme import core
from distacme import replay_spec
from distacme import specs
from distacme.programs import demonstrations
from distacme.programs import experiment as experiment_lib
from distacme.programs import given_functions
from distacme.programs import modes
from distacme.programs import opponents
from distacme.programs import presets
from distacme.programs import recorded_run
from distacme.programs import replay_transports
from distacme.programs import run_config
from distacme.programs.workers import devices
from distacme.rpc import token
from distacme.run import descriptors
from distacme.run import lock as lock_lib
from distacme.run import notices
from distacme.run import run_directory

if TYPE_CHECKING:
  from distacme.run import checkpoint


def check_agent(
  experiment: experiment_lib.Experiment,
) -> tuple[core.Agent, specs.EnvironmentSpec]:
  """Checks that agent, environment, network and the run's settings fit.

  Returns:
    The agent, and the spec of its environment.

  Raises:
    ValueError: if they do not fit.
  """
  # Here and not above: they import JAX, which what only lists does not need.
  from distacme import wiring
  from distacme.acting import planning
  from distacme.kit import observations
  from distacme.learning import updates

  spec = experiment.environment_spec()
  agent = experiment.make_agent(spec)
  wiring.check_masks(agent, spec)
  opponents.check(experiment, spec)
  run = experiment.run
  flattened = observations.describe_flattened(spec.observations)
  if flattened and not (experiment.network or run.network):
    notices.warn_once(flattened)
  demonstrations.check_wanted(experiment, agent)
  if isinstance(agent, core.PlanningAgent):
    environment = experiment.make_vector(1, stream=0)
    try:
      planning.check_searchable(agent, environment)
    finally:
      environment.close()
  if not agent.replay.needs_actors:
    _check_clock_without_actors(run)
  _check_replay_servers(experiment, agent)
  updates.check_count(run.updates_per_call, agent)
  devices.check_split(
    agent.replay.batch_size,
    run.learner_devices,
    _learners_variables(run, agent),
  )
  return agent, spec


def _check_replay_servers(
  experiment: experiment_lib.Experiment, agent: core.Agent
) -> None:
  """Checks that the agent's replay can be divided among the run's servers.

  Raises:
    ValueError: if it cannot.
  """
  run = experiment.run
  if run.num_replay_servers > 1 and (
    run.demonstrations or experiment.demonstrations is not None
  ):
    raise ValueError(
      f'num_replay_servers={run.num_replay_servers} divide what actors write, and '
      'demonstrations lie in one server. Leave either out.'
    )
  replay_spec.check_shards(agent.replay, run.num_replay_servers)


def _learners_variables(
  run: run_config.RunConfig, agent: core.Agent
) -> dict[str, str] | None:
  """Returns the variables of the learner's process; None if it shares this one."""
  from distacme.programs import program

  if not modes.find(run.mode).has_processes:
    return None
  made = program.make_program(run, agent.replay.needs_actors)
  return {**os.environ, **made[program.LEARNER].env}


def _check_clock_without_actors(run: run_config.RunConfig) -> None:
  """Checks that a run in which nobody acts is evaluated, and ends.

  Raises:
    ValueError: if it counts environment steps, of which there are none, or has
      no other limit.
  """
  if run.clock != 'learner_steps':
    raise ValueError(
      f'{run.agent} makes no environment steps, so that by clock={run.clock!r} '
      "it would never be evaluated. Add '--clock learner_steps'."
    )
  for name, default in (
    ('max_env_steps', None),
    ('num_actors', run_config.RunConfig.num_actors),
    ('num_replay_servers', run_config.RunConfig.num_replay_servers),
  ):
    if getattr(run, name) != default:
      raise ValueError(
        f'{run.agent} makes no environment steps and has no actors, got '
        f'{name}={getattr(run, name)}. Leave it out.'
      )
  if run.max_learner_steps is None and run.max_seconds is None:
    raise ValueError(
      f'{run.agent} makes no environment steps, so that it would never end: '
      'max_learner_steps and max_seconds are None. Set one of them.'
    )


# Files that a process opens, measured: a run in one process, or a service; of a
# process with all workers, those of each actor; of a further replay server.
_OPEN_FILES, _OPEN_FILES_OF_ACTOR, _OPEN_FILES_OF_REPLAY = 40, 4, 8


def _allow_descriptors(run: run_config.RunConfig) -> None:
  """Lets this process and those of the run open all of their files.

  Raises:
    ValueError: if the system refuses so many.
  """
  launcher = modes.find(run.mode)
  needed = _OPEN_FILES
  if launcher.has_services and not launcher.remote:
    of_actor = 1 if launcher.has_processes else _OPEN_FILES_OF_ACTOR
    needed += run.num_actors * of_actor
    needed += (run.num_replay_servers - 1) * _OPEN_FILES_OF_REPLAY
  allowed = descriptors.allow(needed)
  if allowed < needed:
    raise ValueError(
      f'a process may open {allowed} files here, and one of this run needs '
      f'{needed}. Allow more (ulimit -n {max(1024, needed)})'
      f'{", or use fewer actors" if launcher.has_services else ""}.'
    )


def check(
  experiment: experiment_lib.Experiment,
) -> tuple[run_directory.RunDirectory, IO[str]]:
  """Checks an experiment before any worker starts; makes the run's directory.

  Returns:
    The directory, and its lock, to be closed when the run has ended.

  Raises:
    ValueError: if agent, environment, network and run directory do not fit, or
      another run is in the directory.
    ImportError: if a library is missing.
  """
  run = experiment.run
  _allow_descriptors(run)
  agent, spec = check_agent(experiment)
  with contextlib.ExitStack() as stack:
    path = run.run_dir
    if path is None:
      path = run_directory.make_new(run.agent, run.env, f'seed{run.seed}')
      stack.callback(run_directory.take_back, path)
    directory = run_directory.RunDirectory(path.resolve())
    pickles = _check_launch(experiment, directory)
    _check_cluster(experiment, agent, directory)
    if not directory.path.exists():
      stack.callback(shutil.rmtree, directory.path, ignore_errors=True)
    directory.create()
    lock = stack.enter_context(lock_lib.take(directory))
    check_resumable(experiment, directory)
    # Both refuse what they cannot read.
    restored = read_checkpoint(agent, directory)
    counts = directory.read_counts(restored.steps) if restored else {}
    demonstrations.fill(experiment, agent, spec, directory)
    _record(experiment, agent, counts, pickles, directory)
    stack.pop_all()  # the lock is the caller's now
  return directory, lock


def _check_launch(
  experiment: experiment_lib.Experiment, directory: run_directory.RunDirectory
) -> dict[str, bytes]:
  """Checks that the workers can be given what they need; changes nothing.

  Returns:
    The pickles that they read.

  Raises:
    ValueError: if a part of the experiment cannot reach the workers.
    ImportError: if the library of replay's transport, or the one that makes the
      run's key, is missing.
  """
  launcher = modes.find(experiment.run.mode)
  if launcher.has_services:
    replay_transports.check_installed(experiment.run.transport)
  if experiment.run.encrypted:
    from distacme.rpc import keys

    keys.check_installed()
  if not launcher.has_processes:
    return {}
  pickles = recorded_run.pickles(experiment, directory)
  if pickles and launcher.remote:
    raise ValueError(
      f'{" and ".join(pickles)} of the run cannot be imported by name, as other '
      f'hosts would have to, in mode {experiment.run.mode!r}. Move it to a '
      'module that is installed there.'
    )
  return pickles


def _check_cluster(
  experiment: experiment_lib.Experiment,
  agent: core.Agent,
  directory: run_directory.RunDirectory,
) -> None:
  """Refuses a run that its cluster, if it has one, cannot take."""
  from distacme.programs import program

  run = experiment.run
  launcher = modes.find(run.mode)
  if launcher.remote:
    made = program.make_program(run, agent.replay.needs_actors)
    launcher.check(run, made, directory)


def _record(
  experiment: experiment_lib.Experiment,
  agent: core.Agent,
  counts: Mapping[str, int],
  pickles: Mapping[str, bytes],
  directory: run_directory.RunDirectory,
) -> None:
  """Writes the files that describe the run to workers and to later commands."""
  from distacme.programs import program

  run = experiment.run
  launcher = modes.find(run.mode)
  if launcher.has_processes:
    with directory.refused_if_not_writable():
      given_functions.write_pickles(pickles, directory)
  config = recorded_run.as_dict(experiment, agent.replay, counts, list(pickles))
  directory.begin(config)
  if not launcher.has_services:
    return
  with directory.refused_if_not_writable():
    program.write(
      program.make_program(run, agent.replay.needs_actors), directory
    )
    token.make(directory.path)
    if run.encrypted:
      from distacme.rpc import keys

      keys.make(directory.path)


def check_resumable(
  experiment: experiment_lib.Experiment, directory: run_directory.RunDirectory
) -> None:
  """Refuses to resume a run with settings that the run must keep.

  Limits, periods and the number of workers may change. Agent, environment,
  network and the settings of learning may not.
  """
  if not directory.config.exists():
    return
  before = directory.read_config()
  if directory.last_step() is None:
    return
  now = recorded_run.as_read(experiment.as_dict())
  # A setting that did not exist then was at its default, as it were.
  before['agent'] = (
    recorded_run.defaults(type(experiment.agent)) | before['agent']
  )
  before['run'] = recorded_run.defaults(run_config.RunConfig) | before['run']
  pairs = [('agent', name) for name in now['agent']]
  fixed = run_config.fields_with(resume='fixed')
  pairs += [('run', name) for name in fixed]
  changed = [
    f'{name} was {before[part].get(name)!r} and is {now[part][name]!r}'
    for part, name in pairs
    if before[part].get(name) != now[part][name]
  ]
  changed += check_functions(before, now['functions'], directory)
  if changed:
    run = experiment.run
    preset = presets.find(run.agent, run.env, run.preset)
    hint = (
      f' Some are of the preset {preset.name} (--preset).' if preset else ''
    )
    raise ValueError(
      f'{directory.path} holds a run to be resumed, but {"; ".join(changed)}. '
      f'Give the same settings, or another run_dir.{hint}'
    )


def check_functions(
  before: Mapping[str, Any],
  now: Mapping[str, Mapping[str, str]],
  directory: run_directory.RunDirectory,
) -> list[str]:
  """Compares a run's functions with those of a program.

  A function that was edited since, perhaps to mend a fault, is only a warning.

  Args:
    before: the content of config.json.
    now: identities by field, of the functions to compare.
    directory: of the run.

  Returns:
    A clause for each function that is not the run's.
  """
  different = []
  known = before.get('functions', {})  # a run may be older than they are
  for part in sorted(known.keys() & now.keys()):
    was, is_ = known[part], now[part]
    if was['name'] != is_['name']:
      different.append(
        f'{part} was the function {was["name"]} and is {is_["name"]}'
      )
    elif was['source'] != is_['source']:
      notices.warn_once(
        f'{part} of {directory.path} is {is_["name"]}, whose code is not what it '
        f'was (its hash was {was["source"] or "unknown"} and is '
        f'{is_["source"] or "unknown"}).'
      )
  return different


def read_checkpoint(
  agent: core.Agent, directory: run_directory.RunDirectory
) -> checkpoint.Restored | None:
  """Returns the learner state that a run will resume from, if there is one.

  Raises:
    ValueError: if the state is of another agent, or if there are states and
      none is whole.
  """
  import jax

  from distacme.run import checkpoint

  if directory.last_step() is None:
    return None
  key = jax.random.key_data(jax.random.key(0))
  state = jax.eval_shape(agent.initial_learner_state, key)
  return checkpoint.read(directory.checkpoints, state)

"""Holds a run's settings, and makes the run's agent and environments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
from typing import Any

from distacme import core
from distacme import environments
from distacme import specs
from distacme.environments import families
from distacme.programs import agents_by_name
from distacme.programs import given_functions as given_functions_lib
from distacme.programs import identity
from distacme.programs import run_config
from distacme.run import run_directory


@dataclasses.dataclass(frozen=True)
class Experiment:
  """The settings of a run and of its agent, given to all workers."""

  run: run_config.RunConfig
  agent: Any  # the Config of the agent's module
  environment: Callable[[int], Any] | None = (
    None  # takes a seed; instead of run.env
  )
  network: Any = None  # a function; instead of run.network
  # `demonstrations.Demonstrations`, or a function; instead of run.demonstrations.
  demonstrations: Any = None
  # Counters of the run before this resumption.
  resumed_from: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def make_agent(self, spec: specs.EnvironmentSpec) -> core.Agent:
    """Returns the agent for an environment.

    Raises:
      ValueError: if the agent cannot act in the environment, or the agent's
        network does not fit.
    """
    module = agents_by_name.agent_module(self.run.agent)
    network = self.network
    if network is None and self.run.network:
      network = given_functions_lib.load(self.run.network)
    agent: core.Agent = module.make_agent(self.agent, spec, network=network)
    return agent

  def learner_settings(
    self, agent: core.Agent, directory: run_directory.RunDirectory
  ) -> dict[str, Any]:
    """Returns the arguments of `wiring.make_learner` that all modes share."""
    run = self.run
    default_period = 1 if agent.replay.used_once else 10
    return {
      'updates_per_call': run.updates_per_call,
      'publish_period': run.publish_period or default_period,
      'stop_if_not_finite': run.stop_if_not_finite,
      'last_saved': directory.last_saved,
    }

  def make_vector(self, num_envs: int, stream: int) -> core.VectorEnvironment:
    """Returns environments seeded for the worker of number `stream`."""
    seed = environments.row_seed(self.seed, stream)
    return environments.make_vector(
      self.environment or self.run.env,
      num_envs,
      seed,
      searchable=getattr(self.agent, 'searches_environment', False),
    )

  @property
  def seed(self) -> int:
    """The seed of exploration and environments.

    A resumed run has another seed: with the first seed it would repeat the
    episodes that the run began with.
    """
    env_steps = self.resumed_from.get('env_steps', 0)
    if not env_steps:
      return self.run.seed
    return environments.row_seed(self.run.seed, env_steps)

  def environment_spec(self) -> specs.EnvironmentSpec:
    """Returns the spec of an environment that is made for this question."""
    environment = environments.make(
      self.environment or self.run.env, self.run.seed
    )
    spec = specs.make_environment_spec(environment)
    environment.close()
    return spec

  def as_dict(self) -> dict[str, Any]:
    """Returns all settings, resolved, for the run directory."""
    return {
      'run': dataclasses.asdict(self.run),
      'agent': dataclasses.asdict(self.agent),
      'functions': {
        **{
          part: identity.of(function)._asdict()
          for part, function in self._named_functions().items()
        },
        **{
          part: {
            **identity.of(function)._asdict(),
            'import_path': given_functions_lib.import_path(function),
          }
          for part, function in self.given_functions().items()
        },
      },
    }

  def given_functions(self) -> dict[str, Any]:
    """Returns the user's functions that were given as objects, by field."""
    given = {'env': self.environment, 'network': self.network}
    return {part: value for part, value in given.items() if value is not None}

  def _named_functions(self) -> dict[str, Any]:
    """Returns the functions that fields of the run name as module:name."""
    found = {}
    for part in {
      'env',
      'network',
      'demonstrations',
    } - self.given_functions().keys():
      path = getattr(self.run, part)
      if path.partition(':')[0] not in families.FAMILIES:
        with contextlib.suppress(ValueError):  # the name leads to no function
          found[part] = given_functions_lib.load(path)
    return found

"""What a user says of a run, and the agent and environments it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import contextlib
import dataclasses
import difflib
import importlib
import pathlib
import pkgutil
import types
from typing import TYPE_CHECKING, Any, Literal

from distacme import agents
from distacme import config_checks
from distacme import core
from distacme import environments
from distacme import specs
from distacme.environments import families
from distacme.programs import functions
from distacme.programs import identity
from distacme.programs.launchers import table
from distacme.programs.workers import devices
from distacme.run import run_directory
from distacme.run import status

if TYPE_CHECKING:
  from distacme.acting import evaluator
  from distacme.replay import demonstrations


def _field(
  default: Any,
  *,
  resume: Literal['fixed', 'free', 'limit'] = 'free',
  plot: Literal['setting', 'ignore'] = 'setting',
) -> Any:
  """Returns a field of `RunConfig` with what others must know of it.

  Args:
    default: value of the field.
    resume: 'fixed' if a resumed run must have the same value, 'limit' if the value
      decides when a run has ended, so that another one may continue it.
    plot: whether runs that differ in the field are drawn as two lines.
  """
  return dataclasses.field(
    default=default, metadata={'resume': resume, 'plot': plot}
  )


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """A run: who learns what, where, and until when."""

  agent: str = _field('dqn', resume='fixed')
  """An agent of distacme.agents, or a module of your own like it."""
  env: str = _field('gymnasium:CartPole-v1', resume='fixed')
  """family:environment, or package.module:factory for one of your own."""
  preset: str = _field('auto', plot='ignore')
  """Defaults of the agent's settings for kinds of environments, which 'distacme
  agents' lists: by its name, or auto for that of the environment, or none."""
  network: str = _field('', resume='fixed')
  """package.module:function, a Haiku network of your own; else the agent's."""
  demonstrations: str = _field('', resume='fixed')
  """package.module:function, which returns recorded episodes
  (distacme.replay.demonstrations.Episode), for agents that learn from them."""
  mode: table.Mode = 'processes'
  """local: one debuggable process; threads or processes: workers side by side."""
  num_actors: int = 2
  """Actors of a program; in local mode there is one."""
  envs_per_actor: int = 1
  """Environments that each actor steps with one call of the policy."""
  seed: int = _field(0, resume='fixed', plot='ignore')
  """Of params, exploration, sampling and environments."""
  max_env_steps: int | None = _field(1_000_000, resume='limit', plot='ignore')
  """Environment steps, all actors together, after which the run ends."""
  max_learner_steps: int | None = _field(None, resume='limit', plot='ignore')
  """Learner steps after which the run ends."""
  max_seconds: float | None = _field(None, resume='limit', plot='ignore')
  """Wall-clock seconds after which the run ends."""
  solved_return: float | None = _field(None, resume='limit', plot='ignore')
  """Mean return in an evaluation at which the run ends."""
  clock: status.Clock = 'env_steps'
  """Steps over which the run is evaluated and its curves are drawn."""
  eval_period: int = 2_000
  """Steps of the clock between evaluations. See max_eval_share."""
  eval_episodes: int = 20
  """Episodes in an evaluation."""
  max_eval_share: float = 0.2
  """Share of the time that evaluations may take: one that is due is left out while
  they have taken more, but for that after the last step. 1 leaves none out, for
  runs whose evaluations are to be the same however fast they go."""
  max_eval_episode_steps: int = 27_000
  """Steps after which an evaluated episode is cut off; it may never end else."""
  publish_period: int | None = None
  """Learner steps between publications of the params; by default 10, or 1 where
  experience is used once, so that it is as new as can be."""
  updates_per_call: int = 1
  """Learner steps in one compiled call; saves the time between them. Priorities
  are that much staler. Updates with convolutions stay single on the CPU."""
  stop_if_not_finite: bool = _field(True, plot='ignore')
  """Whether a loss, or another metric of the learner, that is not a finite number
  ends the run; if not, it is learnt on from, and saved."""
  max_restarts: int = _field(3, plot='ignore')
  """Restarts of a worker of a program within ten minutes; one more failure ends
  the run. 0 ends it at the first."""
  hang_timeout_s: float = _field(300.0, plot='ignore')
  """Seconds without a heartbeat, as of an environment that hangs in a step, after
  which a worker of a program is killed and restarted."""
  checkpoint_period_s: float = _field(60.0, plot='ignore')
  """Seconds between checkpoints of the learner; in local mode with one
  environment, where they wait for checkpoint_period_steps, at least."""
  checkpoint_period_steps: int = _field(20_000, plot='ignore')
  """Environment steps after which local mode with one environment saves, at the
  end of an episode: a resumed run then does bit for bit what this one does."""
  replay_checkpoint_period_s: float | None = _field(600.0, plot='ignore')
  """Seconds between checkpoints of what replay holds, in programs; None saves it
  never. It takes some 25 us an item; inserts and samples wait for 3 of them."""
  run_dir: pathlib.Path | None = _field(None, plot='ignore')
  """Where the run's files go; by default a new directory below ./runs."""
  replay_in_learner: bool = _field(False, plot='ignore')
  """Whether the replay server lives in the learner's process, which then reads
  it more than twice as fast; it ends with the learner."""
  learner_devices: tuple[int, ...] = _field((), plot='ignore')
  """Accelerators that the learner uses, by number; by default all there are."""
  actor_devices: tuple[int, ...] = _field((), plot='ignore')
  """Accelerators of the first actors, one each; the others act on the CPU."""
  tls: bool = _field(False, plot='ignore')
  """Whether workers of a program show a key of the run (mutual TLS) to its variable
  server, which else serves every user of this host. Each MB of params that is sent
  takes 0.7 ms of CPU time more; needs the library cryptography. Replay has no TLS:
  it listens on loopback, for every user."""
  jit: bool = _field(True, plot='ignore')
  """Whether to compile; without, breakpoint() works in the agent (local mode)."""

  def __post_init__(self) -> None:
    config_checks.make_whole(
      self,
      *(
        field.name
        for field in dataclasses.fields(self)
        if field.type in ('int', 'int | None')
      ),
    )
    config_checks.check_at_least_one(
      self,
      'num_actors',
      'envs_per_actor',
      'eval_period',
      'eval_episodes',
      'max_eval_episode_steps',
      'updates_per_call',
      'checkpoint_period_steps',
    )
    if self.publish_period is not None:
      config_checks.check_at_least_one(self, 'publish_period')
    config_checks.check_positive(self, 'checkpoint_period_s', 'hang_timeout_s')
    if self.replay_checkpoint_period_s is not None:
      config_checks.check_positive(self, 'replay_checkpoint_period_s')
    config_checks.check_not_negative(self, 'seed', 'max_restarts')
    config_checks.check_share(self, 'max_eval_share')
    if self.clock not in status.CLOCKS:
      raise ValueError(
        f'clock must be one of {", ".join(status.CLOCKS)}, got {self.clock!r}.'
      )
    launcher = table.find(self.mode)
    if not self.jit and launcher.has_services:
      raise ValueError(
        f'without jit an agent runs in local mode only, got mode={self.mode!r}.'
        " Add '--mode local'."
      )
    if self.tls and not launcher.has_services:
      raise ValueError(
        f'tls=True is for services, and mode={self.mode!r} has none: nothing '
        'listens. Leave it out.'
      )
    if self.agent == '__main__' and launcher.has_processes:
      raise ValueError(
        'other processes do not find an agent in the script that was started. '
        "Move it to a module of its own, or use mode='local'."
      )
    devices.check_claims(self.learner_devices, self.actor_devices)
    if self.actor_devices and not launcher.has_services:
      raise ValueError(
        "in local mode the actor shares the learner's devices, got "
        f'actor_devices={self.actor_devices}. Leave it out.'
      )
    if len(self.actor_devices) > self.num_actors:
      raise ValueError(
        f'actor_devices={self.actor_devices} is for more actors than '
        f'num_actors={self.num_actors}. Name at most one each.'
      )
    _ = self.limits  # checks itself

  def actor_device(self, index: int) -> int | None:
    """Returns the accelerator of an actor, None if it acts on the CPU."""
    return dict(enumerate(self.actor_devices)).get(index)

  @property
  def evaluation(self) -> str:
    """A line that says how often the run is evaluated, and at what cost."""
    plural = 's' if self.eval_episodes > 1 else ''
    line = (
      f'evaluation: {self.eval_episodes} episode{plural} every '
      f'{self.eval_period:,} {status.CLOCKS[self.clock]} and after the last'
    )
    if self.max_eval_share < 1:
      line += (
        f'; left out while they have taken more than {self.max_eval_share:.0%} '
        'of the time (--max-eval-share)'
      )
    return line

  @property
  def evaluator_settings(self) -> evaluator.Settings:
    """How much is evaluated, and when."""
    from distacme.acting import evaluator

    return evaluator.Settings(
      episodes=self.eval_episodes,
      max_episode_steps=self.max_eval_episode_steps,
      clock=self.clock,
      period=self.eval_period,
      max_share=self.max_eval_share,
      solved_return=self.solved_return,
    )

  @property
  def limits(self) -> status.Limits:
    """When the run ends by itself."""
    return status.Limits(
      self.max_env_steps, self.max_learner_steps, self.max_seconds
    )


def fields_with(**metadata: str) -> list[str]:
  """Returns the names of RunConfig's fields of that `resume` or `plot`."""
  return [
    field.name
    for field in dataclasses.fields(RunConfig)
    if all(
      (field.metadata or _field(None).metadata)[key] == value
      for key, value in metadata.items()
    )
  ]


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A run and the configuration of its agent; what all workers are given."""

  run: RunConfig
  agent: Any  # the Config of the agent's module
  environment: Callable[[int], Any] | None = None  # (seed); instead of run.env
  network: Any = None  # a function; instead of run.network
  # Counters of the run before this resumption.
  resumed_from: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def make_agent(self, spec: specs.EnvironmentSpec) -> core.Agent:
    """Returns the agent for an environment.

    Raises:
      ValueError: if it cannot act there, or its network does not fit.
    """
    module = agent_module(self.run.agent)
    network = self.network
    if network is None and self.run.network:
      network = load_function(self.run.network)
    agent: core.Agent = module.make_agent(self.agent, spec, network=network)
    return agent

  def check_demonstrations(self, agent: core.Agent) -> None:
    """Checks that there are demonstrations if the agent wants some; calls nothing.

    Raises:
      ValueError: if the agent wants episodes and none are given, or the other way
        round, or there is no such function.
    """
    path = self.run.demonstrations
    wanted = bool(agent.replay.tables_of_demonstrations)
    if wanted != bool(path):
      raise ValueError(
        f'{self.run.agent} learns from demonstrations, and none are given. Add '
        "'--demonstrations package.module:function'."
        if wanted
        else f'{self.run.agent} learns from no demonstrations, got '
        f'demonstrations={path!r}. Leave it out.'
      )
    if path and not callable(load_function(path)):
      raise ValueError(
        f'demonstrations={path!r} is no function. Give one that returns episodes.'
      )

  def read_demonstrations(self) -> Iterable[demonstrations.Episode] | None:
    """Returns the episodes that fill replay's tables of demonstrations, if any."""
    path = self.run.demonstrations
    if not path:
      return None
    episodes: Iterable[demonstrations.Episode] = load_function(path)()
    return episodes

  def learner_settings(
    self, agent: core.Agent, directory: run_directory.RunDirectory
  ) -> dict[str, Any]:
    """Returns what `wiring.make_learner` is given in every mode."""
    run = self.run
    default_period = 1 if agent.replay.used_once else 10
    return {
      'updates_per_call': run.updates_per_call,
      'publish_period': run.publish_period or default_period,
      'stop_if_not_finite': run.stop_if_not_finite,
      'last_saved': directory.last_saved,
    }

  def make_vector(self, num_envs: int, stream: int) -> core.VectorEnvironment:
    """Returns environments whose seed belongs to worker number `stream`."""
    seed = environments.row_seed(self.seed, stream)
    return environments.make_vector(
      self.environment or self.run.env, num_envs, seed
    )

  @property
  def seed(self) -> int:
    """The seed of exploration and environments; a resumed run's is another.

    Or it would begin with the episodes that the run began with.
    """
    env_steps = self.resumed_from.get('env_steps', 0)
    if not env_steps:
      return self.run.seed
    return environments.row_seed(self.run.seed, env_steps)

  def environment_spec(self) -> specs.EnvironmentSpec:
    """Makes an environment to ask it for its spec."""
    environment = environments.make(
      self.environment or self.run.env, self.run.seed
    )
    spec = specs.make_environment_spec(environment)
    environment.close()
    return spec

  def as_dict(self) -> dict[str, Any]:
    """Returns everything, resolved, for the run directory."""
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
            'import_path': functions.import_path(function),
          }
          for part, function in self.given_functions().items()
        },
      },
    }

  def given_functions(self) -> dict[str, Any]:
    """Returns the user's functions that have no name, by the field's name."""
    given = {'env': self.environment, 'network': self.network}
    return {part: value for part, value in given.items() if value is not None}

  def _named_functions(self) -> dict[str, Any]:
    """Returns the functions that the fields of the run name."""
    found = {}
    for part in {
      'env',
      'network',
      'demonstrations',
    } - self.given_functions().keys():
      path = getattr(self.run, part)
      if path.partition(':')[0] not in families.FAMILIES:
        with contextlib.suppress(ValueError):  # there is none
          found[part] = load_function(path)
    return found


def known_agents() -> list[str]:
  """Returns the names of the agents in distacme.agents."""
  return sorted(module.name for module in pkgutil.iter_modules(agents.__path__))


def agent_module(name: str) -> types.ModuleType:
  """Returns the module of an agent, which has `Config` and `make_agent`.

  Args:
    name: one of `known_agents`, or the path of a module to import.

  Raises:
    ValueError: if there is none of that name.
  """
  path = f'distacme.agents.{name}' if name in known_agents() else name
  try:
    if not all(part.isidentifier() for part in path.split('.')):
      raise ModuleNotFoundError(name=path)  # nor does Python take it
    module = importlib.import_module(path)
  except ImportError as error:
    if not f'{path}.'.startswith(f'{error.name}.'):
      message = f'the agent {name!r} cannot be imported: {error}.'
      raise ValueError(message) from error
    close = difflib.get_close_matches(name, known_agents(), n=1)
    hint = f' Did you mean {close[0]!r}?' if close else ''
    raise ValueError(
      f'no agent is called {name!r}.{hint} Known: '
      f'{", ".join(known_agents())}; or name a module of your own, like '
      'my_package.my_agent, whose folder is on PYTHONPATH.'
    ) from error
  for attribute in ('Config', 'make_agent'):
    if not hasattr(module, attribute):
      raise ValueError(
        f'{path} is no agent: it has no {attribute}. An agent is a module '
        'with a dataclass Config and a function make_agent(config, spec, '
        'network=None), like distacme.agents.dqn.'
      )
  return module


def load_function(path: str) -> Any:
  """Returns what 'package.module:name' names.

  Raises:
    ValueError: if it cannot be found.
  """
  module_name, colon, name = path.partition(':')
  if not colon:
    raise ValueError(f'expected package.module:function, got {path!r}.')
  try:
    return getattr(importlib.import_module(module_name), name)
  except (ImportError, AttributeError) as error:
    raise ValueError(
      f'{path!r} cannot be loaded: {error}. Check the spelling, and that its '
      'folder is on PYTHONPATH.'
    ) from error

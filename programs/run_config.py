"""The settings of a run: one flag of `distacme train` for each."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any, Literal

from distacme import config_checks
from distacme import status
from distacme.programs import accelerators
from distacme.programs import modes
from distacme.programs import opponents
from distacme.programs import replay_transports
from distacme.run import run_state

if TYPE_CHECKING:
  from distacme.acting import evaluator


def _field(
  default: Any,
  *,
  resume: Literal['fixed', 'free', 'limit'] = 'free',
  plot: Literal['setting', 'ignore'] = 'setting',
) -> Any:
  """Returns a field of `RunConfig`, marked for resuming and plotting.

  Args:
    default: value of the field.
    resume: 'fixed' if a resumed run must have the same value, 'limit' if the value
      decides when a run has ended, so that another value may continue the run.
    plot: 'setting' if runs that differ in the field are drawn as two lines.
  """
  return dataclasses.field(
    default=default, metadata={'resume': resume, 'plot': plot}
  )


# What a core sends to 100 actors in 0.1 s is params of 1 MB (docs/scale.md).
_ACTORS_OF_A_RELAY = 100
_ACTORS_WITHOUT_RELAYS = 200


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """A run: its agent, environment, workers and limits."""

  agent: str = _field('dqn', resume='fixed')
  """An agent of distacme.agents, or a module of your own like it."""
  env: str = _field('gymnasium:CartPole-v1', resume='fixed')
  """family:environment, or package.module:factory for one of your own."""
  preset: str = _field('auto', plot='ignore')
  """Defaults of the agent's settings for kinds of environments: the name of a
  preset ('distacme agents' lists them), auto for the environment's, or none."""
  network: str = _field('', resume='fixed')
  """package.module:function, a Haiku network of your own; else the agent's."""
  demonstrations: str = _field('', resume='fixed')
  """Recorded episodes: the folder or the ID of a Minari dataset on this disk
  ('distacme record' writes one), or package.module:function, which returns them
  (distacme.demonstrations). Agents that learn from demonstrations need some; of
  most others they are in replay before the first step."""
  mode: modes.Mode = 'processes'
  """local: one debuggable process; threads or processes: workers side by side on
  this host; slurm or kubernetes: as jobs of a cluster."""
  num_actors: int = 2
  """Actors of a program; in local mode there is one."""
  num_relays: int | None = _field(None, plot='ignore')
  """Relays of a program, which hand the params on to the actors; by default none for
  up to 200 actors, and else one for every 100."""
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
  # Returns against two opponents are no single curve, and have no common best.
  opponent: opponents.Opponent | None = _field(None, resume='fixed')
  """Opponent in evaluations of games for two: random moves (the default), perfect
  play where it is computable, or untrained, the agent as it was before its first
  update."""
  max_eval_share: float = 0.2
  """Share of the time that evaluations may take: a due evaluation is left out
  while evaluations have taken more, except the one after the last step. 1
  leaves none out, so that the evaluations do not depend on the run's speed."""
  max_eval_episode_steps: int = 27_000
  """Steps after which an evaluated episode is cut off; it might never end."""
  publish_period: int | None = None
  """Learner steps between publications of the params; by default 10, but in
  programs at most ten times a second, or 1 where experience is used once, so that
  it is as new as can be."""
  updates_per_call: int = 1
  """Learner steps in one compiled call; saves the time between them. Priorities
  are that much staler. Updates with convolutions stay single on the CPU."""
  stop_if_not_finite: bool = _field(True, plot='ignore')
  """Ends the run when a metric of the learner, like the loss, becomes NaN or
  infinite; otherwise the learner goes on from these params and saves them."""
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
  """Seconds between checkpoints of replay's items, in programs; None saves none.
  Inserts and samples wait while the items are copied."""
  run_dir: pathlib.Path | None = _field(None, plot='ignore')
  """Directory of the run's files; by default a new one below ./runs."""
  replay_transport: replay_transports.Transport | None = _field(
    None, plot='ignore'
  )
  """Transport of experience from actors to replay: reverb, or a service of
  distacme's own (grpc); by default Reverb where it is installed and tls is off."""
  num_replay_servers: int = _field(1, resume='fixed', plot='ignore')
  """Replay servers of a program, among which the actors are divided. The learner
  samples all of them as if they were one. More than one are for actors whose
  experience is more than one process takes."""
  replay_in_learner: bool = _field(False, plot='ignore')
  """Runs replay in the learner's process: one process less, and replay ends with
  the learner."""
  learner_devices: tuple[int, ...] = _field((), plot='ignore')
  """Accelerators of the learner, by number; by default all of this host."""
  actor_devices: tuple[int, ...] = _field((), plot='ignore')
  """Accelerators of the first actors, one each; the others act on the CPU."""
  tls: bool = _field(False, plot='ignore')
  """Makes workers of a program show a key of the run to its services (mutual TLS),
  which otherwise ask for the token of the run, in plain text on loopback. Sending
  takes 0.7 ms more of CPU time for each MB of params; needs the library
  cryptography. Reverb has no TLS."""
  cluster: pathlib.Path | None = _field(None, plot='ignore')
  """cluster.toml, the description of the cluster of a mode like slurm: resources,
  partitions, images. 'distacme cluster-example' prints one."""
  dry_run: bool = _field(False, plot='ignore')
  """Writes into the run directory, and prints, what would be submitted to the
  cluster, and submits nothing."""
  jit: bool = _field(True, plot='ignore')
  """Compiles the agent; without jit, breakpoint() works in the agent (local
  mode)."""

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
      'num_replay_servers',
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
    if self.num_actors > run_state.MAX_ACTORS:
      raise ValueError(
        f'num_actors={self.num_actors} is more than {run_state.MAX_ACTORS}, the most '
        'that one variable server takes reports of. Let each step several '
        "environments instead: '--envs-per-actor'."
      )
    if self.num_relays is not None:
      config_checks.check_not_negative(self, 'num_relays')
    config_checks.check_share(self, 'max_eval_share')
    if self.clock not in status.CLOCKS:
      raise ValueError(
        f'clock must be one of {", ".join(status.CLOCKS)}, got {self.clock!r}.'
      )
    if self.opponent not in (None, *opponents.OPPONENTS):
      raise ValueError(
        f'opponent must be one of {", ".join(opponents.OPPONENTS)}, got '
        f'{self.opponent!r}.'
      )
    launcher = modes.find(self.mode)
    self._check_cluster(launcher)
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
    if self.replay_transport not in (None, *replay_transports.TRANSPORTS):
      raise ValueError(
        'replay_transport must be one of '
        f'{", ".join(replay_transports.TRANSPORTS)}, got '
        f'{self.replay_transport!r}.'
      )
    if self.encrypted and self.replay_transport == 'reverb':
      raise ValueError(
        f'{"tls=True" if self.tls else f"mode={self.mode!r}"} encrypts all that a '
        'run sends, and Reverb, which takes experience to replay, has no TLS. Add '
        "'--replay-transport grpc'."
      )
    self._check_replay_servers(launcher.has_services)
    if self.agent == '__main__' and launcher.has_processes:
      raise ValueError(
        'other processes do not find an agent in the script that was started. '
        "Move it to a module of its own, or use mode='local'."
      )
    accelerators.check_claims(self.learner_devices, self.actor_devices)
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
    if self.relays > self.num_actors:
      raise ValueError(
        f'num_relays={self.num_relays} is more than num_actors='
        f'{self.num_actors}: relays hand the params on to actors, some hundred '
        'each. Ask for fewer, or leave it out.'
      )
    _ = self.limits  # `Limits` checks its fields

  def _check_cluster(self, launcher: modes.Launcher) -> None:
    """Refuses settings for clusters in other modes, and the other way round."""
    for name in ('cluster', 'dry_run'):
      if getattr(self, name) and not launcher.remote:
        raise ValueError(
          f'{name}={getattr(self, name)} is for modes of a cluster, '
          f'{" and ".join(modes.remote())}, and mode is {self.mode!r}. Leave it out.'
        )
    if launcher.remote and self.actor_devices:
      raise ValueError(
        f'actor_devices={self.actor_devices} counts the accelerators of one host. '
        'On a cluster actors keep to the CPU: leave it out.'
      )
    if launcher.remote and self.learner_devices:
      raise ValueError(
        f'learner_devices={self.learner_devices} counts the accelerators of one '
        'host. Give the learner its own in cluster.toml: gpus, in [learner].'
      )

  @property
  def encrypted(self) -> bool:
    """Whether workers show the run's key to its services: always between hosts."""
    return self.tls or modes.find(self.mode).remote

  def _check_replay_servers(self, has_services: bool) -> None:
    """Refuses more replay servers than the run has a use for."""
    count = self.num_replay_servers
    if count == 1:
      return
    if not has_services:
      raise ValueError(
        f'num_replay_servers={count} are processes or threads, and '
        f'mode={self.mode!r} has none. Leave it out.'
      )
    if self.replay_in_learner:
      raise ValueError(
        f'num_replay_servers={count} are more than replay_in_learner has room '
        'for: there is one. Leave either out.'
      )
    if count > self.num_actors:
      raise ValueError(
        f'num_replay_servers={count} are more than num_actors={self.num_actors}: '
        'nobody would write to some of them. Give at least one actor each.'
      )

  def actor_device(self, index: int) -> int | None:
    """Returns the accelerator of an actor, None if the actor is on the CPU."""
    return dict(enumerate(self.actor_devices)).get(index)

  @property
  def relays(self) -> int:
    """The number of relays, chosen by the user or by the number of actors."""
    if self.num_relays is not None:
      return self.num_relays
    if self.num_actors <= _ACTORS_WITHOUT_RELAYS:
      return 0
    return -(-self.num_actors // _ACTORS_OF_A_RELAY)

  @property
  def transport(self) -> replay_transports.Transport:
    """The transport of experience, chosen by the user or by what is installed."""
    return self.replay_transport or replay_transports.default(self.encrypted)

  @property
  def evaluation(self) -> str:
    """A line about the period and the cost of the run's evaluations."""
    plural = 's' if self.eval_episodes > 1 else ''
    against = f' against {self.opponent!r}' if self.opponent else ''
    line = (
      f'evaluation: {self.eval_episodes} episode{plural}{against} every '
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
    """The evaluator's episodes, rows and period."""
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
    """The limits at which the run ends by itself."""
    return status.Limits(
      self.max_env_steps, self.max_learner_steps, self.max_seconds
    )


def defaults_for(agent_config: Any) -> dict[str, Any]:
  """Returns the defaults of a run that differ for an agent.

  An agent that learns from demonstrations alone makes no environment steps.

  Args:
    agent_config: the agent's settings, of which `replay` is looked at.
  """
  replay = getattr(agent_config, 'replay', None)
  if replay is None or replay.needs_actors:
    return {}
  return {
    'clock': 'learner_steps',
    'max_env_steps': None,
    'max_learner_steps': 20_000,
    'eval_period': 500,
  }


def fields_with(**metadata: str) -> list[str]:
  """Returns the names of RunConfig's fields with that `resume` or `plot`."""
  return [
    field.name
    for field in dataclasses.fields(RunConfig)
    if all(
      (field.metadata or _field(None).metadata)[key] == value
      for key, value in metadata.items()
    )
  ]

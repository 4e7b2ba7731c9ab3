"""DQfD: DQN that starts from demonstrations (needs --demonstrations).

Hester et al. 2018 (arXiv:1704.03732): double Q-learning with a dueling head and four
losses, of one step, of n steps, of a large margin by which a demonstrated action is to
be better than the others, and of the size of the weights. The agent first learns from
demonstrations alone. Later it draws from its own transitions and from demonstrations as
from one prioritised table, in which demonstrations have a larger bonus and are never
dropped, so that their share settles by itself. Many actors explore and compute first
priorities as in Ape-X DQfD (Pohlen et al. 2018, arXiv:1805.11593). Differences: priorities
follow the error of one step; the importance exponent is constant; rewards are not squashed
(`reward_scale`, `max_abs_reward`); there is no temporal consistency loss, which is
Ape-X DQfD's; and sizes, rates and numbers of steps are by default for small tasks.
"""

from __future__ import annotations

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from distacme import config_checks
from distacme import lazy_imports
from distacme import replay_spec
from distacme import specs
from distacme import types
from distacme.agents import dqn
from distacme.kit import optimizers

rlax = lazy_imports.module('rlax')

_DEMONSTRATIONS = 1  # index of their table


@dataclasses.dataclass(frozen=True)
class Config(dqn.Config):
  """Settings of DQfD; the paper's, where they differ, stand beside them."""

  n_step: int = 10
  """Steps of the longer returns; the others are of one step."""
  epsilon_base: float = 0.1
  """Base of the exploration ladder; every epsilon is 0.01 in the paper."""
  epsilon_exponent: float = 1.0
  """Length of the exploration ladder, in powers of its base."""
  dueling: bool = True
  """Whether the default network has a dueling head."""
  samples_per_insert: float = 32.0
  """Transitions learnt from per environment step after the pre-training, be they the
  agent's own or demonstrations."""
  min_replay_size: int = 100
  """Own transitions collected before learning goes on after the pre-training."""
  max_demonstrations: int = 100_000
  """Transitions of demonstrations that there is room for."""
  pretraining_steps: int = 1_000
  """Learner steps on demonstrations alone, before the first action; 750,000 in the
  paper."""
  priority_exponent: float = 0.4
  """Alpha of prioritised replay."""
  importance_exponent: float = 0.6
  """Beta of prioritised replay; rises to 1 in the paper."""
  priority_bonus: float = 0.001
  """Added to the priorities of own transitions."""
  demonstration_bonus: float = 1.0
  """Added to the priorities of demonstrations."""
  margin: float = 0.8
  """Values of demonstrated actions are to be above all others by this much."""
  margin_weight: float = 1.0
  """Weight of the large margin loss, lambda 2."""
  n_step_weight: float = 1.0
  """Weight of the loss of n steps, lambda 1."""
  l2_weight: float = 1e-5
  """Weight of the squared params, lambda 3."""

  def __post_init__(self) -> None:
    if self.n_step < 2:
      raise ValueError(
        f'n_step must be at least 2, as DQfD learns from one step beside it, got '
        f'{self.n_step}.'
      )
    super().__post_init__()
    config_checks.check_positive(self, 'priority_bonus', 'demonstration_bonus')
    config_checks.check_not_negative(
      self,
      'margin',
      'margin_weight',
      'n_step_weight',
      'l2_weight',
      'pretraining_steps',
    )

  @property
  def replay(self) -> replay_spec.ReplaySpec:
    """Spec of the replay, by these settings."""
    (of_dqn,) = super().replay.tables
    own = dataclasses.replace(
      of_dqn,
      window=replay_spec.NStep(
        (1, self.n_step), self.discount, self.reward_scale, self.max_abs_reward
      ),
    )
    demonstrations = own.of_demonstrations(self.max_demonstrations)
    return replay_spec.ReplaySpec(
      (own, demonstrations),
      self.batch_size,
      mixture='priorities',
      pretraining_batches=self.pretraining_steps,
    )


def large_margin_loss(
  q: jax.Array, demonstrated: jax.Array, margin: float
) -> jax.Array:
  """Returns the loss [B] of actions that are not better than all others by a margin.

  Equation 1 of the paper: max_a [q(a) + margin 1(a != a_E)] - q(a_E).

  Args:
    q: [B, num_actions] action values.
    demonstrated: [B] the demonstrated actions, a_E.
    margin: by which the value of a_E is to be above that of any other action.
  """
  others = 1.0 - jax.nn.one_hot(demonstrated, q.shape[-1])
  best = (q + margin * others).max(axis=-1)
  return best - jnp.take_along_axis(q, demonstrated[:, None], axis=-1)[:, 0]


class DQfD(dqn.DQN):
  """DQfD for one environment spec; see `core.Agent`."""

  _config: Config

  def loss(
    self,
    params: hk.Params,
    target_params: hk.Params,
    batch: types.Batch,
    key: types.Key,
  ) -> tuple[jax.Array, types.UpdateOutput]:
    """Returns the weighted mean of the four losses, and new priorities.

    Consumes `key` if the network is random, which draws in each of three uses.
    """
    config = self._config
    o_tm1, a_tm1, r_t, discount_t, o_t, _ = batch.data
    keys = jax.random.split(key, 3)
    q_tm1 = self._network.apply(params, keys[0], o_tm1)
    # [B, 2, num_actions]: after one step, and after n.
    q_t_online = self._at_both_ends(params, keys[1], o_t)
    q_t_target = self._at_both_ends(target_params, keys[2], o_t)
    both_ends = jax.vmap(dqn.td_error, in_axes=(None, None, 0, 0, 0, 0))
    errors = jax.vmap(both_ends)(
      q_tm1, a_tm1, r_t, discount_t, q_t_target, q_t_online
    )
    one_step, n_step = rlax.huber_loss(errors, config.huber_delta).T
    is_demonstrated = batch.table == _DEMONSTRATIONS
    margin = is_demonstrated * large_margin_loss(q_tm1, a_tm1, config.margin)
    each = (
      one_step + config.n_step_weight * n_step + config.margin_weight * margin
    )
    weights = dqn.importance_weights(
      batch.probability, config.importance_exponent
    )
    size = optimizers.global_norm(params) ** 2
    loss = jnp.mean(weights * each) + config.l2_weight * size
    error = jnp.abs(errors[:, 0])
    metrics = {
      'loss': loss,
      'margin_loss': margin.sum() / is_demonstrated.sum().clip(1),
      'mean_q': q_tm1.mean(),
      'mean_abs_td_error': error.mean(),
    }
    bonus = jnp.where(
      is_demonstrated, config.demonstration_bonus, config.priority_bonus
    )
    return loss, types.UpdateOutput(metrics, error + bonus)

  def _at_both_ends(
    self, params: hk.Params, key: types.Key, observation: types.NestedArray
  ) -> jax.Array:
    """Returns action values [B, 2, num_actions] of observations [B, 2, ...]."""
    rows = jax.tree.map(
      lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), observation
    )
    q = self._network.apply(params, key, rows)
    return q.reshape(-1, 2, self._num_actions)

  def first_priority(
    self, window: types.Transition, values: list[dict[str, np.ndarray]]
  ) -> np.ndarray:
    """Returns priorities [B] of own transitions, by their error of one step."""
    of_one_step = window._replace(
      reward=window.reward[:, 0], discount=window.discount[:, 0]
    )
    error = super().first_priority(of_one_step, values[:2])
    return error + self._config.priority_bonus


def make_agent(
  config: Config,
  spec: specs.EnvironmentSpec,
  network: dqn.Network | None = None,
) -> DQfD:
  """Returns DQfD for an environment; see `dqn.make_agent`."""
  return DQfD(config, spec, network)

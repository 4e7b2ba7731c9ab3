"""Monte Carlo tree search in batches, by mctx (https://github.com/google-deepmind/mctx).

A search grows a tree of states for each row. Every simulation walks down from the root,
steps a model at a new action, evaluates the new state by the network, and backs its
value up: a parent's value is reward plus discount times the child's. A discount below 0
turns the sign: the other player moves there.

mctx runs all simulations in a loop function that its caller may give. So the search of
a model is one compiled call (`run`), and the search of a simulator is a call for each
simulation (`begin`, `advance`), with the same tree and the same choices.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distacme import core
from distacme import lazy_imports
from distacme import specs
from distacme import types
from distacme.kit import settings as settings_lib

mctx = lazy_imports.module('mctx')

_ILLEGAL = -1e9  # logit of actions that must not be chosen

Tree = Any  # an mctx.Tree of rows [B, nodes, ...]


class Evaluation(NamedTuple):
  """A network's view of states.

  Attributes:
    logits: [B, num_actions] of the prior; see `mask`.
    value: [B] of the player who moves next.
  """

  logits: jax.Array
  value: jax.Array


class ModelOutput(NamedTuple):
  """The result of a step of a model, evaluated.

  Attributes:
    state: [B, ...].
    reward: [B].
    discount: [B], without gamma.
    evaluation: of the new state.
  """

  state: Any
  reward: jax.Array
  discount: jax.Array
  evaluation: Evaluation


# (key, state [B, ...], action [B]) to the model's output.
Step = Callable[[types.Key, Any, jax.Array], ModelOutput]


class Found(NamedTuple):
  """The outcome of a search.

  Attributes:
    visits: [B, num_actions] simulations that began with each action.
    policy: [B, num_actions] the improved policy, to learn from: shares of visits,
      or Gumbel MuZero's.
    best: [B] int32, the action to take: the most visited one, or Gumbel MuZero's.
    value: [B] of the root, after the search.
    depth: [B] int32, steps from the root to the deepest state.
  """

  visits: jax.Array
  policy: jax.Array
  best: jax.Array
  value: jax.Array
  depth: jax.Array


class _Node(NamedTuple):
  """All that a node of a tree holds beside mctx's numbers."""

  state: Any
  depth: jax.Array


def mask(logits: jax.Array, observation: types.NestedArray) -> jax.Array:
  """Returns logits [B, A] whose illegal actions have no chance.

  Args:
    logits: [B, A].
    observation: nest of [B, ...]; without `specs.LEGAL_ACTIONS` all are legal.
  """
  if not specs.has_legal_actions(observation):
    return logits
  return jnp.where(observation[specs.LEGAL_ACTIONS], logits, _ILLEGAL)


def without_mask(nest: types.NestedArray) -> types.NestedArray:
  """Returns a nest of observations, or of their specs, without legal actions."""
  if not specs.has_legal_actions(nest):
    return nest
  return {k: leaf for k, leaf in nest.items() if k != specs.LEGAL_ACTIONS}


def run(
  settings: settings_lib.SearchConfig,
  key: types.Key,
  root: Evaluation,
  state: Any,
  explores: jax.Array | np.ndarray,
  step: Step,
) -> Found:
  """Returns the outcome of a search of a model; consumes `key`.

  Args:
    settings: of the search.
    key: consumed.
    root: evaluation of the roots.
    state: [B, ...] of the roots.
    explores: [B] bool, rows whose root gets noise.
    step: steps the model.
  """
  noise_key, key = jax.random.split(key)
  root, gumbel = _with_noise(settings, noise_key, root, explores)
  tree = _search(settings, key, root, state, gumbel, step, jax.lax.fori_loop)
  return finish(settings, tree)


def begin(
  settings: settings_lib.SearchConfig,
  noise_key: types.Key,
  key: types.Key,
  root: Evaluation,
  explores: jax.Array | np.ndarray,
) -> tuple[Tree, core.Leaf]:
  """Returns a tree that has only roots, and its first leaf.

  Args:
    settings: of the search.
    noise_key: consumed.
    key: consumed with the next call.
    root: evaluation of the roots.
    explores: [B] bool, rows whose root gets noise.
  """

  def never(_: Any, __: Any, body: Any, given: Any) -> Any:
    del body
    return given

  root, gumbel = _with_noise(settings, noise_key, root, explores)
  number = jnp.zeros_like(root.value, jnp.int32)
  tree = _search(settings, key, root, number, gumbel, _no_step, never)
  return tree, _leaf(settings, key, tree, 0)


def advance(
  settings: settings_lib.SearchConfig,
  key: types.Key,
  next_key: types.Key,
  tree: Tree,
  number: jax.Array,
  step: ModelOutput,
) -> tuple[Tree, core.Leaf]:
  """Adds the step from the last leaf; returns the tree and its next leaf.

  Args:
    settings: of the search.
    key: with which the last leaf was found.
    next_key: consumed with the next call.
    tree: of `begin` or `advance`.
    number: [] int32 of this simulation, from 0.
    step: from the last leaf; its `state` is of no use.
  """
  after = step._replace(state=jnp.full_like(tree.node_visits[:, 0], number + 1))
  tree = _turn(settings, key, tree, number, lambda *_: after)
  return tree, _leaf(settings, next_key, tree, number + 1)


def _leaf(
  settings: settings_lib.SearchConfig, key: types.Key, tree: Tree, number: Any
) -> core.Leaf:
  """Returns the leaf that simulation `number` of mctx would step."""
  leaves = []

  def see(_: types.Key, state: jax.Array, action: jax.Array) -> ModelOutput:
    leaves.append(core.Leaf(state, action))
    return _no_step(_, state, action, tree.num_actions)

  _turn(settings, key, tree, number, see)  # the compiler drops all but the leaf
  return leaves[0]


def _turn(
  settings: settings_lib.SearchConfig,
  key: types.Key,
  tree: Tree,
  number: Any,
  step: Step,
) -> Tree:
  """Returns `tree` after one simulation of mctx, the one of this number."""

  def once(_: Any, __: Any, body: Any, given: Any) -> Any:
    del given
    return body(number, (key, tree))

  root = Evaluation(tree.children_prior_logits[:, 0], tree.raw_values[:, 0])
  gumbel = tree.extra_data.root_gumbel
  state = tree.embeddings.state[:, 0]
  return _search(settings, key, root, state, gumbel, step, once)


def _no_step(
  _: types.Key, state: Any, action: jax.Array, num_actions: int = 1
) -> ModelOutput:
  """Returns an output of zeros, which nobody looks at."""
  zeros = jnp.zeros(action.shape, jnp.float32)
  logits = jnp.zeros((*action.shape, num_actions), jnp.float32)
  return ModelOutput(state, zeros, zeros, Evaluation(logits, zeros))


def _search(
  settings: settings_lib.SearchConfig,
  key: types.Key,
  root: Evaluation,
  state: Any,
  gumbel: jax.Array,
  step: Step,
  loop: Callable[..., Any],
) -> Tree:
  """Returns mctx's tree after the simulations that `loop` runs."""

  def step_node(
    _: Any, key: types.Key, action: jax.Array, node: _Node
  ) -> tuple[Any, _Node]:
    output = step(key, node.state, action)
    return mctx.RecurrentFnOutput(
      reward=output.reward,
      discount=settings.discount * output.discount,
      prior_logits=output.evaluation.logits,
      value=output.evaluation.value,
    ), _Node(output.state, node.depth + 1)

  at_root, within = _choices(settings)
  return mctx.search(
    (),
    key,
    root=mctx.RootFnOutput(
      prior_logits=root.logits,
      value=root.value,
      embedding=_Node(state, jnp.zeros_like(root.value, jnp.int32)),
    ),
    recurrent_fn=step_node,
    root_action_selection_fn=at_root,
    interior_action_selection_fn=within,
    num_simulations=settings.num_simulations,
    invalid_actions=_illegal(root.logits),
    extra_data=mctx.GumbelMuZeroExtraData(root_gumbel=gumbel),
    loop_fn=loop,
  )


def _choices(
  settings: settings_lib.SearchConfig,
) -> tuple[Callable[..., Any], ...]:
  """Returns the functions that choose actions at roots and below."""
  if settings.search == 'puct':
    puct = functools.partial(_puct, settings)
    return functools.partial(puct, depth=0), puct
  completed = functools.partial(_completed_values, settings)
  return (
    functools.partial(
      mctx.gumbel_muzero_root_action_selection,
      num_simulations=settings.num_simulations,
      max_num_considered_actions=settings.max_considered_actions,
      qtransform=completed,
    ),
    functools.partial(
      mctx.gumbel_muzero_interior_action_selection, qtransform=completed
    ),
  )


def _puct(
  settings: settings_lib.SearchConfig,
  key: types.Key,
  tree: Tree,
  node: jax.Array,
  depth: Any,
) -> jax.Array:
  """Returns the legal action with the largest upper bound (Silver et al. 2018).

  Q + c P sqrt(N) / (1 + n), with Q scaled to [0, 1]. mctx's own function knows illegal
  actions at the root only.
  """
  del depth
  logits = tree.children_prior_logits[node]
  visits = tree.children_visits[node]
  bound = _scaled_values(settings, tree, node) + (
    settings.exploration
    * jax.nn.softmax(logits)
    * jnp.sqrt(tree.node_visits[node])
    / (1 + visits)
  )
  tie_break = 1e-7 * jax.random.uniform(key, bound.shape)
  legal = ~_illegal(logits)
  return (
    jnp.where(legal, bound + tie_break, -jnp.inf).argmax().astype(jnp.int32)
  )


def _scaled_values(
  settings: settings_lib.SearchConfig, tree: Tree, node: jax.Array
) -> jax.Array:
  """Returns Q [num_actions] scaled to [0, 1].

  Without a bound, 0 and 1 are the least and the largest value of the node and its
  children, and what is unvisited is 0 (Schrittwieser et al. 2020, eq. 5, has those of
  the tree). With a bound, what is unvisited has the node's own value.
  """
  bound = settings.max_abs_value
  if bound is None:
    scaled: jax.Array = mctx.qtransform_by_parent_and_siblings(tree, node)
    return scaled
  visited = tree.children_visits[node] > 0
  value = jnp.where(visited, tree.qvalues(node), tree.node_values[node])
  return (value / bound).clip(-1.0, 1.0) / 2 + 0.5


def _completed_values(
  settings: settings_lib.SearchConfig, tree: Tree, node: jax.Array | int
) -> jax.Array:
  """Returns Q [num_actions] in the scale of logits (Danihelka et al. 2022, eq. 8)."""
  bound = settings.max_abs_value
  if bound is None:
    values: jax.Array = mctx.qtransform_completed_by_mix_value(tree, node)
    return values
  # In a range of 1, as mctx's are without a bound.
  values = mctx.qtransform_completed_by_mix_value(
    tree, node, rescale_values=False
  )
  return values / (2 * bound)


def _illegal(logits: jax.Array) -> jax.Array:
  return logits <= _ILLEGAL / 2


def _with_noise(
  settings: settings_lib.SearchConfig,
  key: types.Key,
  root: Evaluation,
  explores: jax.Array | np.ndarray,
) -> tuple[Evaluation, jax.Array]:
  """Returns the roots with Dirichlet noise, and Gumbel MuZero's noise [B, A]."""
  shape = root.logits.shape
  if settings.search == 'gumbel':
    return root, jax.random.gumbel(key, shape) * explores[:, None]
  illegal = _illegal(root.logits)
  noise = jax.random.gamma(key, settings.dirichlet_alpha, shape)
  noise = jnp.where(illegal, 0.0, noise + 1e-20)
  noise /= noise.sum(axis=-1, keepdims=True)
  share = settings.dirichlet_fraction * explores[:, None]
  prior = (1 - share) * jax.nn.softmax(root.logits) + share * noise
  logits = jnp.where(illegal, _ILLEGAL, jnp.log(prior.clip(1e-30)))
  return root._replace(logits=logits), jnp.zeros(shape)


def finish(settings: settings_lib.SearchConfig, tree: Tree) -> Found:
  """Returns the outcome at the roots of a tree of `num_simulations` steps."""
  summary = tree.summary()
  visits = summary.visit_counts
  logits = tree.children_prior_logits[:, 0]
  if settings.search == 'puct':
    policy, score = summary.visit_probs, visits + jax.nn.softmax(logits)
  else:
    # Eq. 11 of Danihelka et al. 2022; of the actions that are left, the best.
    completed = functools.partial(_completed_values, settings)
    q = jax.vmap(completed, (0, None))(tree, 0)
    policy = jax.nn.softmax(logits + q)
    score = jnp.where(
      visits == visits.max(axis=-1, keepdims=True),
      tree.extra_data.root_gumbel + logits + q,
      -jnp.inf,
    )
  best = jnp.where(_illegal(logits), -jnp.inf, score).argmax(axis=-1)
  return Found(
    visits,
    policy,
    best.astype(jnp.int32),
    summary.value,
    tree.embeddings.depth.max(axis=-1),
  )

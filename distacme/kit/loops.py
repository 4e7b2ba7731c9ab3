"""Loops of compiled steps, which hold convolutions as well.

XLA's CPU compiler brings convolutions into the form that its fast kernels take, but
not those inside of loops, which are up to 36 times slower. The convolutions of a
gradient are never in that form by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from jax.extend import core as jax_core

C = TypeVar('C')
X = TypeVar('X')
Y = TypeVar('Y')

_CHANNELS_LAST = ('NHWC', 'HWIO', 'NHWC')


def scan(
  step: Callable[[C, X], tuple[C, Y]], carry: C, inputs: X
) -> tuple[C, Y]:
  """Returns `jax.lax.scan` of a step, whose convolutions are as fast as outside.

  Convolutions within loops or branches of the step itself stay as they are.

  Args:
    step: (carry, input) to carry and output; may compute gradients.
    carry: to start from.
    inputs: leaves [N, ...], for N steps.
  """
  # Without jit, steps see numbers, which a trace would hide.
  if not jax.config.jax_disable_jit:  # type: ignore[attr-defined]
    step = _with_convolutions_in_form(step)
  return jax.lax.scan(step, carry, inputs)


def _with_convolutions_in_form(step: Callable[..., Any]) -> Callable[..., Any]:
  def same_step(*arguments: Any) -> Any:
    closed, output = jax.make_jaxpr(step, return_shape=True)(*arguments)
    leaves = _evaluated(closed, jax.tree.leaves(arguments))
    return jax.tree.unflatten(jax.tree.structure(output), leaves)

  return same_step


def _evaluated(
  closed: jax_core.ClosedJaxpr, inputs: Sequence[Any]
) -> list[Any]:
  """Evaluates traced operations one by one, convolutions in form."""
  jaxpr = closed.jaxpr
  values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
  values |= dict(zip(jaxpr.invars, inputs, strict=True))

  def value(variable: Any) -> Any:
    if isinstance(variable, jax_core.Literal):
      return variable.val
    return values[variable]

  for equation in jaxpr.eqns:
    operation, given = equation.primitive, map(value, equation.invars)
    inner = equation.params.get('jaxpr')
    if operation.name in ('pjit', 'jit'):
      outputs = _evaluated(inner, list(given))
    elif operation is jax.lax.conv_general_dilated_p:
      outputs = [_convolution(*given, **equation.params)]
    else:
      bound = operation.get_bind_params(equation.params)
      # Older JAX gives inner functions by themselves.
      functions, params = bound if isinstance(bound, tuple) else ((), bound)
      outputs = operation.bind(*functions, *given, **params)
      if not operation.multiple_results:
        outputs = [outputs]
    values |= dict(zip(equation.outvars, outputs, strict=True))
  return [value(variable) for variable in jaxpr.outvars]


def _convolution(image: jax.Array, w: jax.Array, **params: Any) -> jax.Array:
  """Returns a convolution; on the CPU by way of one with channels last."""

  def as_it_is(image: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated_p.bind(image, w, **params)

  groups = (params['feature_group_count'], params['batch_group_count'])
  if groups != (1, 1) or image.ndim != 4:
    return as_it_is(image, w)

  def channels_last(image: jax.Array, w: jax.Array) -> jax.Array:
    axes = params['dimension_numbers']
    batch, channels, *sides = axes.lhs_spec
    image = image.transpose(batch, *sides, channels)
    outputs, inputs, *sides = axes.rhs_spec
    w = w.transpose(*sides, inputs, outputs)
    result = jax.lax.conv_general_dilated(
      image,
      w,
      params['window_strides'],
      params['padding'],
      params['lhs_dilation'],
      params['rhs_dilation'],
      _CHANNELS_LAST,
      precision=params['precision'],
      preferred_element_type=params['preferred_element_type'],
    )
    batch, channels, *sides = axes.out_spec
    return result.transpose(
      [(batch, *sides, channels).index(axis) for axis in range(4)]
    )

  return jax.lax.platform_dependent(
    image, w, cpu=channels_last, default=as_it_is
  )

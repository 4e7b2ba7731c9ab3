"""Initial weights of layers."""

from __future__ import annotations

from typing import Literal

import haiku as hk
import jax
import numpy as np

# The gain of weights before a rectifier or tanh.
HIDDEN = float(np.sqrt(2.0))

Initialization = Literal['orthogonal', 'lecun']


def weights(
  initialization: Initialization, gain: float
) -> hk.initializers.Initializer | None:
  """Returns the initialiser of a layer's weights; None is Haiku's own.

  Orthogonal weights of gain sqrt 2 keep the size of activations from layer to layer
  of rectifiers (Saxe et al. 2014, He et al. 2015); they are usual for actor-critics.
  Weights of variance 1 / inputs (LeCun et al. 1998) halve the square of activations
  in each layer; they are usual for action values.

  Args:
    initialization: the kind of weights.
    gain: of orthogonal weights.
  """
  if initialization == 'lecun':
    return None
  # Haiku's orthogonal initialiser relies on the promotion of ranks.
  orthogonal = jax.nn.initializers.orthogonal(gain)
  return lambda shape, dtype: orthogonal(hk.next_rng_key(), shape, dtype)

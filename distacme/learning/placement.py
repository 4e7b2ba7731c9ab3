"""Places a learner's state and batches on devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from distacme import types


def check_split(batch_size: int, num_devices: int) -> None:
  """Checks that a batch can be split evenly.

  Raises:
    ValueError: if some devices would get fewer elements than others.
  """
  if batch_size % num_devices:
    raise ValueError(
      f'batch_size={batch_size} is not divisible by the {num_devices} devices '
      f'of the learner; use a multiple of {num_devices}, or fewer devices, '
      "like '--learner-devices 0'."
    )


class Placement:
  """The devices of one learner: each holds the state and a share of each batch.

  The update is compiled for all devices together and sees the whole batch. So a
  mean, or a minimum, over the batch is the same as on one device.
  """

  def __init__(
    self,
    batch_size: int,
    count: int = 1,
    devices: Sequence[jax.Device] | None = None,
  ):
    """Takes the devices.

    Args:
      batch_size: of each batch.
      count: batches in one call, see `learning.batches.Batches`.
      devices: by default all that this process sees.

    Raises:
      ValueError: if a batch cannot be split evenly over the devices.
    """
    devices = jax.local_devices() if devices is None else list(devices)
    check_split(batch_size, len(devices))
    self.platform = devices[0].platform
    self.single = len(devices) == 1
    self._split: jax.sharding.Sharding
    self.replicated: jax.sharding.Sharding
    if self.single:
      only = jax.sharding.SingleDeviceSharding(devices[0])
      self._split = self.replicated = only
      return
    mesh = jax.sharding.Mesh(np.array(devices), ('batch',))
    axes = ('batch',) if count == 1 else (None, 'batch')
    self._split, self.replicated = (
      jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*names))
      for names in (axes, ())
    )

  def put_state(self, state: types.LearnerState) -> types.LearnerState:
    """Gives every device the whole state."""
    return jax.device_put(state, self.replicated)

  def put_batch(self, batch: types.Batch) -> types.Batch:
    """Gives every device its share of each leaf."""
    if self.single and self.platform == 'cpu':
      return batch  # A compiled function takes it faster from numpy's arrays.
    put: types.Batch = jax.device_put(batch, self._split)
    return put

  def on_one_device(self, nest: Any) -> Any:
    """Returns the first device's replica of a nest, without a copy."""
    if self.single:
      return nest
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), nest)

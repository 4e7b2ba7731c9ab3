"""Params that are handed over within a process."""

import numpy as np

from distacme.acting import params

NEST = {'layer': {'w': np.zeros(3, np.float32)}}


def test_local_params_are_handed_over_as_they_are():
  local = params.LocalParams()
  assert local.newest() is None
  local.publish(2, NEST)
  assert local.newest().version == 2
  assert local.newest().params is NEST

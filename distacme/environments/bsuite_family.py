"""Makes bsuite's experiments (https://github.com/google-deepmind/bsuite)."""

from __future__ import annotations

import inspect

import dm_env

from distacme import lazy_imports
from distacme.environments import hints


def make(bsuite_id: str, seed: int, render: bool = False) -> dm_env.Environment:
  """Returns the environment of a bsuite_id, for instance 'catch/0'.

  bsuite has no pictures; `rendering` draws its grids.

  Settings are those of bsuite's sweep, except the seed, since
  `bsuite.load_from_id` leaves most environments unseeded. The sweep's
  `mapping_seed` belongs to the task and stays.

  Raises:
    ValueError: if bsuite has no such id, is not installed, or misses data.
  """
  del render
  try:
    # pandas, which only bsuite's logs need, would take 0.2 s and 33 MB.
    with lazy_imports.stand_in('pandas'):
      from bsuite import bsuite
      from bsuite import sweep
  except ImportError as error:
    raise ValueError(
      f"Environment 'bsuite:{bsuite_id}' needs bsuite, which cannot be "
      f"imported ({error}). Run: pip install 'distacme[envs]'"
    ) from error
  if bsuite_id not in sweep.SETTINGS:
    experiments = sorted(bsuite.EXPERIMENT_NAME_TO_ENVIRONMENT)
    raise ValueError(
      f"No environment is called 'bsuite:{bsuite_id}'. "
      f'{hints.did_you_mean(bsuite_id, sweep.SETTINGS)}'
      'A name is an experiment and the number of its settings, like '
      f"'bsuite:catch/0'; bsuite's experiments: {', '.join(experiments)}."
    )
  experiment, _ = bsuite.unpack_bsuite_id(bsuite_id)
  load = bsuite.EXPERIMENT_NAME_TO_ENVIRONMENT[experiment]
  settings = dict(sweep.SETTINGS[bsuite_id])
  if 'seed' in inspect.signature(load).parameters:
    settings['seed'] = seed
  try:
    environment = load(**settings)
  except OSError as error:
    raise ValueError(
      f"Environment 'bsuite:{bsuite_id}' cannot load its data ({error}). bsuite "
      "downloads MNIST's four files into /tmp/mnist, once: connect this machine "
      'to the internet, or put them there.'
    ) from error
  if experiment == 'deep_sea_stochastic':
    # Its `load` passes no seed on to the constructor.
    environment._rng.seed(seed)
  return environment

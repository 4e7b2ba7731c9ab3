"""Reads episodes from Minari's datasets on local disk.

A dataset may be from anywhere: its files are data, and nothing that they name is
imported, made or fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import functools
import json
import logging
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
import tree

from distacme import specs
from distacme import types
from distacme.demonstrations import episodes
from distacme.demonstrations import minari_library
from distacme.demonstrations import recorded
from distacme.demonstrations import stored_form
from distacme.environments import spaces

_AGAIN = 'Record or fetch the dataset again.'
# What lies in somebody's file may make Minari, HDF5 and numpy raise anything.
_UNREADABLE = Exception


def read(path_or_id: str | os.PathLike[str]) -> recorded.Demonstrations:
  """Returns the episodes of a dataset on this machine; nothing is downloaded.

  Episodes are read one at a time, whenever they are asked for.

  Args:
    path_or_id: folder of a dataset, or ID of one below Minari's root.

  Raises:
    ValueError: if there is no such dataset, or it cannot be read.
    ImportError: if Minari is not installed.
  """
  minari_library.check()
  folder = minari_library.find(path_or_id)
  source = str(folder)
  metadata = _read_metadata(folder)
  _check_metadata(metadata, source)
  dataset = _open(folder, metadata, source)
  _check_whole(dataset)
  return recorded.Demonstrations(
    source,
    functools.partial(read_episodes, dataset),
    dataset.observations.form.spec,
    dataset.actions.form.spec,
    _environment(metadata),
  )


def _environment(metadata: Mapping[str, Any]) -> str:
  """Returns the name of the environment that a dataset of ours was recorded in."""
  ours = metadata.get(minari_library.OURS)
  name = ours.get('environment') if isinstance(ours, dict) else ''
  return name if isinstance(name, str) else ''


class Field(NamedTuple):
  """The form and the space of a dataset's observations or actions."""

  name: str
  space: Any  # of gymnasium
  form: stored_form.Form


class Dataset(NamedTuple):
  """A dataset that is open for reading."""

  source: str
  storage: Any  # of Minari
  total: int  # episodes
  observations: Field
  actions: Field
  is_ours: bool


def _read_metadata(folder: pathlib.Path) -> dict[str, Any]:
  path = folder / minari_library.METADATA_FILE
  try:
    metadata = json.loads(path.read_text())
  except (OSError, ValueError, RecursionError) as error:
    raise ValueError(
      f'{path} cannot be read as JSON ({error!s:.200}). {_AGAIN}'
    ) from error
  if not isinstance(metadata, dict):
    raise ValueError(
      f'{path} holds {metadata!r:.100}, and a dataset has a mapping there. '
      f'{_AGAIN}'
    )
  return metadata


def _check_metadata(metadata: Mapping[str, Any], source: str) -> None:
  """Checks that Minari can read a dataset without asking an environment.

  Raises:
    ValueError: if it cannot.
  """
  import minari

  version = metadata.get('minari_version')
  supported = minari.supported_dataset_versions
  if not isinstance(version, str) or version not in supported:
    raise ValueError(
      f"{source} is of Minari's version {version!r}, which the installed Minari "
      f'{minari.__version__} does not read. Install a Minari that reads it, or '
      'fetch another version of the dataset.'
    )
  for field in ('observation_space', 'action_space'):
    # Minari would make the environment that the dataset names.
    if not isinstance(metadata.get(field), str):
      raise ValueError(
        f'{source} does not say its {field}, and no environment is made to ask '
        'for it. Fetch a newer version of the dataset, or record another.'
      )
  total = metadata.get('total_episodes')
  if type(total) is not int or total < 0:
    raise ValueError(
      f'{source} says that it has {total!r:.100} episodes. {_AGAIN}'
    )
  if not total:
    raise ValueError(f'{source} has no episodes. Record some.')


def _open(
  folder: pathlib.Path, metadata: Mapping[str, Any], source: str
) -> Dataset:
  """Returns a dataset whose metadata were checked.

  Raises:
    ValueError: if a space has no specs, a library is missing, or the metadata are
      damaged in another way.
  """
  from minari.dataset import minari_storage

  try:
    storage = minari_storage.MinariStorage.read(folder)
  except ImportError as error:
    raise ValueError(
      f'{source} has the format {metadata.get("data_format")!r}, and what reads '
      f"it cannot be imported ({error}). Run: pip install 'minari[arrow]'"
    ) from error
  except _UNREADABLE as error:
    raise ValueError(
      f'{source} cannot be opened: the format '
      f'{metadata.get("data_format")!r:.50}, the spaces '
      f'{metadata["observation_space"]:.100} and '
      f'{metadata["action_space"]:.100}, or the files are not as Minari makes '
      f'them ({_described(error)}). {_AGAIN}'
    ) from error
  ours = metadata.get(minari_library.OURS)
  try:
    observations = _field('observation', storage.observation_space, ours)
    actions = _field('action', storage.action_space, ours)
  except ValueError as error:
    raise ValueError(f'{source} cannot be used: {error}') from error
  total = metadata['total_episodes']
  return Dataset(
    source, storage, total, observations, actions, ours is not None
  )


def _field(name: str, space: Any, ours: Any) -> Field:
  """Returns a field of a dataset.

  Args:
    name: of the field.
    space: of the values as they are stored.
    ours: our own part of the metadata; None if the dataset is another's.
  """
  spec = spaces.spec(space, name, inwards=name == 'action')
  if ours is None:
    return Field(name, space, stored_form.Form.plain(name, spec))
  notes = ours.get(f'{name}_form') if isinstance(ours, dict) else ours
  try:
    form = stored_form.Form.from_notes(name, spec, notes)
  except ValueError as error:
    raise ValueError(
      f'{error}, which distacme never writes. {_AGAIN}'
    ) from error
  return Field(name, space, form)


def _check_whole(dataset: Dataset) -> None:
  """Checks that the first and the last episode are there."""
  ends = sorted({0, dataset.total - 1})
  try:
    list(dataset.storage.get_episode_metadata(ends))
  except _UNREADABLE as error:
    raise ValueError(
      f'{dataset.source} is said to have {dataset.total} episodes, and they '
      f'cannot be found ({_described(error)}). {_AGAIN}'
    ) from error


def read_episodes(dataset: Dataset) -> Iterator[episodes.Episode]:
  """Yields the episodes of a dataset, one after the other from disk.

  Raises:
    ValueError: if an episode cannot be read, or is no whole episode.
  """
  stored = iter(dataset.storage.get_episodes(range(dataset.total)))
  for number in range(dataset.total):
    name = f'episode {number} of {dataset.source}'
    try:
      values = next(stored)
    except _UNREADABLE as error:
      raise ValueError(
        f'{name} cannot be read ({_described(error)}). {_AGAIN}'
      ) from error
    yield episodes.Episode(
      _converted(dataset.observations, values['observations'], name),
      _converted(dataset.actions, values['actions'], name),
      _numbers('rewards', values, name),
      _discounts(dataset, values, name),
    )


def _converted(
  field: Field, values: types.NestedArray, name: str
) -> types.NestedArray:
  """Returns a field's values [N, ...] as agents see them."""
  stored = spaces.spec(field.space, field.name, inwards=field.name == 'action')
  try:
    tree.assert_same_structure(stored, values, check_types=False)
    tree.flatten_up_to(stored, values, check_types=False)  # compares keys
  except (TypeError, ValueError) as error:
    found = [leaf for leaf, _ in specs.named_leaves(field.name, values)]
    wanted = [leaf for leaf, _ in specs.named_leaves(field.name, stored)]
    raise ValueError(
      f'{name} has {", ".join(found)}, and its space says '
      f'{", ".join(wanted)}. {_AGAIN}'
    ) from error
  read = spaces.conversion(spaces.reader, field.space, field.name)
  try:
    _check_shapes(field.name, values, stored)
    with np.errstate(over='ignore'):  # `read` refuses infinities
      return field.form.restore(read(values))
  except ValueError as error:
    raise ValueError(f'in {name} {error}') from error


def _check_shapes(
  field: str, values: types.NestedArray, stored: types.NestedSpec
) -> None:
  """Checks that values are arrays [N, ...] of their space."""
  for (name, leaf), spec in zip(
    specs.named_leaves(field, values), tree.flatten(stored), strict=True
  ):
    array = np.asarray(leaf)
    if array.dtype.kind not in 'biuf' or array.shape[1:] != spec.shape:
      raise ValueError(
        f'{name} is {array.dtype}{list(array.shape)}, and its space says '
        f'{spec.dtype}{list(spec.shape)} for each step. {_AGAIN}'
      )


def _numbers(key: str, values: Mapping[str, Any], name: str) -> np.ndarray:
  """Returns one number for each step, as float32."""
  array = np.asarray(values[key])
  if array.dtype.kind not in 'biuf' or array.ndim != 1:
    raise ValueError(
      f'{key} of {name} are {array.dtype}{list(array.shape)}, and must be one '
      f'number for each step. {_AGAIN}'
    )
  with np.errstate(over='ignore'):  # infinity is refused later, in a sentence
    return array.astype(np.float32)


def _discounts(
  dataset: Dataset, values: Mapping[str, Any], name: str
) -> np.ndarray:
  """Returns the discounts that an episode's flags tell of, or that it keeps.

  An episode that neither terminated nor was truncated counts as truncated.
  """
  flags = {
    key: _numbers(key, values, name) for key in ('terminations', 'truncations')
  }
  for key, array in flags.items():
    early = np.flatnonzero(array[:-1])
    if len(early):
      raise ValueError(
        f'{key} of {name} end the episode at step {early[0] + 1} of '
        f'{len(array)}, and an episode ends with its last step. Split it there.'
      )
  if not any(array[-1:].any() for array in flags.values()):
    logging.getLogger(__name__).warning(
      '%s has neither a termination nor a truncation at its end, and counts as '
      'cut off.',
      name,
    )
  infos = values.get('infos') or {}
  if dataset.is_ours and DISCOUNTS in infos:
    return _numbers(DISCOUNTS, infos, name)
  return np.float32(1.0) - np.minimum(flags['terminations'], np.float32(1.0))


# Key among an episode's `infos`, in datasets of ours: the discounts, if they are
# not what the flags say.
DISCOUNTS = 'discounts'


def _described(error: BaseException) -> str:
  """Returns the kind and the first words of a library's error."""
  return f'{type(error).__name__}: {error!s:.200}'.rstrip(': ')

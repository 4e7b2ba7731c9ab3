"""Writes episodes as a dataset that Minari reads.

Files are written by h5py: Minari's own writer makes pictures of some arrays that its
reader does not take for pictures, and compresses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import json
import os
import pathlib
import re
import shutil
from typing import Any

import numpy as np

from distacme import specs
from distacme.demonstrations import checks
from distacme.demonstrations import datasets
from distacme.demonstrations import episodes
from distacme.demonstrations import hdf5_files
from distacme.demonstrations import minari_library
from distacme.demonstrations import stored_form
from distacme.environments import spaces


def check(path: pathlib.Path) -> None:
  """Refuses a path at which no dataset can be made.

  Raises:
    ValueError: if something is there already.
    ImportError: if Minari is not installed.
  """
  minari_library.check()
  if os.path.lexists(path):
    raise ValueError(
      f'{path} exists already. Choose another path for the dataset, or delete it.'
    )


class Writer:
  """Makes a dataset of episodes; a context manager, for one thread.

  The dataset appears at its path when the context ends without an error, and is
  whole then. Until then it is written in a hidden folder beside the path, which an
  error removes.
  """

  def __init__(
    self,
    path: str | os.PathLike[str],
    spec: specs.EnvironmentSpec,
    metadata: Mapping[str, Any],
    algorithm_name: str = '',
  ):
    """Prepares to write.

    Args:
      path: of the dataset's folder, which must not exist.
      spec: of the environment that the episodes are from.
      metadata: for JSON, kept under the key 'distacme'.
      algorithm_name: of the policy, for Minari.

    Raises:
      ValueError: as `check`.
      ImportError: as `check`.
    """
    self._path = pathlib.Path(os.path.abspath(path))
    check(self._path)
    self._unfinished = self._path.with_name(
      f'.{self._path.name}.unfinished-{os.getpid()}'
    )
    self._spec = spec
    self._metadata = dict(metadata)
    self._algorithm_name = algorithm_name
    self._use_form(stacks_once=True)
    self._sink: hdf5_files.Sink | None = None
    self._file: Any = None  # of HDF5, in the sink
    self._seeds: list[int | None] = []
    self.returns: list[float] = []  # of the episodes so far
    self.num_steps = 0  # of the episodes so far

  @property
  def num_episodes(self) -> int:
    """Episodes so far."""
    return len(self.returns)

  def __enter__(self) -> Writer:
    """Makes the folder in which it writes."""
    with self._writing():
      shutil.rmtree(self._unfinished, ignore_errors=True)  # of a killed process
      self._data.mkdir(parents=True)
      self._open()
    return self

  def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
    """Puts the dataset at its path, or removes what was written."""
    try:
      if kind is None:
        self._finish()
    finally:
      self._close()
      shutil.rmtree(self._unfinished, ignore_errors=True)

  def add(self, episode: episodes.Episode, seed: int | None = None) -> None:
    """Writes an episode.

    Args:
      episode: whole, from its first observation on.
      seed: of the reset that began the episode, if it is known.

    Raises:
      ValueError: if the episode does not fit the specs, or cannot be written.
    """
    number = self.num_episodes
    episode = checks.checked(
      episode, self._spec, f'episode {number} of {self._path}'
    )
    if not self._observations.keeps(episode.observations):
      self._keep_whole_stacks()
    with self._writing():
      self._write_episode(number, episode, seed)
    self._seeds.append(seed)
    self.returns.append(float(np.sum(episode.rewards, dtype=np.float64)))
    self.num_steps += episode.num_steps

  @property
  def _data(self) -> pathlib.Path:
    return self._unfinished / minari_library.DATA_FOLDER

  def _use_form(self, stacks_once: bool) -> None:
    make = stored_form.Form.for_writing
    self._observations = make(
      'observation', self._spec.observations, stacks_once
    )
    # An action is no observation of the last frames, whatever its spec.
    self._actions = make('action', self._spec.actions, stacks_once=False)
    self._observation_space = spaces.space(self._observations.stored_spec())
    self._action_space = spaces.space(self._actions.stored_spec())

  def _open(self) -> None:
    import h5py

    self._sink = hdf5_files.Sink(self._data / minari_library.MAIN_FILE)
    self._file = h5py.File(self._sink, 'w')

  def _close(self) -> None:
    if self._file is not None:
      self._file.close()
      self._file = None
    if self._sink is not None:
      self._sink.close()

  def _write_episode(
    self, number: int, episode: episodes.Episode, seed: int | None
  ) -> None:
    name = f'episode_{number}'
    terminated = episode.discounts[-1] == 0.0
    ends = np.zeros((2, episode.num_steps), np.bool_)
    ends[:, -1] = terminated, not terminated
    values: dict[str, Any] = {
      'observations': self._observations.store(episode.observations),
      'actions': self._actions.store(episode.actions),
      'rewards': episode.rewards,
      'terminations': ends[0],
      'truncations': ends[1],
    }
    if not np.array_equal(episode.discounts, np.float32(1.0) - ends[0]):
      values['infos'] = {datasets.DISCOUNTS: episode.discounts}
    try:
      hdf5_files.write(self._file, name, values)
      attributes = self._file[name].attrs
      attributes['id'] = number
      attributes['total_steps'] = episode.num_steps
      if seed is not None:
        attributes['seed'] = seed
    except BaseException:  # Ctrl-C, too: no half of an episode stays
      with contextlib.suppress(KeyError):
        del self._file[name]
      raise

  def _keep_whole_stacks(self) -> None:
    """Writes the episodes so far anew, with whole stacks.

    An observation was no stack of the episode's last frames, whatever its spec
    says. The space of observations is one for all episodes.
    """
    with self._writing():
      self._close()
      self._write_metadata()
      before = self._data.with_name('before')
      self._data.rename(before)
      self._use_form(stacks_once=False)
      self._data.mkdir()
      self._open()
    if self._seeds:
      read = datasets.read(before).read()
      for number, (episode, seed) in enumerate(
        zip(read, self._seeds, strict=True)
      ):
        with self._writing():
          self._write_episode(number, episode, seed)
    shutil.rmtree(before)

  def _finish(self) -> None:
    if not self.returns:
      raise ValueError(
        f'{self._path} would have no episodes. Add one at least.'
      )
    with self._writing():
      self._close()
    with self._writing():
      self._write_metadata()
      for path in self._data.iterdir():
        _to_disk(path)
      check(self._path)  # it may have appeared meanwhile
      self._unfinished.rename(self._path)

  def _write_metadata(self) -> None:
    from minari import serialization

    main = self._data / minari_library.MAIN_FILE
    metadata = {
      'dataset_id': dataset_id(self._path),
      'minari_version': minari_library.FORMAT_VERSION,
      'data_format': 'hdf5',
      'total_episodes': self.num_episodes,
      'total_steps': self.num_steps,
      'dataset_size': round(main.stat().st_size / 1e6, 1),  # megabytes
      'algorithm_name': self._algorithm_name,
      'observation_space': serialization.serialize_space(
        self._observation_space
      ),
      'action_space': serialization.serialize_space(self._action_space),
      minari_library.OURS: {
        **self._metadata,
        'mean_return': sum(self.returns) / max(1, self.num_episodes),
        'observation_form': self._observations.notes(),
        'action_form': self._actions.notes(),
      },
    }
    path = self._data / minari_library.METADATA_FILE
    path.write_text(json.dumps(metadata, indent=2))

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Turns an error of the disk into a sentence."""
    try:
      yield
      if self._sink is not None and self._sink.error is not None:
        raise self._sink.error
    except OSError as error:
      raise ValueError(
        f'{self._path} cannot be written ({error.strerror or error}). Make room '
        'there, or choose another path for the dataset.'
      ) from error


def dataset_id(path: pathlib.Path) -> str:
  """Returns Minari's ID of a dataset from its folder: 'expert' is expert-v0.

  Below Minari's root the folders in between belong to the ID.
  """
  name = re.sub(r'[^-\w]+', '-', path.name).strip('-') or 'dataset'
  if not re.fullmatch(r'.+-v\d+', name):
    name = f'{name}-v0'
  try:
    namespace = path.parent.relative_to(minari_library.root()).as_posix()
  except ValueError:  # it is elsewhere
    return name
  return f'{namespace}/{name}' if namespace != '.' else name


def _to_disk(path: pathlib.Path) -> None:
  with open(path, 'rb') as file:
    os.fsync(file.fileno())

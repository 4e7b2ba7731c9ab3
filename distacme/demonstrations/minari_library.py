"""Minari, imported when it is first needed, and the places of its datasets."""

from __future__ import annotations

import difflib
import os
import pathlib

# The version of Minari's format in which we write: every 0.5 reads it.
FORMAT_VERSION = '0.5.0'
MAIN_FILE = 'main_data.hdf5'
METADATA_FILE = 'metadata.json'
DATA_FOLDER = 'data'  # below a dataset's folder
OURS = 'distacme'  # key of our own part of the metadata

_RECORD = "record one with 'distacme record RUN_DIR --output DATASET'"


def check() -> None:
  """Checks that the libraries of recorded episodes are there.

  Raises:
    ImportError: if one is missing; the message names the extra.
  """
  try:
    import h5py  # noqa: F401
    import minari  # noqa: F401
    from PIL import Image  # noqa: F401  # Minari does not ask for it
  except ImportError as error:
    raise ImportError(
      f'recorded episodes need minari, which cannot be imported ({error}). Run: '
      "pip install 'distacme[demonstrations]'"
    ) from error


def root() -> pathlib.Path:
  """Returns the folder below which Minari finds datasets by ID; makes nothing."""
  given = os.environ.get('MINARI_DATASETS_PATH')
  if given is not None:
    return pathlib.Path(given)
  return pathlib.Path.home() / '.minari' / 'datasets'


def find(path_or_id: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the folder of a dataset, in which its metadata lies.

  Raises:
    ValueError: if there is none; names IDs that are close.
  """
  given = pathlib.Path(os.path.expanduser(path_or_id))
  below = root() / path_or_id
  for folder in (given, below):
    for data in (folder / DATA_FOLDER, folder):
      if os.path.isfile(data / METADATA_FILE):
        return data
  if os.path.exists(given):
    found = (
      'a folder without'
      if os.path.isdir(given)
      else 'a file, and no folder with'
    )
    raise ValueError(
      f'{given} is no Minari dataset: it is {found} '
      f'{DATA_FOLDER}/{METADATA_FILE}. Give the '
      f'folder of a dataset, or {_RECORD}.'
    )
  known = _local_ids()
  close = difflib.get_close_matches(str(path_or_id), known, n=3, cutoff=0.5)
  hint = f' Did you mean {" or ".join(map(repr, close))}?' if close else ''
  raise ValueError(
    f'{str(path_or_id)!r} is neither a folder nor the ID of a dataset in '
    f'{root()}.{hint} Check the spelling, {_RECORD}, or fetch one '
    "that others have recorded with 'minari download ID'."
  )


def _local_ids() -> list[str]:
  top = root()
  pattern = f'**/{DATA_FOLDER}/{METADATA_FILE}'
  return sorted(
    path.parent.parent.relative_to(top).as_posix() for path in top.glob(pattern)
  )

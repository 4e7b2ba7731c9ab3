"""Minari, imported when it is first needed, and the places of its datasets."""

from __future__ import annotations

import os
import pathlib

# The version of Minari's format in which we write: every 0.5 reads it.
FORMAT_VERSION = '0.5.0'
MAIN_FILE = 'main_data.hdf5'
METADATA_FILE = 'metadata.json'
DATA_FOLDER = 'data'  # below a dataset's folder
OURS = 'distacme'  # key of our own part of the metadata


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

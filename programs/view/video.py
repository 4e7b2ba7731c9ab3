"""Films an episode: an MP4 or GIF of an environment's pictures."""

from __future__ import annotations

import pathlib
import subprocess
import tempfile
from typing import IO, Any

import dm_env
import numpy as np

from distacme import core
from distacme import types
from distacme.environments import vector

# The arguments of ffmpeg for each kind of file.
_FILES = {
  # Players want half as many colours as pixels, and thus even sides.
  '.mp4': ['-vf', 'pad=ceil(iw/2)*2:ceil(ih/2)*2', '-pix_fmt', 'yuv420p'],
  # A palette of the episode's own colours.
  '.gif': ['-vf', 'split[a][b];[a]palettegen[p];[b][p]paletteuse'],
}
_FRAMES_PER_SECOND = 30.0  # for an environment that names no rate


def check(path: pathlib.Path) -> None:
  """Refuses a file that could not be written.

  Raises:
    ValueError: if the file's suffix is no video's, or the file's directory does
      not exist.
    ImportError: if the library that writes videos is not installed.
  """
  if path.suffix not in _FILES:
    raise ValueError(
      f'video must be a {" or ".join(_FILES)} file, got {str(path)!r}. Write '
      f'for instance {str(path.with_suffix(".mp4"))!r}.'
    )
  if not path.parent.is_dir():
    raise ValueError(
      f'{path.parent} is no directory. Make it, or choose another --video.'
    )
  try:
    import imageio_ffmpeg  # noqa: F401
  except ImportError as error:
    raise ImportError(
      f'videos need imageio-ffmpeg, which cannot be imported ({error}). Run: '
      "pip install 'distacme[video]'"
    ) from error


class Filmed(vector.VectorWrapper):
  """Writes a video of the first episode of a vector's first row."""

  def __init__(
    self,
    environment: core.VectorEnvironment,
    path: pathlib.Path,
    max_steps: int,
  ):
    """Takes a vector with a method `render() -> uint8 [H, W, 3]`.

    Args:
      environment: to film; `render` draws its first row.
      path: of the video.
      max_steps: after which the video ends, even if the episode goes on.
    """
    super().__init__(environment)
    self._path = path
    self._steps_left = max_steps + 1  # one more for the picture at the start
    self._writer: Writer | None = None  # None after the first episode
    self._done = False

  def close(self) -> None:
    """Ends the video, even if the episode was cut short."""
    self._end()
    super().close()

  def _timestep(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    if self._done:
      return timestep
    kind = timestep.step_type[0]
    if self._writer is None:
      fps = frames_per_second(self._environment)
      self._writer = Writer(self._path, fps)
    elif kind == types.FIRST:  # the episode was reset before its end
      self._end()
      return timestep
    self._writer.add(self._environment.render())
    self._steps_left -= 1
    if kind == types.LAST or not self._steps_left:
      self._end()
    return timestep

  def _end(self) -> None:
    self._done = True
    if self._writer is not None:
      self._writer.close()
      self._writer = None


def frames_per_second(environment: Any) -> float:
  """Returns the speed at which an environment's steps look natural.

  Args:
    environment: has the speed like Gymnasium, metadata['render_fps'], or like
      dm_control, control_timestep() in seconds; or has none.
  """
  metadata = getattr(environment, 'metadata', None) or {}
  if metadata.get('render_fps'):
    return float(metadata['render_fps'])
  control_timestep = getattr(environment, 'control_timestep', None)
  if callable(control_timestep):
    return 1.0 / float(control_timestep())
  return _FRAMES_PER_SECOND


class Writer:
  """Feeds pictures to ffmpeg.

  The writer avoids imageio: imageio would fork this process (a `preexec_fn`)
  and risk that a lock of one of JAX's threads is never released in the fork.
  """

  def __init__(self, path: pathlib.Path, frames_per_second: float):
    """Prepares to write; ffmpeg starts with the first picture."""
    self._path = path
    self._frames_per_second = frames_per_second
    self._shape: tuple[int, ...] = ()
    self._ffmpeg: subprocess.Popen[bytes] | None = None
    self._errors: IO[bytes] | None = None  # ffmpeg's complaints

  def add(self, picture: np.ndarray) -> None:
    """Adds a picture, uint8 [H, W, 3].

    Raises:
      ValueError: if the array is no picture, or differs in size from the first.
    """
    if getattr(picture, 'dtype', None) != np.uint8 or (
      picture.ndim != 3 or picture.shape[2] != 3
    ):
      what = (
        f'{picture.dtype} of shape {picture.shape}'
        if isinstance(picture, np.ndarray)
        else repr(picture)
      )
      raise ValueError(
        f'render() must return a picture, uint8 [H, W, 3], got {what}.'
      )
    if self._ffmpeg is None:
      self._shape = picture.shape
      self._ffmpeg = self._start()
    if picture.shape != self._shape:
      raise ValueError(
        f'the pictures of an episode must be of one size, but {self._shape} is '
        f'followed by {picture.shape}. Let render() keep to one.'
      )
    assert self._ffmpeg.stdin is not None
    try:
      self._ffmpeg.stdin.write(picture.tobytes())
    except BrokenPipeError:
      self.close()  # raises with ffmpeg's reason

  def close(self) -> None:
    """Completes the file.

    Raises:
      ValueError: if the file could not be written.
    """
    if self._ffmpeg is None or self._errors is None:
      return
    self._ffmpeg.communicate()
    with self._errors as errors:
      errors.seek(0)
      why = errors.read().decode(errors='replace').strip()
    self._errors = None
    if self._ffmpeg.returncode:
      raise ValueError(f'{self._path} could not be written. ffmpeg says: {why}')

  def _start(self) -> subprocess.Popen[bytes]:
    import imageio_ffmpeg

    height, width, _ = self._shape
    command = [imageio_ffmpeg.get_ffmpeg_exe(), '-y', '-loglevel', 'error']
    command += [
      '-f',
      'rawvideo',
      '-pix_fmt',
      'rgb24',
      '-s',
      f'{width}x{height}',
    ]
    command += ['-r', f'{self._frames_per_second:.6g}', '-i', '-']
    command += [*_FILES[self._path.suffix], str(self._path.resolve())]
    self._errors = tempfile.TemporaryFile()
    return subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stderr=self._errors,
      start_new_session=True,  # at Ctrl-C it completes the file
    )

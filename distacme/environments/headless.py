"""Chooses the library that draws MuJoCo's pictures without a display.

MuJoCo and dm_control read the environment variable MUJOCO_GL when they are
imported. A value set by the user stands.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import ctypes.util
import importlib
import os
import sys
import threading

_VARIABLE = 'MUJOCO_GL'
_LOCK = threading.RLock()  # guards the variable: actors may be threads
_INSTALL = (
  'Install EGL or OSMesa, on Debian or Ubuntu: apt-get install libegl1 '
  'libgl1, or: apt-get install libosmesa6; which of them draws can be chosen '
  f'by {_VARIABLE}=egl or {_VARIABLE}=osmesa.'
)


@contextlib.contextmanager
def without_pictures() -> Iterator[None]:
  """Keeps imports inside from loading OpenGL, which takes 60 MB and 1 s."""
  with _LOCK:
    if _VARIABLE in os.environ:
      yield
      return
    os.environ[_VARIABLE] = 'disable'
    try:
      yield
    finally:
      del os.environ[_VARIABLE]


def choose_renderer(name: str) -> None:
  """Sets MUJOCO_GL to a library that can draw here, unless the user has.

  Args:
    name: of the environment, for messages.

  Raises:
    ValueError: if there is no such library.
  """
  if _VARIABLE not in os.environ:
    found = 'DISPLAY' in os.environ and 'glfw'
    for library, renderer in (('EGL', 'egl'), ('OSMesa', 'osmesa')):
      if not found and ctypes.util.find_library(library):
        found = renderer
    if not found:
      raise ValueError(
        f'Environment {name!r} cannot be rendered: there is no display, and '
        f'neither EGL nor OSMesa is installed. {_INSTALL}'
      )
    os.environ[_VARIABLE] = found
  render = sys.modules.get('dm_control._render')
  if render is not None and render.BACKEND != os.environ[_VARIABLE]:
    # It was imported `without_pictures`; a reload reads the variable again.
    importlib.reload(render)


@contextlib.contextmanager
def failures_explained(name: str) -> Iterator[None]:
  """Turns errors of an OpenGL that does not work into a ValueError."""
  try:
    yield
  # PyOpenGL raises anything, from ImportError to AttributeError of None.
  except Exception as error:
    raise ValueError(
      f'Environment {name!r} cannot be rendered: '
      f'{_VARIABLE}={os.environ.get(_VARIABLE, "")} does not work here '
      f'({type(error).__name__}: {error}). {_INSTALL}'
    ) from error

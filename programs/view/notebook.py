"""Shows progress in the output of a notebook's cell."""

from __future__ import annotations

import html
import io
import sys
from typing import Any

from rich import console as rich_console

_WIDTH = 120  # characters; a cell scrolls wider lines


def is_here() -> bool:
  """Returns whether this process is the kernel of a notebook."""
  # A kernel has imported IPython; other processes need not import IPython.
  ipython = sys.modules.get('IPython')
  shell = ipython.get_ipython() if ipython else None
  return hasattr(shell, 'kernel')


class Picture:
  """An output of the running cell, replaced in place; for one thread."""

  def __init__(self) -> None:
    """Shows nothing yet."""
    from IPython import display

    self._display = display
    self._handle: Any = display.display(display.HTML(''), display_id=True)

  def update(self, renderable: rich_console.RenderableType) -> None:
    """Shows a renderable as rich prints it."""
    text = io.StringIO()
    # Or rich would put the table into the cell by itself, below the last.
    console = rich_console.Console(
      file=text, width=_WIDTH, color_system=None, force_jupyter=False
    )
    console.print(renderable)
    picture = f'<pre>{html.escape(text.getvalue())}</pre>'
    self._handle.update(self._display.HTML(picture))

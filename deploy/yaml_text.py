"""Writes plain data as YAML for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
  """Writes texts of several lines as blocks, and no aliases."""

  def ignore_aliases(self, data: Any) -> bool:
    """Returns True: what stands in two places is written twice."""
    return True

  def increase_indent(
    self, flow: bool = False, indentless: bool = False
  ) -> None:
    """Indents lists, too."""
    super().increase_indent(flow, False)


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
  style = '|' if '\n' in text else None
  try:
    float(text)
    style = "'"  # 1e5 is a text for this library, and a number for others
  except ValueError:
    pass
  return dumper.represent_scalar('tag:yaml.org,2002:str', text, style=style)


_Dumper.add_representer(str, _text)


def dump(head: str, documents: Iterable[Mapping[str, Any]]) -> str:
  """Returns documents as one text.

  Args:
    head: a comment for its beginning, lines of text.
    documents: of plain data; keys stay in their order.
  """
  comment = ''.join(f'# {line}'.rstrip() + '\n' for line in head.splitlines())
  return comment + ''.join(
    '---\n' + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=100)
    for document in documents
  )

"""Every setting is frozen, and read by something: a flag that does nothing lies."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = [
  path
  for folder in ('distacme', 'agents', 'programs', 'deploy')
  for path in sorted((ROOT / folder).rglob('*.py'))
]
TREES = {path: ast.parse(path.read_text()) for path in FILES}


def configs() -> list[tuple[pathlib.Path, ast.ClassDef]]:
  """Returns the classes named Config or SomethingConfig."""
  return [
    (path, node)
    for path, module in TREES.items()
    for node in module.body
    if isinstance(node, ast.ClassDef) and node.name.endswith('Config')
  ]


CONFIGS = [
  pytest.param(path, node, id=f'{path.relative_to(ROOT)}:{node.name}')
  for path, node in configs()
]


def fields(config: ast.ClassDef) -> set[str]:
  """Returns the names that the class annotates."""
  return {
    node.target.id
    for node in config.body
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
  }


def names_read(tree: ast.AST) -> set[str]:
  """Returns every attribute that is read, but for checks at construction."""
  found: set[str] = set()
  for node in ast.iter_child_nodes(tree):
    if isinstance(node, ast.FunctionDef) and node.name == '__post_init__':
      continue
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
      found.add(node.attr)
    found |= names_read(node)
  return found


def readers(path: pathlib.Path) -> set[pathlib.Path]:
  """Returns the files that may read a setting of the Config in `path`.

  An agent reads its own settings, or one that it builds on does, or the settings
  of `distacme.kit` that it extends; those of a program may be read anywhere.
  """
  if path.parent.name != 'agents':
    return set(FILES)
  found = {path}
  if 'settings.UniformConfig' in path.read_text():
    found.add(ROOT / 'distacme/kit/settings.py')
  for node in ast.walk(TREES[path]):
    if isinstance(node, ast.ImportFrom) and node.module == 'distacme.agents':
      for alias in node.names:
        found |= readers(path.with_name(f'{alias.name}.py'))
  return found


@pytest.mark.parametrize(('path', 'config'), CONFIGS)
def test_every_field_is_read(path, config):
  read = set().union(*(names_read(TREES[file]) for file in readers(path)))
  assert not fields(config) - read


@pytest.mark.parametrize(('path', 'config'), CONFIGS)
def test_config_is_a_frozen_dataclass(path, config):
  decorators = [ast.unparse(node) for node in config.decorator_list]
  assert any('dataclass' in d and 'frozen=True' in d for d in decorators), path

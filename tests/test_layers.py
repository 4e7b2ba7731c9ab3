"""Who may import whom: the table of layers, held against every import.

Agents and processes do not know each other: an agent runs in any process, a
worker drives any agent, and only the modules made for a backend import it.
"""

import ast
from collections.abc import Iterator
import fnmatch
import graphlib
import json
import pathlib
import subprocess
import sys
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = {
  'distacme': 'distacme',
  'agents': 'distacme.agents',
  'programs': 'distacme.programs',
  'deploy': 'distacme.deploy',
}
ALL = '*'


class Layer(NamedTuple):
  """What the modules of one layer may import, besides the standard library."""

  modules: str  # patterns, without the leading `distacme.`
  libraries: str
  layers: str  # `ALL`: any


# By folder; the modules at the top of the library by name.
LAYERS = {
  # L0: plain data.
  'data': Layer(
    'types specs config_checks replay_spec replay_spec.* status',
    'numpy dm_env tree',
    'data',
  ),
  'lazy': Layer('lazy_imports', '', ''),
  # L1: the protocols.
  'contracts': Layer('core', 'numpy dm_env', 'data'),
  # L2: what agents are made of; what replay backends share; environments.
  'kit': Layer(
    'kit kit.*',
    'numpy jax haiku optax rlax mctx',
    'data lazy contracts kit',
  ),
  'writers': Layer(
    'replay.items replay.items.* replay.writers replay.writers.*',
    'numpy dm_env tree',
    'data contracts writers',
  ),
  'environments': Layer(
    'environments environments.*',
    'numpy dm_env tree jax ale_py bsuite dm_control gymnasium minatar pgx',
    'data lazy contracts environments',
  ),
  'demonstrations': Layer(
    'demonstrations demonstrations.*',
    'numpy dm_env tree gymnasium minari h5py PIL',
    'data lazy contracts environments demonstrations',
  ),
  # L3: mathematics, which knows no process.
  'agents': Layer(
    'agents agents.*',
    'numpy dm_env tree jax haiku optax rlax',
    'data lazy contracts kit agents',
  ),
  # L3': workers, which know no mathematics and no backend.
  'run': Layer(
    'run run.*',
    'numpy tree jax orbax tensorboardX',
    'data contracts run',
  ),
  'workers': Layer(
    'acting acting.* learning learning.* environment_loop learner_loop row_layout '
    'wiring',
    'numpy dm_env tree jax',
    'data lazy contracts writers environments demonstrations run replay workers',
  ),
  # L4: one backend each.
  'reverb': Layer(
    'replay.reverb replay.reverb.*',
    'numpy dm_env tree reverb tensorflow',
    'data contracts writers run replay reverb',
  ),
  'replay_service': Layer(
    'replay.service replay.service.*',
    'numpy grpc',
    'data contracts writers run rpc replay replay_service',
  ),
  'replay': Layer(
    'replay replay.*',
    'numpy dm_env tree',
    'data contracts writers demonstrations run replay',
  ),
  'rpc': Layer('rpc rpc.*', 'grpc cryptography', 'data run rpc'),
  'variables': Layer(
    'variables variables.*',
    'numpy tree grpc ml_dtypes',
    'data contracts run rpc variables',
  ),
  'runtime': Layer(
    'runtime runtime.*',
    'numpy tree jax absl launchpad',
    'data lazy contracts run runtime',
  ),
  # L5: who puts them together.
  'top': Layer('programs programs.* deploy deploy.*', ALL, ALL),
  'front_door': Layer('__init__', '', ALL),
  'testing': Layer(
    'testing testing.*',
    'numpy dm_env tree jax haiku gymnasium bsuite pytest hypothesis',
    'data contracts environments demonstrations writers run variables workers testing',
  ),
}


def modules() -> dict[str, pathlib.Path]:
  """Returns every module of the package by its dotted name."""
  found = {}
  for folder, package in FOLDERS.items():
    for path in (ROOT / folder).rglob('*.py'):
      parts = path.relative_to(ROOT / folder).with_suffix('').parts
      name = '.'.join((package, *parts)).removesuffix('.__init__')
      found[name] = path
  return found


MODULES = modules()
AGENTS = ', '.join(m for m in MODULES if m.startswith('distacme.agents.'))


def layer_of(module: str) -> str:
  """Returns the first layer with a pattern for `module`."""
  short = module.removeprefix('distacme').removeprefix('.') or '__init__'
  for name, layer in LAYERS.items():
    if any(fnmatch.fnmatch(short, p) for p in layer.modules.split()):
      return name
  raise LookupError(
    f'{module} is in no layer: add it to LAYERS in {pathlib.Path(__file__).name}'
    ' where its imports belong.'
  )


def imports(path: pathlib.Path) -> Iterator[tuple[int, str]]:
  """Yields line and module of every import in a file, at any depth.

  Those written as a call with a literal name count: import_module('x') and
  lazy.module('x').
  """
  yield from imports_of(ast.parse(path.read_text()), path)


def imports_of(tree: ast.AST, path: pathlib.Path) -> Iterator[tuple[int, str]]:
  """Yields the same of what was parsed."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield node.lineno, alias.name
    elif isinstance(node, ast.ImportFrom):
      if node.level:
        raise ValueError(f'{path}:{node.lineno}: relative import.')
      for alias in node.names:
        whole = f'{node.module}.{alias.name}'
        yield node.lineno, whole if whole in MODULES else str(node.module)
    elif isinstance(node, ast.Call) and node.args:
      called = ast.unparse(node.func).split('.')[-1]
      name = node.args[0]
      if called in ('import_module', 'find_spec', 'module', '__import__'):
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
          yield node.lineno, name.value


def graph(node_of=lambda module: module) -> dict[str, set[str]]:
  """Returns which nodes import which; imports for annotations do not count."""
  found: dict[str, set[str]] = {}
  for module, path in MODULES.items():
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
      if isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test):
        node.body = [ast.Pass()]
    edges = found.setdefault(node_of(module), set())
    for imported in (name for _, name in imports_of(tree, path)):
      if imported in MODULES and node_of(imported) != node_of(module):
        edges.add(node_of(imported))
  return found


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
  """Returns the nodes that import themselves by way of others."""
  order = graphlib.TopologicalSorter(edges)
  try:
    order.prepare()
  except graphlib.CycleError as error:
    return [error.args[1]]
  return []


def folder_of(module: str) -> str:
  """Returns a module's folder; modules at the top stand for themselves."""
  parent = module.rpartition('.')[0]
  is_folder = MODULES[module].name == '__init__.py'
  return module if is_folder or parent in TOPS else parent


TOPS = ('distacme', 'distacme.programs')


def violations(module: str, path: pathlib.Path) -> Iterator[str]:
  """Yields a sentence for every import that the module's layer forbids."""
  name = layer_of(module)
  layer = LAYERS[name]
  for line, imported in imports(path):
    top = imported.split('.')[0]
    if top == 'distacme':
      other = layer_of(imported) if imported in MODULES else 'no layer'
      if layer.layers != ALL and other not in layer.layers.split():
        yield f'{path}:{line}: {name} must not import {imported} ({other}).'
    elif top not in sys.stdlib_module_names:
      if layer.libraries != ALL and top not in layer.libraries.split():
        yield f'{path}:{line}: {name} must not import {imported}.'


@pytest.mark.parametrize('module', sorted(MODULES))
def test_imports_stay_in_their_layer(module):
  assert not list(violations(module, MODULES[module]))


@pytest.mark.parametrize('node_of', [str, folder_of])
def test_there_are_no_circles_of_modules_or_folders(node_of):
  assert not circles(graph(node_of))


def test_a_circle_is_found():
  edges = {'a': {'b'}, 'b': {'c'}, 'c': {'a'}, 'd': {'a'}}
  assert {*circles(edges)[0]} == {'a', 'b', 'c'}


@pytest.mark.parametrize(
  ('module', 'line'),
  [
    ('distacme.acting.actor', 'from distacme.agents import dqn'),
    ('distacme.acting.actor', 'import reverb'),
    ('distacme.agents.dqn', 'from distacme.learning import learner'),
    ('distacme.agents.dqn', 'import distacme.replay.memory'),
    ('distacme.agents.dqn', "importlib.import_module('launchpad')"),
    ('distacme.types', 'import jax'),
    ('distacme.replay.memory', 'import grpc'),
  ],
)
def test_a_forbidden_import_is_found(module, line, tmp_path, monkeypatch):
  for name in ('distacme.learning.learner', 'distacme.replay.memory'):
    monkeypatch.setitem(MODULES, name, MODULES.get(name))
  path = tmp_path / 'module.py'
  path.write_text(f'def f():\n  {line}\n')
  (violation,) = violations(module, path)
  assert f'{path}:2: ' in violation


def test_a_module_in_no_layer_is_named():
  with pytest.raises(LookupError, match='distacme.unheard_of is in no layer'):
    layer_of('distacme.unheard_of')


@pytest.mark.parametrize(
  ('module', 'unwanted'),
  [
    ('distacme', 'reverb launchpad tensorflow grpc jax rlax optax orbax'),
    # Actors import the agent's file, and need neither optimiser nor losses.
    (AGENTS, 'reverb launchpad tensorflow grpc rlax optax'),
    (
      'distacme.acting.actor',
      'reverb launchpad tensorflow grpc rlax optax orbax',
    ),
    ('distacme.replay.memory', 'reverb launchpad tensorflow grpc jax'),
    ('distacme.replay.reverb.queue', 'launchpad tensorflow grpc jax'),
    ('distacme.replay.reverb.way', 'launchpad tensorflow grpc jax'),
    (
      'distacme.variables.server',
      'reverb launchpad tensorflow jax cryptography',
    ),
  ],
)
def test_a_process_loads_only_what_it_needs(module, unwanted):
  code = (
    f'import json, sys, {module}\n'
    f'names = {unwanted.split()!r}\n'
    'print(json.dumps([name for name in names if name in sys.modules]))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout) == []

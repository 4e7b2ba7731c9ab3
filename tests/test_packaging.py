"""What is installed is what stands in the folders, and it runs without extras."""

import configparser
from importlib import metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile

from packaging import requirements as packaging_requirements
from packaging import utils as packaging_utils
import pytest

import distacme

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = {
  'distacme': 'distacme',
  'agents': 'distacme.agents',
  'programs': 'distacme.programs',
  'deploy': 'distacme.deploy',
}
LOCKS = sorted((ROOT / 'requirements').glob('*.txt'))


def setup_cfg() -> configparser.ConfigParser:
  """Returns the parsed metadata."""
  parser = configparser.ConfigParser()
  parser.read(ROOT / 'setup.cfg')
  return parser


def run(*command, cwd=None, **environ):
  """Runs a command to its end and returns what it printed and its status."""
  return subprocess.run(
    command,
    cwd=cwd,
    env={**os.environ, **environ},
    capture_output=True,
    text=True,
    timeout=300,
  )


def modules_in_folders() -> set[str]:
  """Returns the paths that the modules should have once installed."""
  return {
    f'{package.replace(".", "/")}/{path.relative_to(ROOT / folder).as_posix()}'
    for folder, package in FOLDERS.items()
    for path in (ROOT / folder).rglob('*.py')
  }


def test_packages_in_setup_cfg_are_the_folders_with_modules():
  listed = setup_cfg()['options']['packages'].split()
  found = {
    os.path.dirname(path).replace('/', '.') for path in modules_in_folders()
  }
  assert set(listed) == found
  assert len(listed) == len(set(listed))


def test_every_package_has_an_init_file():
  modules = modules_in_folders()
  packages = {os.path.dirname(path) for path in modules}
  assert not [p for p in packages if f'{p}/__init__.py' not in modules]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  # A copy: a build writes into its source, and packs what an earlier one left.
  source = tmp_path_factory.mktemp('source')
  for name in (*FOLDERS, 'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
    if (ROOT / name).is_dir():
      ignore = shutil.ignore_patterns('__pycache__', '*.egg-info')
      shutil.copytree(ROOT / name, source / name, ignore=ignore)
    elif (ROOT / name).exists():
      shutil.copy(ROOT / name, source / name)
  out = tmp_path_factory.mktemp('wheel')
  code = f'from setuptools import build_meta as b; b.build_wheel({str(out)!r})'
  done = run(sys.executable, '-c', code, cwd=source)
  assert done.returncode == 0, done.stderr
  (path,) = out.glob('*.whl')
  return path


def test_wheel_holds_the_modules_and_nothing_else(wheel):
  names = set(zipfile.ZipFile(wheel).namelist())
  assert {n for n in names if n.endswith('.py')} == modules_in_folders()
  assert 'distacme/py.typed' in names
  assert {n.split('/')[0].split('-')[0] for n in names} == {'distacme'}


def test_installed_wheel_imports_without_any_extra(wheel, tmp_path):
  zipfile.ZipFile(wheel).extractall(tmp_path)
  # The folder comes before the hook of the editable install, and what the
  # extras bring is not to be found.
  code = """
import importlib, sys
for name in sys.argv[2:]:
  sys.modules[name] = None
import distacme, distacme.agents.dqn, distacme.programs, distacme.programs.cli
for name, module in sys.modules.items():
  if name.split('.')[0] == 'distacme':
    assert module.__file__.startswith(sys.argv[1]), (name, module.__file__)
assert callable(distacme.programs.cli.main)
"""
  extras = ['launchpad', 'reverb', 'tensorflow']
  extras += ['gymnasium', 'bsuite', 'ale_py', 'dm_control', 'minatar', 'mujoco']
  extras += [
    'minari',
    'h5py',
    'mctx',
    'pgx',
    'pytest',
    'hypothesis',
    'portpicker',
  ]
  done = run(
    sys.executable,
    '-c',
    code,
    str(tmp_path),
    *extras,
    cwd=tmp_path,
    PYTHONPATH=str(tmp_path),
  )
  assert done.returncode == 0, done.stderr


def test_what_is_tested_is_what_is_installed():
  # In `make core` that is the wheel, for a process started here as well.
  distribution = metadata.distribution('distacme')
  origin = json.loads(distribution.read_text('direct_url.json') or '{}')
  if origin.get('dir_info', {}).get('editable'):
    folder = ROOT
  else:
    folder = pathlib.Path(sysconfig.get_path('purelib'))
  code = 'import distacme; print(distacme.__file__)'
  done = run(sys.executable, '-c', code)
  for path in (distacme.__file__, done.stdout.strip()):
    assert path == str(folder / 'distacme/__init__.py')


@pytest.mark.parametrize('folder', sorted(set(FOLDERS) - {'distacme'}))
def test_a_folder_imported_by_its_plain_name_says_what_to_import(folder):
  command = [sys.executable, '-c', f'import {folder}']
  done = run(*command, cwd=ROOT, PYTHONSAFEPATH='')
  assert f'Import distacme.{folder}, not {folder}: ' in done.stderr


@pytest.mark.parametrize('lock', LOCKS, ids=lambda path: path.name)
def test_lock_file_names_hashes_and_no_address(lock):
  text = lock.read_text()
  assert not re.search(r'://|^-|file:', text, re.MULTILINE)
  pin = r'^\S+==\S+( ; .+)? \\\n +--hash=sha256:[0-9a-f]{64}'
  pins = re.findall(pin, text, re.M)
  assert len(pins) == len(re.findall(r'^[a-z]', text, re.M))


@pytest.mark.parametrize('python', ['3.10', '3.11', '3.12'])
def test_lock_file_satisfies_setup_cfg(python):
  locked = {}
  for name in ('build.txt', f'python{python}.txt'):
    text = (ROOT / 'requirements' / name).read_text()
    for pin in re.findall(r'^\S+==\S+', text, re.M):
      name, version = pin.split('==')
      locked[packaging_utils.canonicalize_name(name)] = version
  wanted = [setup_cfg()['options']['install_requires']]
  wanted += setup_cfg()['options.extras_require'].values()
  environment = {
    'python_version': python,
    'sys_platform': 'linux',
    'platform_machine': 'x86_64',
  }
  for line in '\n'.join(wanted).split('\n'):
    if not line:
      continue
    wish = packaging_requirements.Requirement(line)
    if wish.marker is None or wish.marker.evaluate(environment):
      version = locked.get(packaging_utils.canonicalize_name(wish.name))
      assert version, f'{wish.name} is not locked: make lock'
      assert version in wish.specifier, f'{wish} has {version}: make lock'


def test_find_python_refuses_one_of_another_version(tmp_path):
  fake = tmp_path / 'python3.10'
  fake.write_text('#!/bin/sh\nexit 1\n')
  fake.chmod(0o755)
  done = run(ROOT / 'scripts/find_python', PYTHON=str(fake))
  assert done.returncode == 1
  assert f'PYTHON={fake} is not a Python 3.10 to 3.14 that' in done.stderr


def test_find_python_says_what_it_tried_and_what_to_install(tmp_path):
  fake = tmp_path / 'python3.10'
  fake.write_text('#!/bin/sh\nexit 1\n')
  fake.chmod(0o755)
  nothing = dict.fromkeys(('PYTHON', 'PYENV_ROOT'), '')
  path = f'{tmp_path}:/usr/bin:/bin'
  done = run(
    'bash',
    '-c',
    # Neither a system's own Pythons nor uv may answer for the fake one.
    'type() { [ "$2" = python3.10 ] && builtin echo "$FAKE"; }\n'
    '. scripts/find_python',
    cwd=ROOT,
    HOME=str(tmp_path),
    PATH=path,
    FAKE=str(fake),
    **nothing,
  )
  assert done.returncode == 1
  assert f'Tried:\n  $PYTHON (not set)\n  {fake}\n' in done.stderr
  assert 'apt-get install python3 python3-venv' in done.stderr


def test_find_python_takes_the_first_version_that_there_is(tmp_path):
  # $PYTHON is not for who asks for versions.
  for version, text in (('3.98', 'exit 1'), ('3.97', 'echo found')):
    fake = tmp_path / f'versions/{version}.0/bin/python{version}'
    fake.parent.mkdir(parents=True)
    fake.write_text(f'#!/bin/sh\n{text}\n')
    fake.chmod(0o755)
  where = {'PYENV_ROOT': str(tmp_path), 'PYTHON': sys.executable}
  done = run(ROOT / 'scripts/find_python', '3.99', '3.98', '3.97', **where)
  assert done.stdout == 'found\n', done.stderr
  done = run(ROOT / 'scripts/find_python', '3.99', '3.98', **where)
  assert done.returncode == 1
  assert 'No Python 3.99 or 3.98 that works. Tried:' in done.stderr
  assert 'versions/3.98.0/bin/python3.98' in done.stderr


def test_find_python_takes_the_one_it_is_given():
  base = os.path.realpath(sys.executable)
  done = run(ROOT / 'scripts/find_python', PYTHON=base)
  assert done.stdout.strip() == base


@pytest.mark.parametrize(
  ('machine', 'there', 'found'),
  [
    ('Linux x86_64', ('3.10', '3.11', '3.13'), '3.10'),
    ('Linux x86_64', ('3.11', '3.13'), '3.13'),
    ('Linux aarch64', ('3.10', '3.11', '3.13'), '3.13'),
    ('Darwin arm64', ('3.10',), '3.10'),
  ],
)
def test_find_python_prefers_3_10_only_where_launchpad_is(
  machine, there, found, tmp_path
):
  for version in there:
    fake = tmp_path / f'python{version}'
    fake.write_text(f'#!/bin/sh\necho {version}\n')
    fake.chmod(0o755)
  done = run(
    'bash',
    '-c',
    # Of the Pythons of this machine none may answer.
    f'uname() {{ echo {machine}; }}\n'
    'type() { [ -e "$FAKES/$2" ] && builtin echo "$FAKES/$2"; }\n'
    '. scripts/find_python',
    cwd=ROOT,
    HOME=str(tmp_path),
    FAKES=str(tmp_path),
    PYTHON='',
    PYENV_ROOT='',
  )
  assert done.stdout == f'{found}\n', done.stderr


def test_make_venv_names_all_extras_where_there_is_no_lock_file():
  script = (ROOT / 'scripts/make_venv').read_text()
  (extras,) = re.findall(r"--editable '?\.\[(.+)\]", script)
  assert extras.split(',') == list(setup_cfg()['options.extras_require'])


@pytest.mark.parametrize(
  ('python', 'platform', 'machine', 'box2d'),
  [
    ('3.13', 'linux', 'x86_64', True),
    ('3.13', 'darwin', 'arm64', True),
    ('3.13', 'linux', 'aarch64', False),
    ('3.14', 'linux', 'x86_64', False),
  ],
)
def test_extras_ask_for_what_has_wheels_there(python, platform, machine, box2d):
  environment = {
    'python_version': python,
    'sys_platform': platform,
    'platform_machine': machine,
  }
  extras = setup_cfg()['options.extras_require']

  def wanted(extra):
    for line in filter(None, extras[extra].split('\n')):
      wish = packaging_requirements.Requirement(line)
      if wish.marker is None or wish.marker.evaluate(environment):
        yield wish

  assert [wish.name for wish in wanted('launch')] == ['cryptography']
  assert any('box2d' in wish.extras for wish in wanted('envs')) == box2d
  assert 'dm-control' not in [wish.name for wish in wanted('envs')]

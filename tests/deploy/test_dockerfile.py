"""deploy/Dockerfile, as far as it can be checked where no image can be built."""

import fnmatch
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from distacme.deploy import cluster as cluster_lib
from distacme.deploy import kubernetes_manifests

ROOT = pathlib.Path(__file__).parents[2]


def instructions():
  """Returns the instructions and their arguments, lines joined."""
  text = (ROOT / 'deploy/Dockerfile').read_text().replace('\\\n', ' ')
  lines = [line for line in text.splitlines() if line and line[0] != '#']
  return [tuple(line.split(maxsplit=1)) for line in lines]


def copied():
  """Returns the paths that are copied from the checkout."""
  return [
    source.rstrip('/')
    for name, arguments in instructions()
    if name == 'COPY' and not arguments.startswith('--from')
    for source in arguments.split()[:-1]
  ]


def ignored(path):
  """Returns whether .dockerignore keeps a path out; the last rule decides."""
  out = False
  for rule in (ROOT / '.dockerignore').read_text().splitlines():
    pattern = rule.lstrip('!').removeprefix('**/')
    parents = [path, *pathlib.PurePath(path).parents]
    if rule and rule[0] != '#':
      if any(fnmatch.fnmatch(f'{each}', pattern) for each in parents):
        out = not rule.startswith('!')
  return out


def test_all_that_is_copied_is_there_and_reaches_the_build():
  assert 'requirements' in copied()
  for path in copied():
    assert (ROOT / path).exists(), path
    inside = 'requirements/build.txt' if path == 'requirements' else path
    assert not ignored(inside), path


@pytest.mark.parametrize(
  'path', ['.git/config', 'runs/x', 'tests/a.py', '.venv']
)
def test_all_else_stays_out_of_the_build(path):
  assert ignored(path)


def shell(part, **variables):
  """Returns the lines of the only RUN with a text, up to its first '&&'."""
  (line,) = [
    arguments
    for name, arguments in instructions()
    if name == 'RUN' and part in arguments
  ]
  script = f'{line.partition("&&")[0]}; echo "$lock"'
  done = subprocess.run(
    ['sh', '-ec', script],
    env=variables,
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.strip()


@pytest.mark.parametrize('python', ['3.10', '3.11', '3.12', '3.13', '3.14'])
def test_each_python_has_the_lock_file_that_make_setup_takes(python):
  lock = shell('case "$PYTHON"', PYTHON=python)
  assert (ROOT / f'requirements/{lock}.txt').exists()
  venv = (ROOT / 'scripts/make_venv').read_text()
  cases = venv[venv.index('case $version') : venv.index('esac') + 4]
  done = subprocess.run(
    ['bash', '-ec', f'version={python}; {cases}; echo $lock'],
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.strip() == f'requirements/{lock}.txt'


def test_launchpad_and_reverb_are_in_the_lane_of_one_build_argument():
  (default,) = [
    arguments.partition('=')[2]
    for name, arguments in instructions()
    if name == 'ARG' and arguments.startswith('PYTHON=')
  ]
  found = {}
  for python in (default, '3.10'):
    lock = shell('case "$PYTHON"', PYTHON=python)
    text = (ROOT / f'requirements/{lock}.txt').read_text()
    found[python] = all(
      re.search(f'^{name}==', text, re.MULTILINE)
      for name in ('dm-launchpad', 'dm-reverb')
    )
  assert found == {default: False, '3.10': True}


def test_its_user_is_that_of_the_pods_and_its_python_that_of_their_command():
  last = [arguments for name, arguments in instructions() if name == 'USER'][-1]
  assert int(last) == cluster_lib.Kubernetes().user_id
  names = [name for name, _ in instructions()]
  final = instructions()[len(names) - 1 - names[::-1].index('FROM') :]
  paths = ' '.join(arguments for name, arguments in final if name == 'ENV')
  assert 'PATH=/opt/distacme/bin:$PATH' in paths
  assert ('COPY', '--from=libraries /opt/distacme /opt/distacme') in final
  assert not any(name == 'USER' and each == 'root' for name, each in final)


def test_every_stage_that_is_named_is_there():
  stages = re.findall(r' AS (\w+)', (ROOT / 'deploy/Dockerfile').read_text())
  for name, arguments in instructions():
    for stage in re.findall(r'from=(\w+)', arguments):
      assert stage in stages, (name, arguments)


def test_a_wheel_with_all_modules_is_made_of_what_is_copied(tmp_path):
  for path in copied():
    if (ROOT / path).is_dir():
      ignore = shutil.ignore_patterns('__pycache__', '*.egg-info')
      shutil.copytree(ROOT / path, tmp_path / path, ignore=ignore)
    else:
      shutil.copy(ROOT / path, tmp_path / path)
  code = "from setuptools import build_meta as b; b.build_wheel('wheel')"
  (tmp_path / 'wheel').mkdir()
  subprocess.run(
    [sys.executable, '-c', code], cwd=tmp_path, check=True, capture_output=True
  )
  (wheel,) = (tmp_path / 'wheel').glob('*.whl')
  names = zipfile.ZipFile(wheel).namelist()
  assert 'distacme/deploy/kubernetes_pod.py' in names
  assert 'distacme/programs/start.py' in names
  assert kubernetes_manifests.__file__.rpartition('/')[2] in {
    name.rpartition('/')[2] for name in names
  }

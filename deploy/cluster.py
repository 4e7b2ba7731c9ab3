"""Reads cluster.toml: the resources of each kind of worker, and an engine's settings.

`deploy/cluster.toml` is an example that names every field; `distacme cluster-example`
prints it.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import difflib
import pathlib
import re
import sys
from typing import Any, TypeVar

KINDS = ('variables', 'replay', 'relay', 'learner', 'actor', 'evaluator')
EXAMPLE = pathlib.Path(__file__).with_name('cluster.toml')

_T = TypeVar('_T')
_MEMORY = re.compile(r'([1-9]\d*)([MGT])')
_TIME = re.compile(r'(?:(\d+)-)?(\d{1,2}):(\d\d):(\d\d)')
_LABEL = re.compile(r'[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?')  # of DNS, RFC 1123
_TOLERATION = ('key', 'operator', 'value', 'effect', 'tolerationSeconds')
_UNITS = {'M': 1, 'G': 1024, 'T': 1024**2}


def mebibytes(memory: str) -> int:
  """Returns an amount like '16G' in MiB.

  Raises:
    ValueError: if it is no such amount.
  """
  match = _MEMORY.fullmatch(memory)
  if match is None:
    raise ValueError(
      f'must be a whole number with M, G or T, like "16G", got {memory!r}'
    )
  return int(match[1]) * _UNITS[match[2]]


def seconds(time: str) -> int:
  """Returns a time limit like '1-12:00:00' in seconds.

  Raises:
    ValueError: if it is no such time.
  """
  match = _TIME.fullmatch(time)
  if match is None:
    raise ValueError(
      f'must be HH:MM:SS or D-HH:MM:SS, like "24:00:00", got {time!r}'
    )
  days, hours, minutes, rest = (int(part or 0) for part in match.groups())
  return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def _check_least(settings: Any, **least: int) -> None:
  for name, bound in least.items():
    value = getattr(settings, name)
    if value < bound:
      raise ValueError(f'{name} must be {bound} or more, got {value}')


def _check_form(settings: Any, name: str, check: Any) -> None:
  try:
    check(getattr(settings, name))
  except ValueError as error:
    raise ValueError(f'{name} {error}') from None


def _check_word(text: str) -> None:
  if re.search(r'\s', text):
    raise ValueError(f'must be one word, got {text!r}')


def _check_label(text: str) -> None:
  if text and not _LABEL.fullmatch(text):
    raise ValueError(
      'must be lower case letters, digits and dashes, 63 at most, like "team-a", '
      f'got {text!r}'
    )


@dataclasses.dataclass(frozen=True)
class Resources:
  """Resources of each worker of a kind."""

  cpus: int = 1
  memory: str = '2G'  # M, G or T, of 1024 each
  gpus: int = 0

  def __post_init__(self) -> None:
    _check_least(self, cpus=1, gpus=0)
    _check_form(self, 'memory', mebibytes)


DEFAULTS: Mapping[str, Resources] = {
  **dict.fromkeys(KINDS, Resources()),
  'replay': Resources(cpus=2, memory='8G'),
  'learner': Resources(cpus=4, memory='8G'),
}


@dataclasses.dataclass(frozen=True)
class SlurmJob:
  """Settings of Slurm's jobs, which each kind of worker may have for itself."""

  partition: str = ''
  account: str = ''
  qos: str = ''
  time: str = '24:00:00'
  options: tuple[str, ...] = ()  # more of sbatch's, verbatim
  prologue: str = ''  # shell commands before the worker

  def __post_init__(self) -> None:
    _check_form(self, 'time', seconds)
    for name in ('partition', 'account', 'qos'):
      _check_form(self, name, _check_word)
    for option in self.options:
      if not isinstance(option, str) or not option.startswith('-'):
        raise ValueError(
          f'options are those of sbatch, one text each, like "--constraint=ib", '
          f'got {option!r}'
        )


@dataclasses.dataclass(frozen=True)
class Slurm(SlurmJob):
  """Settings for Slurm."""

  python: str = ''
  import_path: tuple[str, ...] = ()
  warning_s: int = 120
  actors_per_job: int = 1
  interface: str = ''
  one_job: bool = False
  nodes: int = 1

  def __post_init__(self) -> None:
    super().__post_init__()
    _check_least(self, warning_s=1, actors_per_job=1, nodes=1)
    _check_form(self, 'interface', _check_word)
    if self.nodes > 1 and not self.one_job:
      raise ValueError(
        f'nodes = {self.nodes} is for one_job = true; the jobs of kinds of workers '
        'have a node each'
      )
    if self.import_path and not self.python:
      raise ValueError(
        'import_path is for a python of your own; leave it out, or set python'
      )


@dataclasses.dataclass(frozen=True)
class KubernetesPod:
  """Settings of Kubernetes' pods, which each kind of worker may have for itself."""

  node_selector: Mapping[str, str] = dataclasses.field(default_factory=dict)
  tolerations: tuple[Mapping[str, Any], ...] = ()
  gpu_resource: str = 'nvidia.com/gpu'

  def __post_init__(self) -> None:
    for key, value in self.node_selector.items():
      if not isinstance(value, str):
        raise ValueError(
          f'node_selector is of texts, like {{"pool" = "gpu"}}, got {value!r} for '
          f'{key}'
        )
    for toleration in self.tolerations:
      if not isinstance(toleration, dict) or toleration.keys() - _TOLERATION:
        raise ValueError(
          f'tolerations are tables with {", ".join(_TOLERATION)}, got '
          f'{toleration!r}'
        )
    if not re.fullmatch(r'[a-z0-9.-]+/[A-Za-z0-9._-]+', self.gpu_resource):
      raise ValueError(
        f'gpu_resource is like "nvidia.com/gpu", got {self.gpu_resource!r}'
      )


@dataclasses.dataclass(frozen=True)
class Kubernetes(KubernetesPod):
  """Settings for Kubernetes."""

  image: str = ''
  namespace: str = 'default'
  storage: str = '10G'
  storage_class: str = ''
  queue: str = ''
  jobset: bool = False
  autoscaled: bool = False
  user_id: int = 1000

  def __post_init__(self) -> None:
    super().__post_init__()
    _check_form(self, 'storage', mebibytes)
    _check_least(self, user_id=1)
    for name in ('image', 'storage_class'):
      _check_form(self, name, _check_word)
    for name in ('namespace', 'queue'):
      _check_form(self, name, _check_label)
    if not self.namespace:
      raise ValueError(
        'namespace is empty; "default" is the cluster\'s default'
      )


@dataclasses.dataclass(frozen=True)
class Cluster:
  """A cluster, as the user describes it."""

  resources: Mapping[str, Resources] = dataclasses.field(
    default_factory=lambda: DEFAULTS
  )
  slurm: Slurm = Slurm()
  slurm_jobs: Mapping[str, SlurmJob] = dataclasses.field(default_factory=dict)
  kubernetes: Kubernetes = Kubernetes()
  kubernetes_pods: Mapping[str, KubernetesPod] = dataclasses.field(
    default_factory=dict
  )
  max_requeues: int = 3

  def slurm_job(self, kind: str) -> SlurmJob:
    """Returns the settings of the jobs of a kind of worker."""
    return self.slurm_jobs.get(kind, self.slurm)

  def kubernetes_pod(self, kind: str) -> KubernetesPod:
    """Returns the settings of the pods of a kind of worker."""
    return self.kubernetes_pods.get(kind, self.kubernetes)


def read(path: pathlib.Path | None) -> Cluster:
  """Returns the cluster that a file describes; the defaults without a file.

  Raises:
    ValueError: if the file is missing, is no TOML, or has a field that is unknown or
      impossible; the message names the field, its value and the allowed values.
  """
  if path is None:
    return Cluster()
  try:
    return parse(path.read_text())
  except (OSError, UnicodeDecodeError) as error:
    raise ValueError(
      f'{path} cannot be read ({error}). Give the file of your cluster; '
      "'distacme cluster-example' prints one to start from."
    ) from error
  except ValueError as error:
    raise ValueError(
      f"{path}: {error}. 'distacme cluster-example' names all fields."
    ) from error


def parse(text: str) -> Cluster:
  """Returns the cluster of a text in TOML; see `read`."""
  try:
    if sys.version_info >= (3, 11):
      import tomllib
    else:
      import tomli as tomllib
  except ImportError as error:
    raise ImportError(
      f"cluster.toml cannot be read ({error}). Run: pip install 'distacme[cluster]'"
    ) from error
  return _cluster(tomllib.loads(text))


def _cluster(tables: Mapping[str, Any]) -> Cluster:
  fields = {'max_requeues': tables.get('max_requeues', Cluster.max_requeues)}
  tables = {name: each for name, each in tables.items() if name not in fields}
  _check_known(tables, (*KINDS, 'slurm', 'kubernetes'), 'table', '')
  for name, table in tables.items():
    _check_table(table, name)
  slurm, jobs = _engine(Slurm, SlurmJob, tables.get('slurm', {}), 'slurm')
  kubernetes, pods = _engine(
    Kubernetes, KubernetesPod, tables.get('kubernetes', {}), 'kubernetes'
  )
  resources = {
    kind: _made(Resources, tables.get(kind, {}), kind, DEFAULTS[kind])
    for kind in KINDS
  }
  for kind, each in resources.items():
    if each.gpus and kind != 'learner':
      raise ValueError(
        f"gpus in [{kind}] is {each.gpus}, and only the learner's worker computes "
        'on accelerators on a cluster: leave it at 0'
      )
  cluster = Cluster(resources, slurm, jobs, kubernetes, pods)
  cluster = _made(Cluster, fields, 'the top', cluster)
  _check_least(cluster, max_requeues=0)
  return cluster


def _engine(
  whole: type[Any], of_kind: type[Any], table: Mapping[str, Any], name: str
) -> tuple[Any, dict[str, Any]]:
  """Returns the settings of an engine, and those that kinds have for themselves."""
  common = {key: value for key, value in table.items() if key not in KINDS}
  settings = _made(whole, common, name, whole())
  shared = [field.name for field in dataclasses.fields(of_kind)]
  base = of_kind(**{key: getattr(settings, key) for key in shared})
  kinds = {}
  for kind in KINDS:
    if kind in table:
      _check_table(table[kind], f'{name}.{kind}')
      kinds[kind] = _made(of_kind, table[kind], f'{name}.{kind}', base)
  return settings, kinds


def _made(
  dataclass: type[_T], table: Mapping[str, Any], name: str, base: Any
) -> _T:
  """Returns `base` with the fields of a table."""
  known = [field.name for field in dataclasses.fields(base)]
  _check_known(table, known, 'field', f'[{name}]')
  values = {}
  for field, value in table.items():
    try:
      values[field] = _like(getattr(base, field), value)
    except TypeError as error:
      raise ValueError(
        f'{field} in [{name}] must be {error}, got {value!r}'
      ) from None
  try:
    return dataclasses.replace(base, **values)
  except ValueError as error:
    raise ValueError(f'in [{name}], {error}') from None


def _like(example: Any, value: Any) -> Any:
  """Returns a value from TOML if it is of the type of the field's default.

  Raises:
    TypeError: if it is not; its message names the type.
  """
  names = {str: 'a text', int: 'a whole number', bool: 'true or false'}
  for type_, name in names.items():
    if type(example) is type_:
      if type(value) is not type_:
        raise TypeError(name)
      return value
  if isinstance(example, tuple):
    if not isinstance(value, list):
      raise TypeError('a list')
    return tuple(value)
  if not isinstance(value, dict):
    raise TypeError('a table')
  return value


def _check_known(
  table: Mapping[str, Any], known: Any, what: str, where: str
) -> None:
  for name in table:
    if name not in known:
      close = difflib.get_close_matches(name, known, n=1)
      hint = f', perhaps {close[0]!r}' if close else ''
      raise ValueError(
        f'{f"{where} has" if where else "there is"} no {what} {name!r}{hint}; '
        f'known are {", ".join(known)}'
      )


def _check_table(value: Any, name: str) -> None:
  if not isinstance(value, dict):
    raise ValueError(f'{name} must be a table, written [{name}], got {value!r}')

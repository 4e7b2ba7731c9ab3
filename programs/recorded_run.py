"""Records a run in config.json, for workers and for commands after the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from distacme import replay_spec
from distacme.programs import agents_by_name
from distacme.programs import experiment as experiment_lib
from distacme.programs import given_functions
from distacme.programs import run_config as run_config_lib
from distacme.run import files
from distacme.run import run_directory


def as_dict(
  experiment: experiment_lib.Experiment,
  replay: replay_spec.ReplaySpec,
  counts: Mapping[str, int],
  pickles: Sequence[str] = (),
) -> dict[str, Any]:
  """Returns the record of a run, for workers and for commands after the run.

  Args:
    experiment: of the run.
    replay: the replay spec of the run's agent.
    counts: the run's counters before this resumption.
    pickles: parts of the experiment that lie in pickles.
  """
  return {
    **experiment.as_dict(),
    'replay': replay_spec.as_dict(replay),
    'resumed_from': dict(counts),
    'pickles': list(pickles),
  }


def run_config(
  config: Mapping[str, Any], directory: run_directory.RunDirectory
) -> run_config_lib.RunConfig:
  """Returns the settings of the run; imports no module of the agent."""
  run: run_config_lib.RunConfig = _parse(
    run_config_lib.RunConfig, config['run'], directory
  )
  return dataclasses.replace(run, run_dir=directory.path)


def agent_config(
  config: Mapping[str, Any],
  run: run_config_lib.RunConfig,
  directory: run_directory.RunDirectory,
) -> Any:
  """Returns the settings of the agent; imports the agent's module."""
  agent = agents_by_name.agent_module(run.agent)
  return _parse(agent.Config, config['agent'], directory)


def as_read(value: Any) -> Any:
  """Returns a value as it comes back from config.json."""
  return files.from_json(files.to_json(value))


def defaults(config: Any) -> dict[str, Any]:
  """Returns the defaults of a dataclass as config.json would have them.

  A run that was made before a setting existed has it at its default.
  """
  return {
    field.name: as_read(_default(field)) for field in dataclasses.fields(config)
  }


def _default(field: dataclasses.Field[Any]) -> Any:
  if field.default_factory is not dataclasses.MISSING:
    return field.default_factory()
  return None if field.default is dataclasses.MISSING else field.default


def pickles(
  experiment: experiment_lib.Experiment, directory: run_directory.RunDirectory
) -> dict[str, bytes]:
  """Returns pickles of the parts that config.json cannot record.

  These parts are functions that have no import path, and an agent's settings
  that are more than plain data. Nothing is written.

  Raises:
    ValueError: if a part cannot be pickled.
  """
  parts = {
    part: given
    for part, given in experiment.given_functions().items()
    if not given_functions.import_path(given)
  }
  if not _is_plain(experiment, directory):
    parts['agent'] = experiment.agent
  return {
    part: given_functions.pickled(part, given) for part, given in parts.items()
  }


def _is_plain(
  experiment: experiment_lib.Experiment, directory: run_directory.RunDirectory
) -> bool:
  """Returns whether JSON gives the agent's settings back unchanged."""
  config = as_read(experiment.as_dict())
  try:
    read = agent_config(config, experiment.run, directory)
    return bool(read == experiment.agent)
  # A Config may check itself in any way, or hold what cannot be compared.
  except Exception:
    return False


def read_experiment(
  directory: run_directory.RunDirectory,
) -> experiment_lib.Experiment:
  """Returns the experiment that a run's launcher has recorded for workers."""
  config = directory.read_config()
  run = run_config(config, directory)
  parts = {
    part: given_functions.read_pickle(directory, part)
    for part in config['pickles']
  }
  for part in config['functions']:
    if path := import_path(config, part):
      parts[part] = given_functions.load(path)
  return experiment_lib.Experiment(
    run,
    parts.get('agent') or agent_config(config, run, directory),
    environment=parts.get('env'),
    network=parts.get('network'),
    resumed_from=config['resumed_from'],
  )


def import_path(config: Mapping[str, Any], part: str) -> str:
  """Returns from where a function of the run is imported; '' if from nowhere.

  Args:
    config: what config.json says.
    part: of the experiment that the function is.
  """
  known = config.get('functions', {}).get(part, {})
  return str(known.get('import_path', ''))


def _parse(
  config: Any,
  values: Mapping[str, Any],
  directory: run_directory.RunDirectory,
) -> Any:
  """Returns a dataclass from its fields in JSON, where tuples are lists."""
  unknown = values.keys() - {field.name for field in dataclasses.fields(config)}
  if unknown:
    raise ValueError(
      f'{directory.config} has {", ".join(sorted(unknown))}, which '
      f'{config.__module__}.{config.__name__} has not. Use the version of '
      'distacme and of the agent that the run was made with.'
    )
  return config(**{name: _as_tuple(value) for name, value in values.items()})


def _as_tuple(value: Any) -> Any:
  """Returns tuples in the place of lists, at any depth."""
  return tuple(map(_as_tuple, value)) if isinstance(value, list) else value

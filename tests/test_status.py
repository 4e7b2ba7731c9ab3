"""A status as JSON: what is kept of it, forgiven and refused."""

import dataclasses
import json
import math

import pytest

from distacme import status as status_lib
from distacme.run import files
from distacme.run import run_state

State = status_lib.WorkerState
WHOLE = status_lib.Status(
  seconds=2.5,
  counts={'env_steps': 9},
  rates={'env_steps': 3.0},
  workers={
    'actor/0': status_lib.WorkerStatus(
      State.ACTING, 0.5, {'env_steps': 9}, {'env_steps': 3.0}, {'loss': 1.0}, ''
    ),
    'learner/0': status_lib.WorkerStatus(failure='Traceback: boom'),
  },
  stop=status_lib.Stop(
    status_lib.StopReason.FAILED, 'Traceback: boom', 'learner/0', 2.0
  ),
  limits=status_lib.Limits(5, 7, 1.5),
  params_version=7,
  num_actors=3,
  failures={'learner/0': 'boom'},
  restarts={'actor/0': ['ended with signal 9']},
)


def plain(**changes):
  """Returns JSON's data of a whole status in which fields are others."""
  return json.loads(json.dumps(WHOLE.to_dict())) | changes


def test_every_field_comes_back_from_json():
  defaults = status_lib.Status(seconds=0.0, counts={})
  for field in dataclasses.fields(status_lib.Status)[:-1]:  # of those kept
    assert getattr(WHOLE, field.name) != getattr(defaults, field.name)
  assert status_lib.Status.from_dict(plain()) == WHOLE


def test_metrics_that_are_not_finite_come_back_from_a_file(tmp_path):
  state = run_state.RunState()
  state.report('learner', {}, {'loss': math.inf, 'norm': math.nan})
  files.write_json(tmp_path / 'status.json', state.status().to_dict())
  read = files.read_json(tmp_path / 'status.json')
  metrics = status_lib.Status.from_dict(read).workers['learner'].metrics
  assert metrics['loss'] == math.inf
  assert math.isnan(metrics['norm'])


def test_failures_shown_above_a_display_are_not_kept():
  seen = dataclasses.replace(WHOLE, shown_failures=['boom'])
  assert status_lib.Status.from_dict(seen.to_dict()) == WHOLE


def test_what_an_older_run_did_not_say_is_at_its_default():
  read = status_lib.Status.from_dict({'seconds': 1, 'counts': {}})
  assert read == status_lib.Status(seconds=1.0, counts={})


def test_what_a_newer_peer_says_is_left_out():
  worker = {'state': 'dreaming', 'mood': 3}
  read = status_lib.Status.from_dict(
    plain(workers={'actor/0': worker}, weather='fine')
  )
  assert read.workers == {'actor/0': status_lib.WorkerStatus()}


@pytest.mark.parametrize(
  ('said', 'detail'), [({}, 'bored'), ({'detail': 'by 3 s'}, 'bored: by 3 s')]
)
def test_a_reason_to_stop_of_another_version_is_a_failure(said, detail):
  read = status_lib.Status.from_dict(plain(stop={'reason': 'bored', **said}))
  assert read.stop == status_lib.Stop(status_lib.StopReason.FAILED, detail)


@pytest.mark.parametrize(
  ('value', 'sentence'),
  [
    ([], r'status: expected dict, got \[\]'),
    ({'seconds': 1.0}, 'status: counts is missing, got'),
    (plain(seconds='1'), "status: seconds: expected float, got '1'"),
    (plain(counts={'a': 0.5}), 'counts: a: expected int, got 0.5'),
    (plain(counts={'a': True}), 'counts: a: expected int, got True'),
    (plain(workers={'a': 3}), 'workers: a: expected dict, got 3'),
    (plain(workers={'a': {'state': []}}), None),
    (plain(restarts={'a': [3]}), 'restarts: a: 0: expected str, got 3'),
    (plain(limits={'max_env_steps': 0}), 'max_env_steps must be positive'),
    (plain(stop={}), 'stop: reason is missing'),
    (plain(stop={'reason': 'bored', 'detail': 3}), "'bored' is no reason"),
    (plain(stop={'reason': []}), r'\[\] is no reason to stop; use one'),
  ],
)
def test_what_is_no_status_is_refused_by_field(value, sentence):
  if sentence is None:  # a state of a kind that only a later version knows
    assert status_lib.Status.from_dict(value).workers['a'].state is None
    return
  with pytest.raises(ValueError, match=sentence):
    status_lib.Status.from_dict(value)


def test_texts_of_a_status_do_not_command_a_terminal():
  worker = plain()['workers']['learner/0'] | {'failure': 'a\n\x1b[2J\tb'}
  status = status_lib.Status.from_dict(
    plain(
      workers={'\x1b]0;me\x07': worker},
      stop={'reason': 'failed', 'detail': '\u202eover', 'worker': 'a'},
    )
  )
  ((name, seen),) = status.workers.items()
  assert name == '\ufffd]0;me\ufffd'
  assert seen.failure == 'a\n\ufffd[2J\tb'
  assert status.stop.detail == '\ufffdover'


def test_a_limit_that_is_a_whole_float_is_read_back():
  limits = status_lib.Limits(max_env_steps=1e6, max_learner_steps=2.0)
  status = status_lib.Status(seconds=0.0, counts={}, limits=limits)
  assert status_lib.Status.from_dict(status.to_dict()).limits == limits
  with pytest.raises(ValueError, match='max_env_steps must be a whole number'):
    status_lib.Limits(max_env_steps=1.5)

"""A program is data that checks itself and is read back as it was written."""

import pytest

from distacme.run import files
from distacme.runtime import topology

VARIABLES = topology.WorkerSpec('variables/0', listens=True)
REPLAY = topology.WorkerSpec(
  'replay/0', listens=True, needs=('variables/0',), lives_in='learner/0'
)
LEARNER = topology.WorkerSpec(
  'learner/0',
  needs=('variables/0', 'replay/0'),
  env={'JAX_PLATFORMS': 'cpu'},
  resources={'accelerators': 2},
)
PROGRAM = topology.Program((VARIABLES, REPLAY, LEARNER), ('/src',))


def test_a_program_is_read_back_from_json():
  text = files.to_json(PROGRAM.as_dict())
  assert topology.from_dict(files.from_json(text)) == PROGRAM


def test_workers_are_found_by_name_and_by_process():
  assert PROGRAM['learner/0'] == LEARNER
  assert (LEARNER.kind, LEARNER.index) == ('learner', 0)
  assert list(PROGRAM.owners()) == [VARIABLES, LEARNER]
  assert PROGRAM.lodgers('learner/0') == ['replay/0']
  assert PROGRAM.clients('replay/0') == ['learner/0']
  with pytest.raises(
    ValueError, match=r"called 'actor/0'\. Known: variables/0"
  ):
    PROGRAM['actor/0']


def test_workers_come_and_go():
  actor = topology.WorkerSpec('actor/0', needs=('variables/0',))
  more = PROGRAM.plus(actor)
  assert more['actor/0'] == actor
  assert more.without('actor/0') == PROGRAM
  assert more.import_path == PROGRAM.import_path


def service(name, *needs):
  return topology.WorkerSpec(name, listens=True, needs=needs)


@pytest.mark.parametrize(
  ('workers', 'said'),
  [
    ([topology.WorkerSpec('actor')], "like 'actor/0', got 'actor'"),
    ([topology.WorkerSpec('../x/0')], "like 'actor/0', got '../x/0'"),
    ([VARIABLES, VARIABLES], 'two workers are called variables/0'),
    ([LEARNER], "learner/0 needs 'variables/0', which is no service.*: none"),
    (
      [topology.WorkerSpec('a/0'), topology.WorkerSpec('b/0', needs=('a/0',))],
      "b/0 needs 'a/0', which is no service",
    ),
    (
      [VARIABLES, REPLAY],
      "replay/0 lives in 'learner/0', which has no process",
    ),
    (
      [service('a/0', 'b/0'), service('b/0', 'a/0'), service('c/0')],
      'no worker could start first: a/0 needs b/0; b/0 needs a/0',
    ),
    ([service('a/0', 'a/0')], 'no worker could start first: a/0 needs a/0'),
  ],
)
def test_a_program_that_cannot_work_is_refused(workers, said):
  with pytest.raises(ValueError, match=said):
    topology.Program(tuple(workers))

"""The start of a pod: it waits for the run's files, and counts those lost before it."""

import contextlib
import signal
import threading
import time

import pytest

from distacme import status as status_lib
from distacme.deploy import kubernetes_engine
from distacme.deploy import kubernetes_manifests
from distacme.deploy import kubernetes_pod
from distacme.deploy import records
from distacme.deploy import share
from distacme.deploy import submitted as submitted_lib
from distacme.programs import program as program_lib
from distacme.programs import run_config
from distacme.run import endpoints
from distacme.run import files
from distacme.run import run_directory
from distacme.run import run_state
from distacme.variables import server as server_lib
from tests.deploy.test_submitted import fixture_config  # noqa: F401
from tests.deploy.test_submitted import fixture_submit  # noqa: F401

LOST = 'was lost: its memory ran out, or its node failed'


@pytest.fixture(autouse=True)
def fixture_signals():
  """Gives this process its handlers back, which a pod's process replaces."""
  numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
  before = {number: signal.getsignal(number) for number in numbers}
  yield
  for number, handler in before.items():
    signal.signal(number, handler)


@pytest.fixture(name='directory')
def fixture_directory(tmp_path, submit):
  """Returns the directory of a run of two actors."""
  directory = run_directory.RunDirectory(tmp_path / 'run')
  submitted_lib.bring(submit(1, max_restarts=1), directory)
  return directory


def lose(directory, worker):
  """Lets the pod of a worker begin, and end without a word."""
  before = records.read_place(directory, worker)
  records.write_place(
    directory,
    records.Place(
      worker, 'pod', 'host', 0.0, ends=before.ends if before else ()
    ),
  )
  kubernetes_pod._check_losses(directory, worker)


@contextlib.contextmanager
def serving(directory, tmp_path):
  """Runs a variable server; yields the state of its run."""

  class Sink:
    def write(self, *_, **__):
      pass

  state = run_state.RunState(status_lib.Limits(), Sink(), {})
  server = server_lib.VariableServer(state)
  endpoints.write(directory.endpoints, program_lib.VARIABLES, server.endpoint)
  try:
    yield state
  finally:
    server.stop()


def test_a_pod_that_ended_in_order_was_not_lost(directory):
  place = records.Place('actor/0', 'pod', 'host', 0.0)
  records.write_place(directory, place.ended('left'))
  kubernetes_pod._check_losses(directory, 'actor/0')
  assert [end.how for end in records.read_place(directory, 'actor/0').ends] == [
    'left'
  ]


def test_losses_end_the_run_once_they_are_too_many(directory, tmp_path):
  with serving(directory, tmp_path) as state:
    lose(directory, 'actor/0')
    assert state.directive().stop is None
    lose(directory, 'actor/0')
    assert state.directive().stop == status_lib.StopReason.FAILED
    stop = state.status().stop
  assert stop.worker == 'actor/0'
  assert f'the pod of actor/0 {LOST}, 2 times within 10 minutes' in stop.detail
  ends = records.read_place(directory, 'actor/0').ends
  assert [end.how for end in ends] == [LOST, LOST]


def test_losses_of_long_ago_do_not_count(directory, tmp_path, monkeypatch):
  with serving(directory, tmp_path) as state:
    with monkeypatch.context() as patches:
      long_ago = time.time() - 700
      patches.setattr(time, 'time', lambda: long_ago)
      lose(directory, 'actor/0')
    lose(directory, 'actor/0')
    assert state.directive().stop is None


def test_a_lost_variable_server_ends_the_run_by_its_summary(directory):
  directory.write_progress(run_directory.Progress({'env_steps': 9}, 3.0))
  lose(directory, 'variables/0')
  assert directory.read_summary() is None
  lose(directory, 'variables/0')
  summary = directory.read_summary()
  assert summary.stop.reason == status_lib.StopReason.FAILED
  assert summary.counts == {'env_steps': 9}


def test_without_a_server_a_loss_is_only_written_down(directory):
  for _ in range(3):
    lose(directory, 'actor/0')
  assert len(records.read_place(directory, 'actor/0').ends) == 3


def test_a_pod_waits_until_the_run_is_of_its_submission(
  directory, submit, tmp_path, monkeypatch
):
  alive = tmp_path / 'alive'
  monkeypatch.setenv(share.ALIVE, f'{alive}')
  second = submit(2)
  answers = []
  waiting = threading.Thread(
    target=lambda: answers.append(kubernetes_pod._wait_for(second, directory))
  )
  waiting.start()
  deadline = time.monotonic() + 30
  while not alive.exists() and time.monotonic() < deadline:
    time.sleep(0.01)
  assert alive.exists() and not answers
  submitted_lib.bring(second, directory)
  waiting.join(30)
  assert answers == ['']


def test_a_refused_submission_ends_every_pod_with_the_code_that_ends_its_job(
  directory, submit, monkeypatch
):
  monkeypatch.setenv(kubernetes_pod.INDEX, '1')
  (directory.checkpoints / '7').mkdir(parents=True)
  directory.write_counts(7, {})
  other = submit(2, seed=5)
  submitted_lib.bring(other, directory)
  code = kubernetes_pod.main(
    [f'{directory.path}', 'actor', '--submitted', f'{other.files}']
  )
  assert code == 70


def test_a_directory_that_cannot_be_made_is_said_and_tried_again(
  tmp_path, submit, caplog
):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run/thesis.tex').touch()
  given = submit(1)
  flags = ['--submitted', f'{given.files}', '--secrets', f'{given.secrets}']
  assert kubernetes_pod.main([f'{tmp_path}/run', 'variables', *flags]) == 1
  assert 'is no run directory' in caplog.text


@pytest.fixture(name='message')
def fixture_message(tmp_path, monkeypatch):
  """Returns the file in which a pod tells its end."""
  path = tmp_path / 'message'
  monkeypatch.setattr(kubernetes_manifests, 'MESSAGE', path)
  return path


@pytest.mark.parametrize(
  'stop, codes',
  [
    (status_lib.Stop(status_lib.StopReason.SOLVED), (0, 0, 0)),
    (status_lib.Stop(status_lib.StopReason.TERMINATED), (0, 0, 0)),
    (
      status_lib.Stop(status_lib.StopReason.FAILED, 'x' * 9999, 'actor/1'),
      (70, 0, 70),
    ),
  ],
)
def test_a_pod_that_finds_the_run_ended_says_how(
  directory, tmp_path, monkeypatch, message, stop, codes
):
  failures = {f'actor/{index}': 'y' * 9999 for index in range(9)}
  directory.write_summary(
    status_lib.Status(
      seconds=1.0, counts={'env_steps': 3}, stop=stop, failures=failures
    )
  )
  found = []
  for name in ('variables/0', 'actor/0', 'actor/1'):
    kind, _, index = name.partition('/')
    monkeypatch.setenv(kubernetes_pod.INDEX, index)
    flags = ['--submitted', f'{tmp_path}/submitted-1']
    found.append(kubernetes_pod.main([f'{directory.path}', kind, *flags]))
  assert tuple(found) == codes
  assert len(message.read_bytes()) <= 4096
  told = status_lib.Status.from_dict(files.read_json(message))
  assert told.stop.reason == stop.reason
  assert told.counts == {'env_steps': 3}
  assert told.failures


def test_the_run_is_asked_to_end_by_a_file(directory):
  kubernetes_pod.main([f'{directory.path}', 'stop'])
  assert directory.stop_request.exists()


def test_the_program_gets_as_many_actors_as_asked_for(directory):
  def actors():
    program = program_lib.read(directory)
    return [w.name for w in program.workers if w.kind == 'actor']

  before = program_lib.read(directory)
  kubernetes_pod.main([f'{directory.path}', 'actors', '4'])
  assert actors() == [f'actor/{index}' for index in range(4)]
  assert program_lib.read(directory)['learner/0'] == before['learner/0']
  kubernetes_pod.main([f'{directory.path}', 'actors', '1'])
  assert actors() == ['actor/0']
  with pytest.raises(ValueError, match='num_actors must be at least 1'):
    kubernetes_pod.main([f'{directory.path}', 'actors', '0'])
  made = run_config.RunConfig(agent='bc', env='catch', mode='kubernetes')
  program_lib.write(program_lib.make_program(made, acts=False), directory)
  with pytest.raises(ValueError, match='There is nothing to scale'):
    kubernetes_pod.set_actors(directory, 2)


def test_the_log_of_this_pods_worker_is_repeated_and_no_other(
  directory, capfdbinary
):
  log = directory.logs / 'actor/0'
  log.parent.mkdir(parents=True)
  log.write_bytes(b'of the pod before\n')
  echo = kubernetes_pod._Echo(log)
  for _ in range(2):
    with open(log, 'ab') as file:
      file.write(b'\xffof this one\n' * 20_000)
  echo.end()
  assert capfdbinary.readouterr().out == b'\xffof this one\n' * 40_000


def test_a_log_that_comes_late_is_repeated_from_its_beginning(
  directory, capfdbinary
):
  log = directory.logs / 'actor/1'
  echo = kubernetes_pod._Echo(log)
  log.parent.mkdir(parents=True)
  log.write_bytes(b'first\n')
  echo.end()
  assert capfdbinary.readouterr().out == b'first\n'


def test_a_pod_is_called_by_a_name_that_its_successor_has_too(monkeypatch):
  engine = kubernetes_engine.KubernetesEngine()
  monkeypatch.setattr('socket.gethostname', lambda: 'catch-actor-3')
  monkeypatch.setenv(kubernetes_engine.SERVICE, 'catch')
  monkeypatch.setenv(kubernetes_engine.POD, 'catch-actor-3-x7k2p')
  assert engine.host('') == 'catch-actor-3.catch'
  assert engine.this_job() == 'catch-actor-3-x7k2p'
  assert engine.start_anew() and not engine.is_cancelled()
  monkeypatch.delenv(kubernetes_engine.SERVICE)
  with pytest.raises(ValueError, match='DISTACME_SERVICE is not set'):
    engine.host('')


def test_supervision_touches_the_file_of_the_probe_only_where_there_is_one(
  tmp_path, monkeypatch
):
  monkeypatch.delenv(share.ALIVE, raising=False)
  share.tell_alive()
  monkeypatch.setenv(share.ALIVE, f'{tmp_path}/alive')
  share.tell_alive()
  assert (tmp_path / 'alive').exists()


def test_a_damaged_record_of_a_submission_is_none(directory):
  files.write_json(directory.cluster / 'submitted.json', {'id': 's1', 'x': 1})
  assert submitted_lib.read(directory) is None

"""Decisions of the supervision of one job, with a real variable server."""

import platform
import time

import pytest

from distacme import status as status_lib
from distacme.deploy import engine as engine_lib
from distacme.deploy import records
from distacme.deploy import share as share_lib
from distacme.programs import program as program_lib
from distacme.programs import run_config
from distacme.run import endpoints
from distacme.run import metrics as metrics_lib
from distacme.run import run_directory
from distacme.run import run_state as run_state_lib
from distacme.runtime import supervision
from distacme.variables import server as server_lib

JobState = engine_lib.JobState


class Engine:
  """An engine whose jobs are as a test says."""

  def __init__(self):
    self.states = {}

  grace_s = 1.0

  def this_job(self):
    return '4'

  def host(self, cluster):
    return '127.0.0.1'

  def state(self, job):
    return self.states.get(job, JobState.RUNNING)

  def is_cancelled(self):
    return False

  def start_anew(self):
    return True

  def cancel(self, jobs):
    return True


class Member:
  """A worker whose end a test decides."""

  def __init__(self, name):
    self.code = None
    self.calls = []
    self.worker = supervision.Worker(
      name,
      exit_code=lambda: self.code,
      terminate=lambda: self.calls.append('terminate'),
      kill=lambda: self.calls.append('kill'),
      explain=lambda: None,
      log=None,
      restart=lambda: None,
    )


@pytest.fixture(name='directory')
def fixture_directory(tmp_path):
  directory = run_directory.RunDirectory(tmp_path)
  directory.cluster.mkdir()
  jobs = {'variables/0': '1', 'replay/0': '2', 'learner/0': '3', 'actor/0': '4'}
  records.write_submission(directory, records.Submission(jobs, time.time()))
  return directory


@pytest.fixture(name='state')
def fixture_state(directory):
  sink = metrics_lib.MetricsSink(directory.path, clock='env_steps')
  state = run_state_lib.RunState(status_lib.Limits(), sink, {})
  server = server_lib.VariableServer(state)
  endpoints.write(directory.endpoints, 'variables/0', server.endpoint)
  yield state
  server.stop()
  sink.close()


def make(directory, engine, *names, max_requeues=1):
  program = program_lib.make_program(run_config.RunConfig(num_actors=2))
  place = records.Place(names[0], '4', platform.node(), time.time())
  records.write_place(directory, place)
  share = share_lib.Share(
    program, directory, names, place, engine, max_requeues
  )
  members = [Member(name) for name in names]
  share.attach([member.worker for member in members])
  return share, members


def test_a_worker_that_worked_is_tried_on_another_host(directory, state):
  share, (actor,) = make(directory, Engine(), 'actor/0')
  state.report('actor/0', counts={'env_steps': 5})
  share.poll()
  actor.code = 1
  share.on_failure(actor.worker, 'ended with exit code 1')
  assert share.leaving.anew and share.leaving.failed
  assert state.directive().stop is None


def test_a_worker_that_failed_on_several_hosts_ends_the_run(directory, state):
  share, (actor,) = make(directory, Engine(), 'actor/0')
  place = records.read_place(directory, 'actor/0').ended('failed', True)
  records.write_place(directory, place)
  state.report('actor/0', counts={'env_steps': 5})
  share.poll()
  actor.code = 1
  share.on_failure(actor.worker, 'ended with exit code 1')
  assert share.leaving is None
  assert state.directive().stop == status_lib.StopReason.FAILED


def test_a_worker_that_never_worked_ends_the_run(directory, state):
  share, (actor,) = make(directory, Engine(), 'actor/0')
  state.report('actor/0')
  share.poll()
  actor.code = 1
  share.on_failure(actor.worker, 'ended with exit code 1')
  assert share.leaving is None
  assert state.directive().stop == status_lib.StopReason.FAILED


def test_it_is_the_host_where_others_of_its_kind_work(directory, state):
  share, (actor,) = make(directory, Engine(), 'actor/0')
  state.report('actor/1', counts={'env_steps': 5})
  share.poll()
  actor.code = 1
  share.on_failure(actor.worker, 'ended with exit code 1')
  assert share.leaving.anew
  assert state.directive().stop is None


def test_a_share_that_leaves_ends_its_workers_and_not_the_run(directory, state):
  share, (variables, actor) = make(
    directory, Engine(), 'variables/0', 'actor/0'
  )
  share.leave('its time was up', anew=True)
  share.poll()
  share.poll()
  assert variables.calls == ['kill']  # asked to end it would end the run
  assert actor.calls == ['terminate']
  assert share.stopping()
  assert state.directive().stop is None


def test_a_share_hears_of_its_own_workers_only(directory, state):
  share, _ = make(directory, Engine(), 'actor/0')
  state.report('actor/0')
  state.report('actor/1')
  share.poll()
  assert list(share._status.workers) == ['actor/0']


def test_a_share_that_was_started_anew_elsewhere_ends_at_once(directory, state):
  share, (actor,) = make(directory, Engine(), 'actor/0')
  share.poll()
  assert not share.stopping()
  there = records.Place('actor/0', '4', 'node9', time.time() - 100)
  records.write_place(directory, there)  # its clock is late
  share.leave_if_replaced()
  assert actor.calls == ['kill']
  assert share.is_replaced and not share.leaving.anew
  assert 'node9' in share.leaving.how


def test_a_stop_of_the_run_reaches_a_share(directory, state):
  share, _ = make(directory, Engine(), 'actor/0')
  state.request_stop(status_lib.StopReason.INTERRUPTED)
  share.poll()
  assert share.stopping()
  assert share.leaving is None


def test_a_summary_of_an_earlier_start_ends_nothing(directory):
  share, _ = make(directory, Engine(), 'actor/0')
  stop = status_lib.Stop(status_lib.StopReason.SOLVED)
  directory.write_summary(status_lib.Status(1.0, {}, stop=stop))
  share.poll()
  assert share.stopping()  # the control: one of this start does
  submission = records.read_submission(directory)
  later = records.Submission(submission.jobs, time.time() + 60)
  records.write_submission(directory, later)
  share, _ = make(directory, Engine(), 'actor/0')
  share.poll()
  assert not share.stopping()


@pytest.mark.parametrize(
  'state', [JobState.WAITING, JobState.RUNNING, JobState.UNKNOWN]
)
def test_a_silent_server_is_waited_for_while_its_job_is_there(directory, state):
  engine = Engine()
  engine.states['1'] = state
  share, _ = make(directory, engine, 'actor/0')
  share._look(time.monotonic() + 1000)
  assert not share.stopping()


def test_a_silent_server_whose_job_is_gone_ends_the_other_jobs(directory):
  engine = Engine()
  engine.states['1'] = JobState.GONE
  share, _ = make(directory, engine, 'actor/0')
  share._look(time.monotonic() + 1000)
  assert share.stopping() and not share.leaving.anew
  assert 'variables/0 is gone' in share.leaving.how


def test_the_run_ends_once_a_needed_job_is_gone(directory, state):
  engine = Engine()
  engine.states['4'] = JobState.GONE  # an actor's
  share, _ = make(directory, engine, 'variables/0')
  share._look(time.monotonic())
  assert state.directive().stop is None
  engine.states['2'] = JobState.GONE
  share._look(time.monotonic())
  assert state.directive().stop == status_lib.StopReason.FAILED
  assert 'the job 2 of replay/0 is gone' in state.status().stop.detail

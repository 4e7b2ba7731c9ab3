"""Clients of a server that was restarted say how often they tried."""

import re
import threading

import numpy as np
import pytest

from distacme.variables import client


@pytest.fixture(name='server')
def fixture_server(start_process):
  """A server's endpoint, and a function that restarts it after another."""
  process, endpoint = start_process()

  def restart(meanwhile):
    process.kill()
    process.wait()
    meanwhile()
    start_process(endpoint.port)

  return endpoint, restart


def tries_of(caplog, pattern):
  """Returns the number in the one message that `pattern` describes."""
  found = [re.fullmatch(pattern, message) for message in caplog.messages]
  (match,) = (match for match in found if match)
  return int(match[1])


def test_a_reporter_says_how_many_reports_were_not_answered(
  server, wait_until, caplog
):
  endpoint, restart = server
  actor = client.VariableClient(endpoint, 'actor/0')
  reporter = actor.reporter(period_s=0.01)
  reporter.report({'env_steps': 1})
  assert reporter.flush()
  restart(lambda: wait_until(lambda: reporter._unanswered >= 3))
  wait_until(lambda: 'answers again' in caplog.text)
  actor.close()
  pattern = (
    f'The variable server at {endpoint.address} answers again, after (\\d+)'
    ' reports of actor/0 that it did not\\.'
  )
  assert tries_of(caplog, pattern) >= 3


def test_a_publisher_says_how_often_it_tried(server, caplog):
  endpoint, restart = server
  learner = client.VariableClient(endpoint, 'learner/0')
  assert learner.publish(1, {'w': np.zeros(3)})
  tried = []
  send = threading.Thread(
    target=lambda: tried.append(learner.publish(2, {'w': np.zeros(3)}))
  )
  restart(send.start)
  send.join(30)
  assert tried == [True]
  learner.close()
  pattern = f'Params were published to {endpoint.address} after (\\d+) tries\\.'
  assert tries_of(caplog, pattern) >= 2


def test_a_publisher_that_gives_up_says_how_often_it_tried(start_process):
  process, endpoint = start_process()
  learner = client.VariableClient(endpoint, 'learner/0')
  process.kill()
  process.wait()
  message = f'{endpoint.address} did not answer.* were to be sent in 0.5 s, and that was try \\d'
  with pytest.raises(ConnectionError, match=message):
    learner.publish(1, {'w': np.zeros(3)}, timeout_s=0.5)
  learner.close()


def test_a_subscriber_says_how_often_the_stream_was_opened_in_vain(
  server, wait_until, caplog
):
  endpoint, restart = server
  learner = client.VariableClient(endpoint, 'learner/0')
  actor = client.VariableClient(endpoint, 'actor/0')
  learner.reporter(period_s=0.01)  # which learns that params are missing
  actor.subscribe()
  assert learner.publish(1, {'w': np.zeros(3)})
  assert actor.wait_newer(-1, 10).version == 1
  restart(lambda: wait_until(lambda: actor._subscriber.broken >= 3))
  assert learner.publish(2, {'w': np.zeros(3)})
  assert actor.wait_newer(1, 10).version == 2
  wait_until(lambda: 'Params come to' in caplog.text)
  actor.close()
  learner.close()
  assert (
    caplog.text.count(f'from {endpoint.address} broke and is opened again: ')
    == 1
  )
  pattern = (
    f'Params come to actor/0 again, from {endpoint.address}, after (\\d+) streams that '
    'broke or were not opened\\.'
  )
  assert tries_of(caplog, pattern) >= 3

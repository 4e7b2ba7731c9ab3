"""Where services listen, as written into a run's directory and read back."""

import json

import pytest

from distacme.run import endpoints

ENDPOINT = endpoints.Endpoint('127.0.0.1', 80)


def test_an_endpoint_is_found_by_the_name_of_its_worker(tmp_path):
  folder = tmp_path / 'endpoints'
  key = tmp_path / 'key.pem'
  first = endpoints.Endpoint('127.0.0.1', 1234, key, incarnation=2)
  second = endpoints.Endpoint('::1', 5678)
  endpoints.write(folder, 'variables/0', first)
  endpoints.write(folder, 'replay/0', second)
  assert endpoints.find(folder, 'variables/0') == first
  assert endpoints.find(folder, 'replay/0') == second
  assert endpoints.find(folder, 'replay/1') is None


def test_an_endpoint_leads_to_no_secret_of_another_run(tmp_path):
  folder, victim = tmp_path / 'run' / 'endpoints', tmp_path / 'victim'
  folder.mkdir(parents=True)
  value = {'host': '127.0.0.1', 'port': 80, 'incarnation': 0}
  value |= {'key': str(victim / 'key.pem'), 'token': '../../victim/token'}
  (folder / 'replay-0.json').write_text(json.dumps(value))
  found = endpoints.find(folder, 'replay/0')
  assert found.key == tmp_path / 'run' / 'key.pem'
  assert found.token == tmp_path / 'run' / 'token'


def test_an_address_is_what_grpc_takes():
  assert endpoints.Endpoint('127.0.0.1', 80).address == '127.0.0.1:80'
  assert endpoints.Endpoint('::1', 80).address == '[::1]:80'


def test_a_damaged_endpoint_is_none(tmp_path):
  endpoints.write(tmp_path, 'replay/0', endpoints.Endpoint('127.0.0.1', 80))
  (tmp_path / 'replay-0.json').write_text('{"host": 1')
  assert endpoints.find(tmp_path, 'replay/0') is None


def test_a_service_is_waited_for_and_named(tmp_path, caplog):
  asked = []

  def stopped():
    asked.append(None)
    if len(asked) == 2:  # it has been waited for, and a warning said for whom
      endpoints.write(tmp_path, 'replay/0', ENDPOINT)
    return False

  found = endpoints.wait(tmp_path, 'replay/0', stopped, explain_after_s=0.0)
  assert found == ENDPOINT
  assert 'waiting for replay/0, which has not said in' in caplog.text


def test_nobody_waits_for_a_service_of_a_run_that_stops(tmp_path):
  assert endpoints.wait(tmp_path, 'replay/0', lambda: True) is None


def test_a_service_that_does_not_come_is_named(tmp_path):
  with pytest.raises(
    TimeoutError, match='replay/0 has not said in .*0 s. Is its'
  ):
    endpoints.wait(tmp_path, 'replay/0', timeout_s=0.0)


@pytest.mark.parametrize(
  ('host', 'loopback'),
  [
    ('127.0.0.1', True),
    ('::1', True),
    ('localhost', True),
    ('10.0.0.1', False),
  ],
)
def test_loopback_is_for_this_host_alone(host, loopback):
  assert endpoints.Endpoint(host, 80).loopback == loopback


def test_a_key_is_for_those_who_can_read_it(tmp_path):
  assert ENDPOINT.allowed
  assert not ENDPOINT._replace(key=tmp_path / 'key.pem').allowed
  (tmp_path / 'key.pem').touch()
  assert ENDPOINT._replace(key=tmp_path / 'key.pem').allowed

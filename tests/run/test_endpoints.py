"""Where services listen, as written into a run's directory and read back."""

import pathlib

from distacme.run import endpoints


def test_an_endpoint_is_found_by_the_name_of_its_worker(tmp_path):
  folder = tmp_path / 'endpoints'
  key = pathlib.Path('run', 'key.pem')
  first = endpoints.Endpoint('127.0.0.1', 1234, key, incarnation=2)
  second = endpoints.Endpoint('::1', 5678)
  endpoints.write(folder, 'variables/0', first)
  endpoints.write(folder, 'replay/0', second)
  assert endpoints.find(folder, 'variables/0') == first
  assert endpoints.find(folder, 'replay/0') == second
  assert endpoints.find(folder, 'replay/1') is None


def test_an_address_is_what_grpc_takes():
  assert endpoints.Endpoint('127.0.0.1', 80).address == '127.0.0.1:80'
  assert endpoints.Endpoint('::1', 80).address == '[::1]:80'


def test_a_damaged_endpoint_is_none(tmp_path):
  endpoints.write(tmp_path, 'replay/0', endpoints.Endpoint('127.0.0.1', 80))
  (tmp_path / 'replay-0.json').write_text('{"host": 1')
  assert endpoints.find(tmp_path, 'replay/0') is None

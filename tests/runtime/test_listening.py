"""Where sockets listen, as the kernel says."""

import socket
import sys

import pytest

from distacme.runtime import listening

pytestmark = pytest.mark.skipif(
  sys.platform != 'linux', reason='Only Linux has the tables that are read.'
)


def listen(family, host):
  """Returns a socket that listens there, on any port."""
  one = socket.socket(family)
  if family == socket.AF_INET6:
    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
  one.bind((host, 0))
  one.listen()
  return one


@pytest.mark.parametrize(
  ('family', 'host', 'address', 'loopback'),
  [
    (socket.AF_INET, '127.0.0.1', '127.0.0.1', True),
    (socket.AF_INET, '127.0.0.2', '127.0.0.2', True),
    (socket.AF_INET, '0.0.0.0', '0.0.0.0', False),
    (socket.AF_INET6, '::1', '::1', True),
    (socket.AF_INET6, '::ffff:127.0.0.1', '127.0.0.1', True),
    (socket.AF_INET6, '::', '::', False),
  ],
)
def test_an_address_is_what_was_bound_and_loopback_or_not(
  family, host, address, loopback
):
  with listen(family, host) as one:
    port = one.getsockname()[1]
    assert [str(found) for found in listening.addresses(port)] == [address]
    assert bool(listening.beyond_loopback(port)) != loopback
  assert not listening.addresses(port)


def test_a_socket_that_is_bound_or_connected_does_not_listen():
  with socket.socket() as bound:
    bound.bind(('127.0.0.1', 0))
    assert not listening.addresses(bound.getsockname()[1])
  with listen(socket.AF_INET, '127.0.0.1') as one:
    with socket.create_connection(one.getsockname()) as connected:
      assert not listening.addresses(connected.getsockname()[1])

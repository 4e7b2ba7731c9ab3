"""What nobody sends who speaks the protocol, for every port of a run."""

import socket

import numpy as np

_PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
KINDS = {
  'nothing': b'',
  'zeros': bytes(100_000),
  'noise': np.random.default_rng(0).bytes(100_000),
  'http': b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n',
  'tls': bytes.fromhex('16030100c8010000c40303') + bytes(200),
  'pickle': b'\x80\x04\x95' + bytes(100),
  'half a preface': _PREFACE[:10],
  # A frame of 16 MB that never comes, of settings and of data.
  'a large frame': _PREFACE + b'\xff\xff\xff\x04\x00\x00\x00\x00\x00',
  'data first': _PREFACE + b'\x00\x00\x05\x00\x00\x00\x00\x00\x01aaaaa',
  'noise after it': _PREFACE + np.random.default_rng(1).bytes(100_000),
}


def send(address, data):
  """Sends bytes to a port and returns when the other side has hung up."""
  host, _, port = address.rpartition(':')
  with socket.create_connection((host, int(port)), timeout=20) as connection:
    try:
      connection.sendall(data)
      connection.shutdown(socket.SHUT_WR)
      while connection.recv(1 << 16):
        pass
    except TimeoutError:
      raise
    except OSError:
      pass  # It hung up before it had read everything.

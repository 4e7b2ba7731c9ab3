"""Asks the kernel for the addresses on which sockets of this host listen."""

from __future__ import annotations

import ipaddress
import pathlib
import socket
import struct
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_LISTENS = '0A'  # in the tables below


def addresses(port: int) -> list[Address]:
  """Returns the addresses on which a socket listens on a TCP port.

  Sees sockets of this process's network namespace only. Returns [] if no socket
  listens, or the kernel is not Linux.
  """
  found = []
  for table in ('tcp', 'tcp6'):
    try:
      lines = pathlib.Path('/proc/self/net', table).read_text().splitlines()
    except OSError:  # no Linux, or no IPv6
      continue
    for line in lines[1:]:
      _, local, _, state, *_ = line.split()
      address, _, local_port = local.partition(':')
      if state == _LISTENS and int(local_port, 16) == port:
        found.append(_parse(address))
  return found


def free_port() -> int:
  """Returns a free port of loopback, which another process may take later."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port: int = probe.getsockname()[1]
  return port


def beyond_loopback(port: int) -> list[Address]:
  """Returns the `addresses` of a port that other hosts may reach."""
  return [address for address in addresses(port) if not address.is_loopback]


def _parse(digits: str) -> Address:
  """Reads an address of the kernel, hexadecimal in the machine's byte order."""
  words = [int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)]
  address = ipaddress.ip_address(struct.pack(f'={len(words)}I', *words))
  # An IPv4 address of a socket of both IPv4 and IPv6 is mapped.
  return getattr(address, 'ipv4_mapped', None) or address

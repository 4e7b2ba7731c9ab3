"""Who can reach a program's services, said where it is more than this host."""

from __future__ import annotations

from collections.abc import Mapping

from distacme.programs.view import terminal
from distacme.runtime import listening


class Doors:
  """Looks once at each service of a program, as soon as it listens."""

  def __init__(self, services: Mapping[str, str]):
    """Takes the addresses of services by name; nothing need listen yet."""
    self._unseen = {
      name: int(address.rpartition(':')[2])
      for name, address in services.items()
    }

  def look(self) -> None:
    """Prints a line for each service that listens beyond loopback."""
    for name, port in list(self._unseen.items()):
      if not listening.addresses(port):
        continue
      del self._unseen[name]
      beyond = listening.beyond_loopback(port)
      if beyond:
        terminal.say(
          f'{name} listens on {", ".join(map(str, beyond))}, port {port}: other'
          ' hosts can reach it, and it asks nobody who they are. Close the port'
          " with a firewall, or see 'distacme doctor' for how to keep it to this"
          ' host.'
        )

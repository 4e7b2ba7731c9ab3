"""Warns of a program's services that other hosts can reach."""

from __future__ import annotations

from distacme.programs.view import terminal
from distacme.run import endpoints
from distacme.run import run_directory
from distacme.runtime import listening


class OpenPorts:
  """Looks once at each service of a program, as soon as the service listens."""

  def __init__(self, directory: run_directory.RunDirectory):
    """Takes the directory of a program whose services need not listen yet."""
    self._seen: set[str] = set()
    self._folder = directory.endpoints

  def look(self) -> None:
    """Prints a line for each service that any host can use without a key."""
    for name, endpoint in sorted(endpoints.every(self._folder).items()):
      if name in self._seen or not listening.addresses(endpoint.port):
        continue
      self._seen.add(name)
      beyond = listening.beyond_loopback(endpoint.port)
      if beyond and endpoint.key is None:
        terminal.say(
          f'{name} listens on {", ".join(map(str, beyond))}, port '
          f'{endpoint.port}: other hosts can reach it, and it asks nobody who '
          "they are. Close the port with a firewall, or see 'distacme doctor' "
          'for how to keep it to this host.'
        )

"""The Reverb server of a program's replay.

An item is one packed row (or a block of them) in a single column and a single
chunk, because Reverb's cost is per item, column and chunk touched. The frames of
stacked observations are in columns of their own, so that items share them; items
of several tables share both.
"""

from __future__ import annotations

import pathlib
import socket
import sys
from typing import Any

from distacme import replay_spec
from distacme.replay import checkpoints
from distacme.replay import table_metrics
from distacme.replay.reverb import connection
from distacme.replay.reverb import extension
from distacme.replay.reverb import loopback
from distacme.run import files

_SAVING_S = 60  # for an answer while the tables may be being saved

# Samples per insert that no run reaches, for a limit of inserts alone.
_NEVER = 1e15


class ReplayServer:
  """A Reverb server with the tables that a `ReplaySpec` asks for.

  It starts with what the newest checkpoint in `directory` holds.
  """

  def __init__(
    self,
    spec: replay_spec.ReplaySpec,
    port: int,
    directory: pathlib.Path | None = None,
  ):
    """Starts the server.

    It listens on loopback if `loopback` can confine it there, else on all
    interfaces.

    Args:
      spec: of the tables.
      port: to listen on.
      directory: of checkpoints; None for tables that are not saved.

    Raises:
      OSError: if the port is taken.
    """
    _check_free(port)
    self._spec = spec
    self._port = port
    self._checkpoints: checkpoints.Checkpoints | None = None
    if directory is None:
      self._server = self._start(None)
    else:
      self._checkpoints = checkpoints.Checkpoints(directory, 'reverb', spec)
      self._server = self._checkpoints.restore(self._start)
      self._server = self._server or self._start(None)
    # Restored tables are not those that the server was given.
    self._client = connection.connect(f'127.0.0.1:{port}', timeout_s=_SAVING_S)

  def _start(self, checkpoint: pathlib.Path | None) -> Any:
    """Returns a running server; raises RuntimeError if it cannot restore."""
    reverb = extension.load()
    loopback.confine(extension.library())
    checkpointer = None
    if self._checkpoints is not None:
      # It looks for a checkpoint where it writes, in vain, and then here.
      checkpointer = reverb.create_default_checkpointer(
        str(self._checkpoints.unfinished), '', checkpoint and str(checkpoint)
      )
    tables = [
      _make_table(table, self._spec.batch_size) for table in self._spec.tables
    ]
    return reverb.Server(tables, self._port, checkpointer)

  def metrics(self) -> dict[str, float]:
    """Returns size, inserts and samples so far, and the ratio reached."""
    infos = self._client.ServerInfo(_SAVING_S)
    by_name = {s.name: s for s in map(extension.table_stats, infos)}
    block = self._spec.block_size
    counts = []
    for table in self._spec.tables:
      stats = by_name[table.name]
      held = (stats.size, stats.inserted, stats.sampled)
      counts.append(table_metrics.Counts(*(items * block for items in held)))
    return table_metrics.of_tables(self._spec, counts)

  def save(self) -> pathlib.Path:
    """Writes a checkpoint and returns its path; from any one thread.

    It takes some 25 us for a transition; for 3 of them inserts and samples wait.
    """
    assert self._checkpoints is not None
    directory = self._checkpoints.unfinished.parent
    try:
      with files.writing_to(directory, RuntimeError):  # Reverb's
        return self._checkpoints.add(pathlib.Path(self._client.Checkpoint()))
    except Exception:
      self._checkpoints.clear_unfinished()
      raise

  def stop(self) -> None:
    """Ends the server; waits some seconds for clients that are still there."""
    self._server.Stop()


def _check_free(port: int) -> None:
  """Raises OSError if the port is taken.

  Asked first, or a checkpoint would be blamed. Reverb does not refuse the port of
  another Reverb: each would get half of the clients.
  """
  with socket.socket() as probe:
    # Connections that an earlier server left closing do not count.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      probe.bind(('127.0.0.1', port))
    except OSError as error:
      raise OSError(
        f'the replay server cannot listen on 127.0.0.1:{port}: {error}. End what '
        f'listens there (ss -ltnp sport = :{port} says who), or start the run '
        'anew, which chooses other ports.'
      ) from None


def _make_table(spec: replay_spec.Table, batch_size: int) -> Any:
  reverb = extension.load()
  sampler = reverb.UniformSelector()
  if spec.used_once:
    sampler = reverb.FifoSelector()
  elif spec.prioritized:
    sampler = reverb.PrioritizedSelector(spec.priority_exponent)
  return reverb.Table(
    name=spec.name,
    sampler=sampler,
    remover=reverb.FifoSelector(),
    max_size=spec.max_items,
    # 0: as often as it is drawn.
    max_times_sampled=1 if spec.used_once else 0,
    rate_limiter=_make_rate_limiter(spec, batch_size),
    extensions=[],
    signature=None,
  )


def _make_rate_limiter(spec: replay_spec.Table, batch_size: int) -> Any:
  """Returns Reverb's limiter, which counts items, and balances in items."""
  limits, block = spec.rate_limits(batch_size), spec.block_size
  ratio = limits.samples_per_insert
  unlimited = sys.float_info.max  # Reverb knows no infinity
  most = min(limits.max_balance / block, unlimited)
  if not spec.evicts:
    # Inserters refuse what does not fit; a second one that knew of less waits.
    ratio, most = _NEVER, _NEVER * spec.max_items
  return extension.load().RateLimiter(
    ratio,
    limits.min_size // block,
    max(limits.min_balance / block, -unlimited),
    most,
  )

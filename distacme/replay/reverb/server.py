"""Replay in a Reverb server: the server, an actor's way in, a learner's way out.

An item is one packed row (or a block of them) in a single column and a single
chunk, because Reverb's cost is per item, column and chunk touched. The frames of
stacked observations are in columns of their own, so that items share them.
"""

from __future__ import annotations

import pathlib
import socket
from typing import Any

from distacme import replay_spec
from distacme.replay import checkpoints
from distacme.replay.reverb import connection
from distacme.replay.reverb import extension
from distacme.replay.reverb import loopback
from distacme.run import files

_SAVING_S = 60  # the same, while the table may be being saved


class ReplayServer:
  """A Reverb server with the table that a `ReplaySpec` asks for.

  It starts with what the newest checkpoint in `directory` holds.
  """

  def __init__(
    self,
    spec: replay_spec.ReplaySpec,
    port: int,
    directory: pathlib.Path | None = None,
  ):
    """Starts the server.

    It listens on loopback if `reverb.loopback` can make it, else on all
    interfaces.

    Args:
      spec: of the table.
      port: to listen on.
      directory: of checkpoints; None for a table that is not saved.

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
    # A restored table is not the one that the server was given.
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
    table = _make_table(self._spec)
    return reverb.Server([table], self._port, checkpointer)

  def metrics(self) -> dict[str, float]:
    """Returns size, inserts and samples so far, and the ratio reached."""
    (info,) = self._client.ServerInfo(_SAVING_S)
    stats = extension.table_stats(info)
    block = self._spec.block_size
    return replay_spec.table_metrics(
      self._spec.rate_limits,
      stats.size * block,
      stats.inserted * block,
      stats.sampled * block,
    )

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
  """Raises OSError if somebody listens on the port.

  Before a checkpoint is loaded, which Reverb would be found unable to. Nor does it
  refuse the port of another Reverb: each would get half of the clients.
  """
  with socket.socket() as probe:
    # What a server before this one left in closing does not count.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      probe.bind(('127.0.0.1', port))
    except OSError as error:
      raise OSError(
        f'the replay server cannot listen on 127.0.0.1:{port}: {error}. End what '
        f'listens there (ss -ltnp sport = :{port} says who), or start the run '
        'anew, which chooses other ports.'
      ) from None


def _make_table(spec: replay_spec.ReplaySpec) -> Any:
  reverb = extension.load()
  limits, block = spec.rate_limits, spec.block_size
  sampler = reverb.UniformSelector()
  if spec.used_once:
    sampler = reverb.FifoSelector()
  elif spec.prioritized:
    sampler = reverb.PrioritizedSelector(spec.priority_exponent)
  return reverb.Table(
    name=connection.TABLE,
    sampler=sampler,
    remover=reverb.FifoSelector(),
    max_size=spec.max_items,
    # 0: as often as it is drawn.
    max_times_sampled=1 if spec.used_once else 0,
    # Reverb counts items, and its limits are balances in items.
    rate_limiter=reverb.RateLimiter(
      limits.samples_per_insert,
      limits.min_size // block,
      limits.min_balance / block,
      limits.max_balance / block,
    ),
    extensions=[],
    signature=None,
  )

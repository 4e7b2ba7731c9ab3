"""The key of a run, for workers on several hosts: TLS that both sides check.

A process that has the file belongs to the run. The file holds a private key and its
certificate. Every server and every client of the run shows this certificate, and
trusts no other. So there is no authority, no list of hosts and nothing to revoke: the
key is made for one run and is worth nothing after the run.
"""

from __future__ import annotations

import datetime
import importlib
import os
import pathlib

import grpc

FILE = 'key.pem'  # in the run directory
# The name in the certificate, on every host: a certificate tells the holder's run, not
# the holder's host.
NAME = 'distacme'
_DAYS = 365  # more than any run lasts
_CLOCK_DAYS = 1  # by which the clocks of hosts may differ


def check_installed() -> None:
  """Refuses to make keys without the library that makes them.

  Raises:
    ImportError: if it is not installed.
  """
  try:
    importlib.import_module('cryptography.x509')
  except ImportError as error:
    raise ImportError(
      f'making the key of a run needs cryptography ({error}). Install '
      "'distacme[launch]'."
    ) from error


def make(run_dir: pathlib.Path) -> pathlib.Path:
  """Makes a new key in `run_dir`, which replaces an older key.

  Returns:
    The key's file, which only this user may read.

  Raises:
    ImportError: if the library that makes keys is not installed.
  """
  check_installed()
  from cryptography import x509
  from cryptography.hazmat.primitives import hashes
  from cryptography.hazmat.primitives import serialization
  from cryptography.hazmat.primitives.asymmetric import ec
  from cryptography.x509 import oid

  key = ec.generate_private_key(ec.SECP256R1())
  subject = x509.Name([x509.NameAttribute(oid.NameOID.COMMON_NAME, NAME)])
  now = datetime.datetime.now(datetime.timezone.utc)
  certificate = (
    x509.CertificateBuilder()
    .subject_name(subject)
    .issuer_name(subject)
    .public_key(key.public_key())
    .serial_number(x509.random_serial_number())
    .not_valid_before(now - datetime.timedelta(days=_CLOCK_DAYS))
    .not_valid_after(now + datetime.timedelta(days=_DAYS))
    .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), False)
    # The certificate is its own authority, and signs no other one.
    .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    .sign(key, hashes.SHA256())
  )
  encoding = serialization.Encoding.PEM
  data = key.private_bytes(
    encoding,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
  ) + certificate.public_bytes(encoding)
  path = run_dir / FILE
  path.unlink(missing_ok=True)
  # Other users must not be able to read the file, even while it is written.
  with os.fdopen(
    os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), 'wb'
  ) as file:
    file.write(data)
  return path


def server_credentials(path: pathlib.Path) -> grpc.ServerCredentials:
  """Returns a server's credentials; only clients with the key can connect.

  Raises:
    ValueError: if `path` is no key, or other users can read the file.
  """
  key, certificate = _read(path)
  return grpc.ssl_server_credentials(
    [(key, certificate)], certificate, require_client_auth=True
  )


def channel_credentials(path: pathlib.Path) -> grpc.ChannelCredentials:
  """Returns a client's credentials; it connects only to servers with the key.

  Raises:
    ValueError: if `path` is no key, or other users can read the file.
  """
  key, certificate = _read(path)
  return grpc.ssl_channel_credentials(certificate, key, certificate)


def _read(path: pathlib.Path) -> tuple[bytes, bytes]:
  """Returns private key and certificate."""
  mode = path.stat().st_mode & 0o777
  if mode & 0o077:
    raise ValueError(
      f'{path} can be read by others (mode {mode:o}), who could then take part '
      f'in the run. Run: chmod 600 {path}'
    )
  data = path.read_bytes()
  key, begin, rest = data.partition(b'-----BEGIN CERTIFICATE-----')
  if not begin or b'PRIVATE KEY-----' not in key:
    raise ValueError(
      f'{path} is no key of a run, which is a private key and a certificate. '
      'Copy the one that the run made.'
    )
  return key, begin + rest

"""Where the door may listen: anybody on the network can read what goes over it without TLS."""

from __future__ import annotations

import ipaddress
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import UsageError


@dataclass(frozen=True)
class Safety:
    """What decides how open a door stands."""

    tls_certificate: str = ""
    """PEM file with the certificate and its chain; "" for plain HTTP."""
    tls_key: str = ""
    """PEM file with the key; "" when the certificate's file has it."""
    remote_asked: bool = False
    """Said on the command line: listen beyond this machine, also without TLS."""
    remote_allowed: bool = False
    """Said in the settings: the same."""
    unsigned_over_http: bool = False
    """Take bodies that no signature covers over plain HTTP from other machines, too."""
    presigned_v2: bool = True
    """Serve GET and HEAD by URLs that are signed with Signature Version 2."""


DEFAULT_SAFETY: Final = Safety()


def parse_listen(listen: str) -> tuple[str, int]:
    """(host, port) of `HOST:PORT`. Raises UsageError."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+):([0-9]{1,5})", listen)
    if match is None or int(match[2]) > 65535:
        raise UsageError(f"{listen!r} is not HOST:PORT.", hint="Try 127.0.0.1:8080.")
    return match[1].strip("[]"), int(match[2])


def is_loopback(host: str) -> bool:
    """Does only this machine reach it? A name other than `localhost` is not looked up, and counts as no."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, *, tls: bool, asked: bool, allowed: bool) -> None:
    """Beyond this machine without TLS only when told twice: `asked` on the command line, `allowed` in the settings.

    Raises UsageError.
    """
    if tls or is_loopback(host) or (asked and allowed):
        return
    raise UsageError(
        f"S3 does not listen on {host}: without TLS everybody on the way could read along.",
        hint="Give a certificate (--tls-certificate, --tls-key), or listen on 127.0.0.1; to do it all the same, set "
        "s3.remote_without_tls = true in config.toml and pass --remote-without-tls.",
    )


def tls_context(certificate: str, key: str) -> ssl.SSLContext | None:
    """A server's context from PEM files (`key` empty: it is in the certificate's file); None without a certificate.

    Raises UsageError.
    """
    if not certificate:
        if key:
            raise UsageError("There is a TLS key without a certificate.", hint="Set s3.tls_certificate, too.")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in filter(None, (certificate, key)):
        if not Path(path).expanduser().is_file():
            raise UsageError(f"There is no file {path}.", hint="Check s3.tls_certificate and s3.tls_key.")

    def no_question() -> str:
        raise UsageError("The TLS key is protected by a password.", hint="Give a key without one, in a private file.")

    try:
        context.load_cert_chain(
            Path(certificate).expanduser(), Path(key).expanduser() if key else None, password=no_question
        )
    except OSError as exc:
        why = exc.reason if isinstance(exc, ssl.SSLError) else exc.strerror
        raise UsageError(
            f"The certificate {certificate} and its key cannot be used: {why}.",
            hint="Both must be PEM files that belong together.",
        ) from exc
    return context

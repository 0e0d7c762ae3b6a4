"""Telling systemd how a service is doing (sd_notify(3)): one datagram, nothing when nobody listens."""

from __future__ import annotations

import os
import socket
from typing import Final

VARIABLE: Final = "NOTIFY_SOCKET"


def notify(*lines: str) -> bool:
    """Send assignments like `READY=1`, `STOPPING=1`, `STATUS=text`. False when systemd did not start us, or is gone.

    The address is a path, or `@name` in the abstract name space.
    """
    address = os.environ.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(5.0)
        try:
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
            sock.sendall("\n".join(lines).encode())
        except OSError:
            return False
    return True

"""The local sockets: how the processes of one volume and the command line talk.

Wire: a frame is a 4-byte big-endian length and that many bytes of UTF-8 JSON. A request is
`{"id": n, "method": "...", "params": {...}}`, its answer `{"id": n, "result": {...}}` or
`{"id": n, "error": {"code": "TF####", "message": "...", "hint": "..."}}`. Answers may come in any order.
Byte strings travel as hex, file names as str with surrogateescape.
"""

from __future__ import annotations

from . import wire
from .client import ControlClient, call_sync
from .server import Handler, serve

__all__ = ["ControlClient", "Handler", "call_sync", "serve", "wire"]

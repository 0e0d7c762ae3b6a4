"""Bare sockets: what no client library would send."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree


@dataclass
class Raw:
    status: int
    head: bytes
    body: bytes

    @property
    def code(self) -> str:
        """The S3 error code, "" without one."""
        if not self.body.startswith(b"<?xml"):
            return ""
        return ElementTree.fromstring(self.body).findtext("Code") or ""


def connect(address: str, timeout: float = 20.0) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=timeout)


def head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("utf-8", "surrogateescape")


def answer(connection: socket.socket) -> Raw:
    """One answer, to the end of its Content-Length and no further (another may follow); status 0 when the server hung
    up without a word."""
    start = b""
    try:
        while not start.endswith(b"\r\n\r\n") and (more := connection.recv(1)):
            start += more
        start = start.removesuffix(b"\r\n\r\n")
        found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", start)
        left = int(found[1]) if found else 0
        body = b""
        while len(body) < left and (more := connection.recv(min(65536, left - len(body)))):
            body += more
    except (ConnectionError, TimeoutError):
        return Raw(0, b"", b"")
    return Raw(int(start.split()[1]) if start.startswith(b"HTTP/") else 0, start, body)


def talk(address: str, data: bytes) -> Raw:
    """Send these bytes and read one answer."""
    with connect(address) as connection:
        with contextlib.suppress(ConnectionError):  # it may hang up early, and say why
            connection.sendall(data)
        return answer(connection)

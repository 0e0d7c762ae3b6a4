"""What a handler is given and what it gives back. No HTTP library here: `app.py` translates."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol, TypeVar

from ..clock import Clock
from ..volume.api import Namespace, RemoteRange
from .crowd import Crowd
from .keys import AccessKey, KeyStore
from .limits import UploadLimits
from .sigv4 import Identity, Request

T = TypeVar("T")

OWNER_ID: Final = "tonfs"
"""There is one tenant; S3 wants an owner's name here and there."""
MAX_OBJECT: Final = 5 << 30
"""Largest body of one PUT, as with S3."""
BLOCK: Final = 1 << 20
"""Bytes read, hashed and written at a time."""

Headers = list[tuple[str, str]]


class Slow(Protocol):
    """Runs a function that may wait for the disk in a worker thread."""

    def __call__(self, function: Callable[[], T]) -> Awaitable[T]: ...


@dataclass(frozen=True)
class Door:
    """What all requests share."""

    namespace: Namespace
    keys: KeyStore
    region: str
    clock: Clock
    fetch: Callable[[Sequence[RemoteRange]], Awaitable[None]]
    """Makes ranges local; raises TonfsError, also at its deadline."""
    slow: Slow
    commit: Callable[[], Awaitable[None]]
    """What was done before the call is durable when it returns; one commit serves all who wait."""
    limits: UploadLimits
    uid: int
    gid: int
    replicated: bool = False
    """There is an agent that keeps replicas: answers say how far it is."""
    show_state: bool = False
    """HEAD tells more about it in `x-amz-meta-tonfs-*`."""
    allow_unsigned: bool = True
    """Take bodies that no signature covers (without TLS only sensible on loopback)."""
    crowd: Crowd = field(default_factory=Crowd)
    """All bodies that are coming or going."""
    presigned_v2: bool = True
    """Serve GET and HEAD by URLs that are signed with Signature Version 2."""


class Body(Protocol):
    """The request's body as HTTP delivers it."""

    @property
    def length(self) -> int | None:
        """Content-Length; None when there is none."""
        ...

    @property
    def chunked(self) -> bool:
        """It came with Transfer-Encoding: chunked."""
        ...

    async def read(self) -> bytes:
        """The next bytes, b"" at the end. The first call tells a waiting client to go on. Raises S3Error."""
        ...

    async def fill(self, buffer: memoryview) -> int:
        """The same, into a buffer: fewer bytes than fit only at the end."""
        ...


class Call(NamedTuple):
    """One authenticated request."""

    door: Door
    request: Request
    identity: Identity
    bucket: bytes
    key: bytes
    """Raw key, b"" for requests to a bucket or the service."""
    body: Body

    @property
    def access(self) -> AccessKey:
        return self.identity.access

    def header(self, name: str) -> str | None:
        return self.request.header(name)

    def parameter(self, name: str) -> str | None:
        return self.request.parameter(name)


class Stream(Protocol):
    """An object's bytes on their way out."""

    async def next(self) -> bytes:
        """The next block, b"" at the end. An error means that the rest must not be sent."""
        ...

    def close(self) -> None:
        """Called once everything was sent, or will not be."""
        ...


@dataclass
class Answer:
    """`stream` sends `length` bytes; without it `body` is sent. A HEAD answer has `length` and no body."""

    status: int = 200
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    stream: Stream | None = None
    length: int | None = None


def xml_answer(body: bytes, status: int = 200) -> Answer:
    return Answer(status, [("Content-Type", "application/xml")], body)

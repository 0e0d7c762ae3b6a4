"""What the kernel of a mount holds back or remembers, as far as the other door must care.

With its write-back cache the kernel keeps bytes of files that are open for writing, and it remembers names,
attributes and pages that the S3 door changes. The mount fills this in; without one there is nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable

from ..ids import Inode


def _never() -> bool:
    return False


def _nothing(*_: object) -> None:
    pass


class KernelCache:
    def __init__(self) -> None:
        self.mounted = False
        self.writers: set[Inode] = set()
        """Files that are open for writing through the mount: only these can have bytes that nobody here knows."""
        self.pull: Callable[[Inode], None] = _nothing
        """What the kernel has of this file comes to the volume. Slow; returns at a deadline of a few seconds."""
        self.busy: Callable[[], bool] = _never
        """The mount has answered a request a moment ago. From any thread."""
        self.sent = False
        """Bytes came that the kernel may have held for most of a second: they are to be committed soon."""
        self.settle: Callable[[], None] = _nothing
        """Returns when the kernel has forgotten all that `on_change` told it to forget. Slow, with a deadline."""

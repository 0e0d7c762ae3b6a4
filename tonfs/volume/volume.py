"""`Volume`: the embedded namespace, all layers together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..clock import Clock
from .pins import Pins
from .recovery import recover

if TYPE_CHECKING:
    from .api import Namespace


class Volume(Pins):
    """Open a volume for this process. Raises Busy when another process has it, NotFound, Damaged.

    The caller must call `background()` every 200 to 600 ms from one thread, and `close()` in the end.
    """

    def __init__(self, directory: Path, clock: Clock | None = None) -> None:
        super().__init__(directory, clock)
        try:
            with self.lock:
                recover(self)
        except BaseException:
            self.abandon()
            raise


def _conforms(volume: Volume) -> Namespace:
    return volume

"""What uploads that nobody has completed may take of the disk and of the index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import S3Error
from ..volume.api import Namespace


class UploadLimits:
    """For one loop."""

    def __init__(self, most: int, share: float) -> None:
        """`most`: open uploads; `share`: what parts may take of the space that is free or that they have already."""
        self._most = most
        self._share = share
        self._coming = 0
        """Bytes of parts that are on their way."""

    def check_open(self, namespace: Namespace) -> None:
        """May another upload begin? Raises S3Error."""
        if namespace.open_uploads() >= self._most:
            raise S3Error(
                "InvalidRequest", 400, f"There are {self._most} uploads already that nobody completed or aborted."
            )

    @contextmanager
    def room(self, namespace: Namespace, size: int) -> Iterator[None]:
        """For a part of so many bytes while it comes. Raises S3Error(QuotaExceeded)."""
        disk = namespace.statfs()
        taken = namespace.parts_bytes()
        free = disk.available * disk.block_size
        if size and taken + self._coming + size > self._share * (taken + free):
            raise S3Error(
                "QuotaExceeded",
                403,
                "Parts of uploads that nobody completed take all of the disk that they may. Complete or abort some.",
            )
        self._coming += size
        try:
            yield
        finally:
            self._coming -= size

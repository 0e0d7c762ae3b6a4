"""What a door offers beside the protocol itself, and the house that it keeps: uploads that nobody finished."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import trio

from ..clock import Clock
from ..errors import TonfsError
from ..log import get_logger
from ..volume.api import Namespace

log = get_logger(__name__)

DAY: Final = 86400.0
ROUND: Final = 3600.0
"""Seconds between two looks at old uploads."""
ANSWERS: Final = 1 * DAY
"""How long a completed upload answers a client that lost the answer."""


@dataclass(frozen=True)
class Features:
    replicated: bool = False
    """There is an agent that keeps replicas: answers carry `x-amz-replication-status`."""
    show_state: bool = False
    """HEAD tells more about it in `x-amz-meta-tonfs-*`."""
    upload_days: float = 7.0
    """Days after which an upload that was not completed is forgotten, with its parts."""
    open_uploads: int = 10_000
    """Uploads that may be open at once."""
    parts_share: float = 0.5
    """What their parts may take of the disk: of the space that is free or that they have already."""


DEFAULT_FEATURES: Final = Features()


async def keep_house(namespace: Namespace, features: Features, clock: Clock) -> None:
    """Until cancelled."""
    while True:
        now = clock.now()
        limits = int((now - features.upload_days * DAY) * 1e9), int((now - ANSWERS) * 1e9)
        try:
            while await trio.to_thread.run_sync(namespace.expire_uploads, *limits):
                log.info("old uploads were forgotten")
        except TonfsError as exc:
            log.error("old uploads cannot be forgotten now", reason=exc.message)
        await trio.sleep(ROUND)

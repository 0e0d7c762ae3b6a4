"""When to commit: soon, but not in the middle of what a program does with many files."""

from __future__ import annotations

from typing import Final

COMMIT_INTERVAL: Final = 0.2
"""Seconds between two looks at whether something is to be committed."""
BUSY_LOOKS: Final = 3
"""Looks that a change may wait while requests come one after the other: 0.6 s. The thread that commits would take
turns with them, and a file that is made, renamed and removed meanwhile costs the index nothing."""


class CommitTiming:
    def __init__(self) -> None:
        self._waited = 0
        """Looks at which something was pending, since the last commit."""

    def due(self, pending: bool, *, busy: bool, sent: bool) -> bool:
        """At a look: commit now. `busy`: a request was answered a moment ago; `sent`: what is pending may have waited
        in the kernel already."""
        self._waited = self._waited + 1 if pending else 0
        if not pending or (busy and not sent and self._waited < BUSY_LOOKS):
            return False
        self._waited = 0
        return True

"""tonfs: a file system and sync agent on TON Storage, with an S3 door."""

from __future__ import annotations

__version__ = "0.1.0"

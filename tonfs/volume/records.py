"""S3 records as rows of the table `record`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from ..ids import Inode
from .api import S3Record

NO_VERSION: Final = 0
"""Inodes count from 1: a record of this version holds no digests."""
RECORD_COLUMNS: Final = ("version", "etag", "content_type", "metadata", "checksums", "headers", "tags", "checksum_type")


def _load(text: str) -> Mapping[str, str]:
    if text == "{}":  # most of them, and a listing reads thousands
        return {}
    value: Mapping[str, str] = json.loads(text)
    return value


def record_of(row: tuple[Any, ...], version: int) -> S3Record:
    """A row of RECORD_COLUMNS as it holds for an inode of this version."""
    current = row[0] == version
    return S3Record(
        row[1] if current else "",
        row[2],
        _load(row[3]),
        _load(row[4]) if current else {},
        _load(row[5]),
        _load(row[6]),
        row[7],
        current,
    )


def record_row(inode: Inode, version: int, record: S3Record) -> tuple[Any, ...]:
    """A row of the table: inode, then RECORD_COLUMNS."""
    texts = [
        json.dumps(dict(part), ensure_ascii=True, sort_keys=True)
        for part in (record.metadata, record.checksums, record.headers, record.tags)
    ]
    return (inode, version, record.etag, record.content_type, *texts, record.checksum_type)


def with_tags(row: tuple[Any, ...], tags: Mapping[str, str]) -> tuple[Any, ...]:
    """The row with other tags."""
    at = 1 + RECORD_COLUMNS.index("tags")
    return (*row[:at], json.dumps(dict(tags), ensure_ascii=True, sort_keys=True), *row[at + 1 :])

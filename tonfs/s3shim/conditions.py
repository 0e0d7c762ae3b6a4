"""Conditional requests and ranges (RFC 9110 sections 13 and 14, as S3 reads them). Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from typing import Final

from ..errors import S3Error

Header = Callable[[str], str | None]
"""Value of a header by lower-case name."""

_RANGE: Final = re.compile(r"bytes=([0-9]{0,4000})-([0-9]{0,4000})")


def http_date(seconds: float) -> str:
    return _formatted(int(seconds))


@lru_cache(1024)
def _formatted(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


def _parse_date(text: str | None) -> float | None:
    """UTC seconds; None for what is no date, which counts as no condition."""
    if text is None:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def etag_matches(condition: str, etag: str) -> bool:
    """Is `etag` (without quotes) in the list? Clients send tags with and without quotes."""
    for item in condition.split(","):
        tag = item.strip().removeprefix("W/").strip()
        if tag == "*" or tag.strip('"') == etag:
            return True
    return False


def failed() -> S3Error:
    return S3Error("PreconditionFailed", 412, "At least one of the pre-conditions you specified did not hold.")


CONDITIONS: Final = frozenset({"if-match", "if-unmodified-since", "if-none-match", "if-modified-since"})


def not_modified(header: Header, etag: str, modified: float) -> bool:
    """For GET and HEAD: True means 304. Raises S3Error(PreconditionFailed). `modified`: UTC seconds."""
    seconds = int(modified)
    match = header("if-match")
    if match is not None:
        if not etag_matches(match, etag):
            raise failed()
    else:
        since = _parse_date(header("if-unmodified-since"))
        if since is not None and seconds > since:
            raise failed()
    none_match = header("if-none-match")
    if none_match is not None:
        return etag_matches(none_match, etag)
    since = _parse_date(header("if-modified-since"))
    return since is not None and seconds <= since


_COPY: Final = "x-amz-copy-source-"


def check_copy_source(header: Header, etag: str, modified: float) -> None:
    """The conditions on the source of a copy. Raises S3Error(PreconditionFailed)."""
    if not_modified(lambda name: header(_COPY + name), etag, modified):
        raise failed()


def check_write(header: Header, etag: str | None) -> None:
    """If-Match and If-None-Match of a request that changes an object; `etag`: of what is there, None for nothing.

    Raises S3Error(PreconditionFailed, NoSuchKey).
    """
    match, none_match = header("if-match"), header("if-none-match")
    if match is not None:
        if etag is None:
            raise S3Error("NoSuchKey", 404, "The specified key does not exist.")
        if not etag_matches(match, etag):
            raise failed()
    if none_match is not None and etag is not None and etag_matches(none_match, etag):
        raise failed()


def same_second(text: str, modified: float) -> bool:
    """Is a time of a request (HTTP or ISO form) the second in which something was modified? Raises S3Error."""
    when = _parse_date(text)
    if when is None:
        try:
            when = datetime.fromisoformat(text.strip()).timestamp()
        except ValueError:
            raise S3Error("InvalidArgument", 400, "A time is neither in HTTP's nor in ISO's form.") from None
    return int(when) == int(modified)


def range_applies(header: Header, etag: str, modified: float) -> bool:
    """`If-Range`: is the stored part still of this object?"""
    condition = header("if-range")
    if condition is None:
        return True
    since = _parse_date(condition)
    if since is not None:
        return int(modified) == int(since)
    return etag_matches(condition, etag)


def parse_range(text: str | None, size: int) -> tuple[int, int] | None:
    """(first byte, end) of the one range asked for; None: send everything.

    A header that is malformed, reversed or lists several ranges is passed over, as RFC 9110 allows. Raises
    S3Error(InvalidRange) when no byte of the object lies in the range.
    """
    match = _RANGE.fullmatch(text.replace(" ", "")) if text is not None else None
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        first = int(match[1])
        last = int(match[2]) if match[2] else size - 1
        if match[2] and last < first:
            return None
        if first >= size:
            raise invalid_range(size)
        return first, min(last, size - 1) + 1
    suffix = int(match[2])
    if suffix == 0 or size == 0:
        raise invalid_range(size)
    return max(0, size - suffix), size


def invalid_range(size: int) -> S3Error:
    headers = (("Content-Range", f"bytes */{size}"), ("Accept-Ranges", "bytes"))
    return S3Error("InvalidRange", 416, "The requested range is not satisfiable.", headers=headers)

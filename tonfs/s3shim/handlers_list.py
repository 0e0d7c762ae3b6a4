"""ListObjectsV2 and ListObjects."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from ..errors import S3Error
from . import xml
from .door import Answer, Call, xml_answer
from .handlers_bucket import iso_date, owner
from .listing import Item, Lister
from .mapping import etag_of, find_bucket
from .uri import encode

MAX_KEYS: Final = 1000
_DIGITS: Final = re.compile(r"[0-9]{1,10}")
_TOKEN_VERSION: Final = b"1"


@dataclass(frozen=True)
class _Question:
    """What both versions ask."""

    prefix: bytes
    delimiter: bytes
    after: bytes
    max_keys: int
    url: bool
    """encoding-type=url"""

    def name(self, tag: str, value: bytes) -> str:
        """A key, prefix or delimiter as an element."""
        shown = encode(value, keep_slash=True) if self.url else value.decode("utf-8", "replace")
        return xml.text(tag, shown)

    def head(self, call: Call, count: int, truncated: bool) -> list[str]:
        out = [
            xml.text("Name", call.bucket.decode("ascii")),
            self.name("Prefix", self.prefix),
            xml.text("MaxKeys", self.max_keys),
            xml.text("IsTruncated", "true" if truncated else "false"),
        ]
        if self.delimiter:
            out.append(self.name("Delimiter", self.delimiter))
        if self.url:
            out.append(xml.text("EncodingType", "url"))
        return out


def _raw(call: Call, name: str) -> bytes:
    value = call.parameter(name)
    return (value or "").encode("utf-8", "surrogateescape")


def _question(call: Call, after: bytes) -> _Question:
    """Raises S3Error(InvalidArgument)."""
    text = call.parameter("max-keys")
    max_keys = MAX_KEYS
    if text:
        if not _DIGITS.fullmatch(text) or int(text) > 2**31 - 1:
            raise S3Error("InvalidArgument", 400, "max-keys must be a number from 0 to 2147483647.")
        max_keys = min(int(text), MAX_KEYS)
    encoding = call.parameter("encoding-type")
    if encoding not in (None, "", "url"):
        raise S3Error("InvalidArgument", 400, "Invalid Encoding Method specified in Request.")
    return _Question(_raw(call, "prefix"), _raw(call, "delimiter"), after, max_keys, encoding == "url")


async def _page(call: Call, question: _Question) -> tuple[list[Item], bool]:
    namespace = call.door.namespace
    bucket = find_bucket(namespace, call.bucket)
    if question.max_keys == 0:
        return [], False
    lister = Lister(namespace, bucket.inode, question.prefix, question.delimiter, first=question.max_keys + 1)
    return await call.door.slow(lambda: lister.page(question.after, question.max_keys))


def _contents(items: list[Item], question: _Question, with_owner: bool) -> list[str]:
    out = []
    for item in items:
        if item.attr is None:
            continue
        parts = [
            question.name("Key", item.key),
            xml.text("LastModified", iso_date(item.attr.mtime_ns)),
            f"<ETag>&quot;{etag_of(item.attr, item.record)}&quot;</ETag>",
        ]
        if item.record is not None and item.record.current:
            parts += [xml.text("ChecksumAlgorithm", name.upper()) for name in item.record.checksums]
            if item.record.checksums:
                parts.append(xml.text("ChecksumType", "FULL_OBJECT"))
        parts.append(xml.text("Size", 0 if item.attr.is_dir else item.attr.size))
        if with_owner:
            parts.append(owner())
        parts.append(xml.text("StorageClass", "STANDARD"))
        out.append(xml.element("Contents", *parts))
    return out


def _prefixes(items: list[Item], question: _Question) -> list[str]:
    return [xml.element("CommonPrefixes", question.name("Prefix", item.key)) for item in items if item.is_prefix]


def make_token(key: bytes) -> str:
    """Opaque to the client; stays good when keys are deleted."""
    return base64.urlsafe_b64encode(_TOKEN_VERSION + key).decode("ascii")


def read_token(token: str) -> bytes:
    """Raises S3Error(InvalidArgument)."""
    try:
        data = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        data = b""
    if not data.startswith(_TOKEN_VERSION):
        raise S3Error("InvalidArgument", 400, "The continuation token provided is incorrect.")
    return data[1:]


async def list_v2(call: Call) -> Answer:
    token = call.parameter("continuation-token")
    start_after = _raw(call, "start-after")
    question = _question(call, read_token(token) if token is not None else start_after)
    items, truncated = await _page(call, question)
    with_owner = call.parameter("fetch-owner") == "true"
    parts = question.head(call, len(items), truncated)
    parts.append(xml.text("KeyCount", len(items)))
    if start_after:
        parts.append(question.name("StartAfter", start_after))
    if token is not None:
        parts.append(xml.text("ContinuationToken", token))
    if truncated:
        parts.append(xml.text("NextContinuationToken", make_token(items[-1].key)))
    parts += _contents(items, question, with_owner) + _prefixes(items, question)
    return xml_answer(xml.document("ListBucketResult", *parts))


async def list_v1(call: Call) -> Answer:
    marker = _raw(call, "marker")
    question = _question(call, marker)
    items, truncated = await _page(call, question)
    parts = question.head(call, len(items), truncated)
    parts.append(question.name("Marker", marker))
    if truncated and question.delimiter:
        # Without a delimiter the last key is the next marker, and S3 leaves the element out.
        parts.append(question.name("NextMarker", items[-1].key))
    parts += _contents(items, question, with_owner=True) + _prefixes(items, question)
    return xml_answer(xml.document("ListBucketResult", *parts))

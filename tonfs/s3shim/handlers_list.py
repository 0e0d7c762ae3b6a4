"""ListObjectsV2 and ListObjects."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from ..errors import FsError, S3Error
from ..volume.api import Namespace
from . import xml
from .door import Answer, Call, xml_answer
from .found import Found
from .handlers_bucket import iso_date, owner
from .listing import Item, Lister
from .mapping import EMPTY_MD5, find_bucket, opaque_etag
from .tokens import make_token, read_token
from .uri import encode

MAX_KEYS: Final = 1000
_DIGITS: Final = re.compile(r"[0-9]{1,10}")


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

    def head(self, call: Call, truncated: bool, prefix: str | None = None) -> list[str]:
        out = [
            xml.text("Name", call.bucket.decode("ascii")),
            prefix if prefix is not None else self.name("Prefix", self.prefix),
            xml.text("MaxKeys", self.max_keys),
            xml.text("IsTruncated", "true" if truncated else "false"),
        ]
        if self.delimiter:
            out.append(self.name("Delimiter", self.delimiter))
        if self.url:
            out.append(xml.text("EncodingType", "url"))
        return out


def raw_parameter(call: Call, name: str) -> bytes:
    """Bytes of a key or a part of one."""
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
    return _Question(
        raw_parameter(call, "prefix"), raw_parameter(call, "delimiter"), after, max_keys, encoding == "url"
    )


async def _page(call: Call, question: _Question) -> tuple[list[Item], bool]:
    namespace = call.door.namespace
    bucket = find_bucket(namespace, call.bucket)
    if question.max_keys == 0:
        return [], False
    lister = Lister(namespace, bucket.inode, question.prefix, question.delimiter, first=question.max_keys + 1)

    def work() -> tuple[list[Item], bool]:
        items, truncated = lister.page(question.after, question.max_keys)
        return [_fresh(namespace, item) for item in items], truncated

    return await call.door.slow(work)


def _fresh(namespace: Namespace, item: Item) -> Item:
    """With what the kernel of a mount holds back of a file that is being written."""
    found = item.found
    if found is None or found.inode not in namespace.kernel.writers:
        return item
    namespace.kernel.pull(found.inode)
    try:
        now = Found(namespace.stored(found.inode))
    except FsError:
        return item
    attr, sums = now.attr, now.record.checksums if now.record is not None and now.record.current else {}
    return Item(
        item.key,
        found._replace(
            size=attr.size,
            mtime_ns=attr.mtime_ns,
            version=attr.version,
            etag=now.etag,
            checksums=json.dumps(dict(sums)),
        ),
    )


def _object(item: Item, question: _Question, middle: str = "") -> str:
    """What all three listings say of an object. Written without helpers: a page has a thousand of them."""
    found = item.found
    assert found is not None
    directory = found.folder == found.inode
    checks = ""
    if found.checksums != "{}":
        names = "".join(
            f"<ChecksumAlgorithm>{name.upper()}</ChecksumAlgorithm>" for name in json.loads(found.checksums)
        )
        checks = f"{names}<ChecksumType>{found.checksum_type}</ChecksumType>"
    etag = found.etag or (EMPTY_MD5 if directory else opaque_etag(found.inode, found.version, found.size))
    return (
        f"{question.name('Key', item.key)}{middle}<LastModified>{iso_date(found.mtime_ns)}</LastModified>"
        f"<ETag>&quot;{etag}&quot;</ETag>{checks}<Size>{0 if directory else found.size}</Size>"
    )


def _contents(items: list[Item], question: _Question, with_owner: bool) -> list[str]:
    tail = (owner() if with_owner else "") + "<StorageClass>STANDARD</StorageClass></Contents>"
    return [f"<Contents>{_object(item, question)}{tail}" for item in items if item.found is not None]


def _prefixes(items: list[Item], question: _Question) -> list[str]:
    return [xml.element("CommonPrefixes", question.name("Prefix", item.key)) for item in items if item.is_prefix]


async def list_v2(call: Call) -> Answer:
    token = call.parameter("continuation-token")
    start_after = raw_parameter(call, "start-after")
    question = _question(call, read_token(token) if token else start_after)
    items, truncated = await _page(call, question)
    with_owner = call.parameter("fetch-owner") == "true"
    parts = question.head(call, truncated)
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
    marker = raw_parameter(call, "marker")
    question = _question(call, marker)
    items, truncated = await _page(call, question)
    # botocore decodes every name of this version but the prefix: it comes as it is where XML can carry it.
    prefix = question.prefix.decode("utf-8", "replace")
    bare = all(char in "\t\n\r" or ord(char) >= 32 for char in prefix)
    parts = question.head(call, truncated, xml.text("Prefix", prefix) if bare else None)
    parts.append(question.name("Marker", marker))
    if truncated and question.delimiter:
        # Without a delimiter the last key is the next marker, and S3 leaves the element out.
        parts.append(question.name("NextMarker", items[-1].key))
    parts += _contents(items, question, with_owner=True) + _prefixes(items, question)
    return xml_answer(xml.document("ListBucketResult", *parts))


async def list_versions(call: Call) -> Answer:
    """Each object is its only version, `null`: buckets keep no others."""
    key_marker = raw_parameter(call, "key-marker")
    version_marker = call.parameter("version-id-marker") or ""
    if version_marker and not key_marker:
        raise S3Error("InvalidArgument", 400, "A version-id marker cannot be specified without a key marker.")
    question = _question(call, key_marker)
    items, truncated = await _page(call, question)
    parts = question.head(call, truncated)
    parts.append(question.name("KeyMarker", key_marker))
    parts.append(xml.text("VersionIdMarker", version_marker))
    if truncated and items:
        parts.append(question.name("NextKeyMarker", items[-1].key))
        parts.append(xml.text("NextVersionIdMarker", "null"))
    version = xml.text("VersionId", "null") + xml.text("IsLatest", "true")
    tail = owner() + xml.text("StorageClass", "STANDARD")
    parts += [
        xml.element("Version", _object(item, question, version), tail) for item in items if item.found is not None
    ]
    return xml_answer(xml.document("ListVersionsResult", *parts, *_prefixes(items, question)))

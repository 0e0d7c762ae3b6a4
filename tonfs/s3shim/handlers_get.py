"""GetObject, HeadObject, GetObjectAttributes: conditions, ranges, parts, bytes that may have to come first."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ..errors import FsError, S3Error, Stale
from ..volume.api import Attr, ObjectPart
from . import replica, xml
from .conditions import CONDITIONS, http_date, invalid_range, not_modified, parse_range, range_applies
from .door import Answer, Call, Door, Headers, xml_answer
from .found import MAX_TRIES, Found, hold, read
from .mapping import Key, content_type_of, parse_key
from .metadata import checksum_headers, response_headers
from .router import OVERRIDES

FIRST_BLOCK: Final = 128 << 10
SEND_BLOCK: Final = 1 << 20
MAX_PARTS: Final = 10_000
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_ATTRIBUTES: Final = frozenset({"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"})


class _Slice(NamedTuple):
    """What of the object is sent: `part` when a part was asked for, `parts` the number of parts (0: not multipart)."""

    first: int
    end: int
    partial: bool
    part: ObjectPart | None = None
    parts: int = 0


def _headers(call: Call, found: Found, key: Key, slice_: _Slice) -> Headers:
    headers: Headers = [
        ("ETag", f'"{found.etag}"'),
        ("Last-Modified", http_date(found.modified)),
        ("Accept-Ranges", "bytes"),
        ("Content-Type", content_type_of(key.parts[-1], found.attr, found.record)),
    ]
    headers += response_headers(found.record)
    record, mode = found.record, call.header("x-amz-checksum-mode")
    if mode is not None and mode.upper() == "ENABLED" and record is not None and record.current:
        if slice_.part is not None and slice_.part.checksum:
            headers += checksum_headers(dict.fromkeys(record.checksums, slice_.part.checksum), record.checksum_type)
        elif not slice_.partial:
            headers += checksum_headers(record.checksums, record.checksum_type)
    if slice_.partial:
        headers.append(("Content-Range", f"bytes {slice_.first}-{slice_.end - 1}/{found.size}"))
    if slice_.parts and call.parameter("partNumber") is not None:
        headers.append(("x-amz-mp-parts-count", str(slice_.parts)))
    headers += replica.headers(call.door, found.attr, head=call.request.method == "HEAD")
    return _overridden(call, headers)


def _overridden(call: Call, headers: Headers) -> Headers:
    if not call.request.query:
        return headers
    for word, name in OVERRIDES.items():
        value = call.parameter(word)
        if value is None:
            continue
        if not value.isprintable() or not value.isascii():
            raise S3Error("InvalidArgument", 400, f"The value of {word} cannot be a header.")
        headers = [(key, old) for key, old in headers if key != name]
        headers.append((name, value))
    return headers


async def get_object(call: Call) -> Answer:
    return await _answer(call, with_body=True)


async def head_object(call: Call) -> Answer:
    return await _answer(call, with_body=False)


async def _answer(call: Call, *, with_body: bool) -> Answer:
    key = parse_key(call.key)
    for _ in range(MAX_TRIES):
        found = await hold(call.door, call.bucket, key)
        answer = None
        try:
            answer = await _describe_and_open(call, key, found, with_body)
            return answer
        except Stale:
            continue  # written through the mount since we looked, nothing is sent yet: look again
        finally:
            if answer is None or answer.stream is None:
                call.door.namespace.drop(found.attr.inode)
    raise S3Error("SlowDown", 503, "The object is being written too quickly.")


async def _describe_and_open(call: Call, key: Key, found: Found, with_body: bool) -> Answer:
    """Raises Stale when the object is not the described one any more."""
    asked = call.request.values
    if not CONDITIONS.isdisjoint(asked) and not_modified(call.header, found.etag, found.modified):
        headers = [("ETag", f'"{found.etag}"'), ("Last-Modified", http_date(found.modified))]
        return Answer(304, headers + [pair for pair in response_headers(found.record) if pair[0] == "Cache-Control"])
    plain = "range" not in asked and not call.request.query
    slice_ = _Slice(0, found.size, False) if plain else _slice(call, found)
    headers = _headers(call, found, key, slice_)
    status = 206 if slice_.partial else 200
    first, end = slice_.first, slice_.end
    if not with_body or first == end:
        return Answer(status, headers, length=end - first)
    # The first block is read before anything is sent, so that a failure still gets a proper answer.
    block = await read(call.door, found.attr, first, min(end - first, call.door.crowd.block(FIRST_BLOCK)))
    return Answer(status, headers, stream=ObjectStream(call.door, found.attr, block, first, end), length=end - first)


def _slice(call: Call, found: Found) -> _Slice:
    """Raises S3Error(InvalidRange, InvalidPart, InvalidRequest)."""
    number = call.parameter("partNumber")
    wanted = call.header("range")
    if number is None:
        part = parse_range(wanted, found.size) if range_applies(call.header, found.etag, found.modified) else None
        return _Slice(0, found.size, False) if part is None else _Slice(*part, True)
    if wanted is not None:
        raise S3Error("InvalidRequest", 400, "Cannot specify both Range header and partNumber query parameter.")
    index = part_number(number)
    parts = [] if found.attr.is_dir else call.door.namespace.object_parts(found.attr.inode)
    if not parts:
        if index != 1:
            raise _no_part(found.size)
        return _Slice(0, found.size, found.size > 0)
    if index > len(parts):
        raise _no_part(found.size)
    chosen = parts[index - 1]
    return _Slice(chosen.offset, chosen.offset + chosen.size, chosen.size > 0, chosen, len(parts))


def _no_part(size: int) -> S3Error:
    return S3Error("InvalidPart", 400, "The requested part number is not there.", headers=invalid_range(size).headers)


def part_number(text: str | None) -> int:
    """1 to 10,000. Raises S3Error(InvalidArgument)."""
    if text is None or not _NUMBER.fullmatch(text) or not text.isascii() or not 1 <= int(text) <= MAX_PARTS:
        raise S3Error("InvalidArgument", 400, f"Part number must be an integer between 1 and {MAX_PARTS}, inclusive.")
    return int(text)


class ObjectStream:
    """The bytes of one version of one object, in blocks. `close` gives back the hold on its inode."""

    def __init__(self, door: Door, attr: Attr, block: bytes, first: int, end: int) -> None:
        self._door = door
        self._attr = attr
        self._block = block
        self._position = first
        self._end = end
        self._closed = False
        self._crowd = door.crowd
        self._crowd.enter()

    async def next(self) -> bytes:
        """The next block, b"" at the end. Raises Stale when the object was changed, S3Error when bytes are away."""
        block, self._block = self._block, b""
        if not block and self._position < self._end:
            length = min(self._end - self._position, self._crowd.block(SEND_BLOCK))
            block = await read(self._door, self._attr, self._position, length)
        self._position += len(block)
        return block

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._crowd.leave()
            self._door.namespace.drop(self._attr.inode)


# Attributes.


async def get_attributes(call: Call) -> Answer:
    wanted = {word.strip() for word in (call.header("x-amz-object-attributes") or "").split(",")} - {""}
    if not wanted or wanted - _ATTRIBUTES:
        raise S3Error("InvalidArgument", 400, "Invalid attribute name specified.")
    after = _count(call, "x-amz-part-number-marker", 0)
    limit = min(_count(call, "x-amz-max-parts", 1000), 1000)
    key = parse_key(call.key)
    found = await hold(call.door, call.bucket, key)
    try:
        check = call.header("if-match"), call.header("if-none-match")
        if check != (None, None) and not_modified(call.header, found.etag, found.modified):
            return Answer(304, [("ETag", f'"{found.etag}"')])
        parts = [] if found.attr.is_dir else call.door.namespace.object_parts(found.attr.inode)
    except FsError as exc:
        raise S3Error("SlowDown", 503, "The object is being replaced.") from exc
    finally:
        call.door.namespace.drop(found.attr.inode)
    answer = xml_answer(_attributes(found, parts, wanted, after, limit))
    answer.headers.append(("Last-Modified", http_date(found.modified)))
    return answer


def _count(call: Call, name: str, default: int) -> int:
    text = call.header(name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text) or not text.isascii():
        raise S3Error("InvalidArgument", 400, f"{name} is not a number.")
    return int(text)


def _attributes(found: Found, parts: list[ObjectPart], wanted: set[str], after: int, limit: int) -> bytes:
    out: list[str] = []
    record = found.record
    checksums = dict(record.checksums) if record is not None and record.current else {}
    if "ETag" in wanted:
        out.append(xml.text("ETag", found.etag))
    if "Checksum" in wanted and checksums and record is not None:
        inner = [xml.text(f"Checksum{name.upper()}", value) for name, value in checksums.items()]
        out.append(xml.element("Checksum", *inner, xml.text("ChecksumType", record.checksum_type)))
    if "ObjectParts" in wanted and parts:
        out.append(_part_list(parts, checksums, after, limit))
    if "StorageClass" in wanted:
        out.append(xml.text("StorageClass", "STANDARD"))
    if "ObjectSize" in wanted:
        out.append(xml.text("ObjectSize", found.size))
    return xml.document("GetObjectAttributesResponse", *out)


def _part_list(parts: list[ObjectPart], checksums: dict[str, str], after: int, limit: int) -> str:
    """Parts are numbered anew here, one by one: these are the numbers that ?partNumber takes."""
    shown = list(enumerate(parts, 1))[after:][:limit]
    last = shown[-1][0] if shown else after
    truncated = last < len(parts) and bool(shown)
    out = [
        xml.text("PartsCount", len(parts)),
        xml.text("PartNumberMarker", after),
        xml.text("NextPartNumberMarker", last if truncated else 0),
        xml.text("MaxParts", limit),
        xml.text("IsTruncated", "true" if truncated else "false"),
    ]
    for number, part in shown:
        inner = [xml.text("PartNumber", number), xml.text("Size", part.size)]
        inner += [xml.text(f"Checksum{name.upper()}", part.checksum) for name in checksums if part.checksum]
        out.append(xml.element("Part", *inner))
    return xml.element("ObjectParts", *out)

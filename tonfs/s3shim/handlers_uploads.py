"""ListMultipartUploads, ListParts, AbortMultipartUpload."""

from __future__ import annotations

import re
from typing import Final

from ..errors import FsError, S3Error
from ..volume.api import Upload
from . import xml
from .door import OWNER_ID, Answer, Call, xml_answer
from .handlers_bucket import iso_date, owner
from .handlers_list import raw_parameter
from .handlers_upload import Facts, no_upload, open_upload
from .mapping import find_bucket
from .uri import encode

MAX_ITEMS: Final = 1000
_DIGITS: Final = re.compile(r"[0-9]{1,10}")
_INITIATOR: Final = xml.element("Initiator", xml.text("ID", OWNER_ID), xml.text("DisplayName", OWNER_ID))


def _limit(call: Call, name: str) -> int:
    text = call.parameter(name)
    if not text:
        return MAX_ITEMS
    if not _DIGITS.fullmatch(text) or not text.isascii() or int(text) > 2**31 - 1:
        raise S3Error("InvalidArgument", 400, f"{name} must be a number from 0 to 2147483647.")
    return min(int(text), MAX_ITEMS)


async def abort_upload(call: Call) -> Answer:
    _, upload = open_upload(call)
    namespace = call.door.namespace

    def work() -> None:
        try:
            namespace.abort_upload(upload.id)
        except FsError as exc:
            raise no_upload() from exc
        namespace.commit()

    await call.door.slow(work)
    return Answer(204)


async def list_parts(call: Call) -> Answer:
    _, upload = open_upload(call)
    limit = _limit(call, "max-parts")
    marker = call.parameter("part-number-marker") or "0"
    if not _DIGITS.fullmatch(marker) or not marker.isascii():
        raise S3Error("InvalidArgument", 400, "part-number-marker must be a number.")
    facts = Facts.of(upload.facts)
    try:
        parts = call.door.namespace.upload_parts(upload.id, int(marker), limit + 1)
    except FsError as exc:
        raise no_upload() from exc
    truncated, parts = len(parts) > limit, parts[:limit]
    out = [
        xml.text("Bucket", call.bucket.decode()),
        xml.text("Key", call.key.decode()),
        xml.text("UploadId", upload.id),
        _INITIATOR,
        owner(),
        xml.text("StorageClass", "STANDARD"),
        xml.text("PartNumberMarker", int(marker)),
        xml.text("NextPartNumberMarker", parts[-1].number if parts else int(marker)),
        xml.text("MaxParts", limit),
        xml.text("IsTruncated", "true" if truncated else "false"),
    ]
    if facts.algorithm is not None:
        out += [xml.text("ChecksumAlgorithm", facts.algorithm.upper()), xml.text("ChecksumType", facts.kind)]
    for part in parts:
        inner = [
            xml.text("PartNumber", part.number),
            xml.text("LastModified", iso_date(part.modified_ns)),
            f"<ETag>&quot;{part.etag}&quot;</ETag>",
            xml.text("Size", part.size),
        ]
        if facts.algorithm is not None:
            inner.append(xml.text(f"Checksum{facts.algorithm.upper()}", part.checksum))
        out.append(xml.element("Part", *inner))
    return xml_answer(xml.document("ListPartsResult", *out))


async def list_uploads(call: Call) -> Answer:
    """Open uploads by key and id; with a delimiter, keys that share what is before it become one prefix."""
    namespace = call.door.namespace
    bucket = find_bucket(namespace, call.bucket)
    limit = _limit(call, "max-uploads")
    prefix, delimiter = raw_parameter(call, "prefix"), raw_parameter(call, "delimiter")
    key_marker = raw_parameter(call, "key-marker")
    id_marker = call.parameter("upload-id-marker") or ""
    encoding = call.parameter("encoding-type")
    if encoding not in (None, "", "url"):
        raise S3Error("InvalidArgument", 400, "Invalid Encoding Method specified in Request.")

    def shown(value: bytes) -> str:
        return encode(value, keep_slash=True) if encoding == "url" else value.decode("utf-8", "replace")

    uploads: list[Upload] = []
    prefixes: list[bytes] = []
    # Without an id every upload of the marked key was shown already.
    position = (key_marker, id_marker if id_marker or not key_marker else "\x7f")
    truncated = False
    while not truncated:
        page = namespace.list_uploads(bucket.inode, position, MAX_ITEMS, prefix=prefix)
        for upload in page:
            common = _common(upload.key, prefix, delimiter)
            if common is not None and (common == key_marker or common in prefixes[-1:]):
                position = (upload.key, upload.id)
                continue
            if len(uploads) + len(prefixes) >= limit:
                truncated = True
                break
            position = (upload.key, upload.id)
            if common is None:
                uploads.append(upload)
            else:
                prefixes.append(common)
        if len(page) < MAX_ITEMS:
            break
    out = [
        xml.text("Bucket", call.bucket.decode()),
        xml.text("KeyMarker", shown(key_marker)),
        xml.text("UploadIdMarker", id_marker),
        xml.text("Prefix", shown(prefix)),
        xml.text("MaxUploads", limit),
        xml.text("IsTruncated", "true" if truncated else "false"),
    ]
    if delimiter:
        out.append(xml.text("Delimiter", shown(delimiter)))
    if encoding == "url":
        out.append(xml.text("EncodingType", "url"))
    if truncated:
        out += [xml.text("NextKeyMarker", shown(position[0])), xml.text("NextUploadIdMarker", position[1])]
    for upload in uploads:
        out.append(
            xml.element(
                "Upload",
                xml.text("Key", shown(upload.key)),
                xml.text("UploadId", upload.id),
                _INITIATOR,
                owner(),
                xml.text("StorageClass", "STANDARD"),
                xml.text("Initiated", iso_date(upload.created_ns)),
            )
        )
    out += [xml.element("CommonPrefixes", xml.text("Prefix", shown(value))) for value in prefixes]
    return xml_answer(xml.document("ListMultipartUploadsResult", *out))


def _common(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    end = key.find(delimiter, len(prefix)) if delimiter else -1
    return None if end < 0 else key[: end + len(delimiter)]

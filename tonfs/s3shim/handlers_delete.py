"""DeleteObject and DeleteObjects. What is gone when they answer stays gone after a crash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from ..errors import S3Error
from ..volume.api import Attr
from . import xml
from .body import read_whole
from .conditions import etag_matches, failed, same_second
from .door import Answer, Call, xml_answer
from .found import Found
from .mapping import find_bucket, parse_key
from .router import not_implemented
from .store import Check, conditionally

MAX_OBJECTS: Final = 1000


@dataclass(frozen=True)
class Conditions:
    """What must be true of an object that is to be deleted; one that is not there may be deleted always."""

    etag: str | None = None
    modified: str | None = None
    size: str | None = None

    def check(self, found: Found | None) -> None:
        """Raises S3Error(PreconditionFailed, InvalidArgument)."""
        if found is None:
            return
        if self.etag is not None and not etag_matches(self.etag, found.etag):
            raise failed()
        if self.modified is not None and not same_second(self.modified, found.modified):
            raise failed()
        if self.size is not None and self.size.strip() != str(found.size):
            raise failed()

    def as_check(self) -> Check | None:
        return None if self == Conditions() else self.check


def _remove(call: Call, bucket: Attr, raw: bytes, conditions: Conditions) -> None:
    """Deleting what is not there is fine. Raises S3Error."""
    key = parse_key(raw)
    namespace = call.door.namespace
    conditionally(
        call,
        bucket,
        key,
        conditions.as_check(),
        lambda expect: namespace.remove_object(bucket.inode, key.parts, marker=key.marker, expect=expect),
    )


async def delete_object(call: Call) -> Answer:
    namespace = call.door.namespace
    bucket = find_bucket(namespace, call.bucket)
    for name in ("if-none-match", "if-modified-since", "if-unmodified-since"):
        if call.header(name) is not None:
            raise not_implemented(name)
    conditions = Conditions(
        call.header("if-match"), call.header("x-amz-if-match-last-modified-time"), call.header("x-amz-if-match-size")
    )

    def work() -> None:
        _remove(call, bucket, call.key, conditions)
        namespace.commit()

    await call.door.slow(work)
    return Answer(204)


async def delete_objects(call: Call) -> Answer:
    bucket = find_bucket(call.door.namespace, call.bucket)
    data = await read_whole(call, xml.MAX_BYTES)
    root = xml.parse(data, "Delete")
    quiet = (xml.only_text(root, "Quiet") or "false").strip().lower() == "true"
    objects = [child for child in root if child.tag == "Object"]
    if not 1 <= len(objects) <= MAX_OBJECTS or any(child.tag not in ("Object", "Quiet") for child in root):
        raise xml.malformed(f"Give 1 to {MAX_OBJECTS} objects.")

    # The whole question is read before the first object goes.
    wishes = [_wish(node) for node in objects]

    def work() -> list[str]:
        out = [_one(call, bucket, wish) for wish in wishes]
        call.door.namespace.commit()
        return [line for line in out if not (quiet and line.startswith("<Deleted>"))]

    return xml_answer(xml.document("DeleteResult", *await call.door.slow(work)))


@dataclass(frozen=True)
class _Wish:
    name: str
    version: str | None
    conditions: Conditions


def _wish(node: Element) -> _Wish:
    """Raises S3Error(MalformedXML)."""
    name = xml.only_text(node, "Key")
    if not name:
        raise xml.malformed("Each object needs a key.")
    conditions = Conditions(
        xml.only_text(node, "ETag"), xml.only_text(node, "LastModifiedTime"), xml.only_text(node, "Size")
    )
    return _Wish(name, xml.only_text(node, "VersionId"), conditions)


def _one(call: Call, bucket: Attr, wish: _Wish) -> str:
    version = "" if not wish.version else xml.text("VersionId", wish.version)
    try:
        if wish.version not in (None, "", "null"):
            raise S3Error("NoSuchVersion", 404, "The specified version does not exist.")
        _remove(call, bucket, wish.name.encode(), wish.conditions)
    except S3Error as exc:
        key, code, message = xml.text("Key", wish.name), xml.text("Code", exc.s3_code), xml.text("Message", exc.message)
        return xml.element("Error", key, version, code, message)
    return xml.element("Deleted", xml.text("Key", wish.name), version)

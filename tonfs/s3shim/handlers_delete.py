"""DeleteObject and DeleteObjects. What is gone when they answer stays gone after a crash."""

from __future__ import annotations

from typing import Final
from xml.etree.ElementTree import Element

from ..errors import FsError, NoSpace, S3Error, Stale
from ..volume.api import Attr, Expect
from . import xml
from .body import read_whole
from .door import Answer, Call, xml_answer
from .handlers_put import expectation, refusal
from .mapping import find_bucket, parse_key
from .router import not_implemented

MAX_OBJECTS: Final = 1000
_CONDITIONS: Final = ("ETag", "LastModifiedTime", "Size")


def _remove(call: Call, bucket: Attr, raw: bytes, expect: Expect | None = None) -> None:
    """Deleting what is not there is fine. Raises S3Error."""
    key = parse_key(raw)
    try:
        call.door.namespace.remove_object(bucket.inode, key.parts, marker=key.marker, expect=expect)
    except (FsError, NoSpace, Stale) as exc:
        raise refusal(exc) from exc


async def delete_object(call: Call) -> Answer:
    namespace = call.door.namespace
    bucket = find_bucket(namespace, call.bucket)
    expect = expectation(call, namespace, bucket, parse_key(call.key))

    def work() -> None:
        _remove(call, bucket, call.key, expect)
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
        out = [_one(call, bucket, name, refused) for name, refused in wishes]
        call.door.namespace.commit()
        return [line for line in out if not (quiet and line.startswith("<Deleted>"))]

    return xml_answer(xml.document("DeleteResult", *await call.door.slow(work)))


def _wish(node: Element) -> tuple[str, S3Error | None]:
    """(key, why it will not be done). Raises S3Error(MalformedXML)."""
    name = xml.only_text(node, "Key")
    if not name:
        raise xml.malformed("Each object needs a key.")
    if xml.only_text(node, "VersionId") not in (None, "", "null"):
        return name, not_implemented("VersionId")
    for condition in _CONDITIONS:
        if xml.only_text(node, condition) is not None:
            return name, not_implemented(condition)
    return name, None


def _one(call: Call, bucket: Attr, name: str, refused: S3Error | None) -> str:
    try:
        if refused is not None:
            raise refused
        _remove(call, bucket, name.encode())
    except S3Error as exc:
        return xml.element(
            "Error", xml.text("Key", name), xml.text("Code", exc.s3_code), xml.text("Message", exc.message)
        )
    return xml.element("Deleted", xml.text("Key", name))

"""Access control lists, as far as there are any: the owner has full control, and a bucket may be public to read.

A bucket is public when `tonfs s3 public add` made it so, or a key with the right `admin` by the canned list
`public-read` on the bucket: then anybody may list it and read what is in it. Objects have no lists of their own; a
header that asks for what holds anyway is accepted, everything else is refused.
"""

from __future__ import annotations

from typing import Final

from ..errors import S3Error, UsageError
from ..volume.api import Attr, Namespace, S3Record
from . import xml
from .door import OWNER_ID, Door

PRIVATE: Final = "private"
PUBLIC: Final = "public-read"
_OWNERS: Final = frozenset({"bucket-owner-full-control", "bucket-owner-read"})
_EVERYBODY: Final = "http://acs.amazonaws.com/groups/global/AllUsers"


def bucket_record(namespace: Namespace, bucket: Attr) -> S3Record:
    """What is kept about a bucket itself."""
    return namespace.record(bucket.inode) or S3Record(etag="")


def is_public(door: Door, bucket: bytes) -> bool:
    return door.keys.is_public(bucket.decode("latin-1"))


def set_public(door: Door, bucket: bytes, public: bool) -> None:
    """Durable when it returns. Raises S3Error when there are too many. Slow."""
    if is_public(door, bucket) == public:
        return
    try:
        door.keys.set_public(bucket.decode("latin-1"), public)
    except UsageError as exc:
        raise S3Error("TooManyBuckets", 400, exc.message) from exc


def unsupported() -> S3Error:
    return S3Error(
        "AccessControlListNotSupported", 400, "The bucket does not allow ACLs: only private and public-read buckets."
    )


def canned_for_bucket(value: str | None) -> bool | None:
    """Public or not; None when nothing was said. Raises S3Error(AccessControlListNotSupported)."""
    if value is None:
        return None
    if value not in (PRIVATE, PUBLIC):
        raise unsupported()
    return value == PUBLIC


def check_for_object(value: str | None, public: bool) -> None:
    """Raises S3Error unless the header asks for what holds anyway."""
    if value is None or value in _OWNERS:
        return
    if value != (PUBLIC if public else PRIVATE):
        raise unsupported()


def document(public: bool) -> bytes:
    names = xml.text("ID", OWNER_ID) + xml.text("DisplayName", OWNER_ID)
    kind = '<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="{}">{}</Grantee>'
    grants = [
        xml.element("Grant", kind.format("CanonicalUser", names), xml.text("Permission", "FULL_CONTROL")),
    ]
    if public:
        everybody = kind.format("Group", xml.text("URI", _EVERYBODY))
        grants.append(xml.element("Grant", everybody, xml.text("Permission", "READ")))
    return xml.document("AccessControlPolicy", xml.element("Owner", names), xml.element("AccessControlList", *grants))


def same_as_document(data: bytes, public: bool) -> bool:
    """Does a client send back what we answered, or the owner's grant alone? Raises S3Error(MalformedXML)."""
    root = xml.parse(data, "AccessControlPolicy")
    lists = [child for child in root if child.tag == "AccessControlList"]
    if len(lists) != 1:
        raise xml.malformed()
    found = set()
    for grant in lists[0]:
        grantees = [child for child in grant if child.tag == "Grantee"]
        if grant.tag != "Grant" or len(grantees) != 1:
            raise xml.malformed()
        who = xml.only_text(grantees[0], "ID") or xml.only_text(grantees[0], "URI") or ""
        found.add((who, xml.only_text(grant, "Permission") or ""))
    wanted = {(OWNER_ID, "FULL_CONTROL")} | ({(_EVERYBODY, "READ")} if public else set())
    return found == wanted

"""Tags of objects and buckets: the header `x-amz-tagging`, the XML of the tagging calls. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ..errors import S3Error
from . import xml
from .uri import parse_query

MAX_OBJECT_TAGS: Final = 10
MAX_BUCKET_TAGS: Final = 50
_MAX_KEY: Final = 128
_MAX_VALUE: Final = 256


def _invalid(detail: str) -> S3Error:
    return S3Error("InvalidTag", 400, detail)


def check(pairs: Iterable[tuple[str, str]], limit: int) -> dict[str, str]:
    """In order of key. Raises S3Error(InvalidTag)."""
    found: dict[str, str] = {}
    for key, value in pairs:
        if not 1 <= len(key) <= _MAX_KEY:
            raise _invalid("The TagKey you have provided is invalid.")
        if len(value) > _MAX_VALUE:
            raise _invalid("The TagValue you have provided is invalid.")
        if key.lower().startswith("aws:"):
            raise _invalid("Tag keys that begin with aws: are reserved.")
        if key in found:
            raise _invalid("Cannot provide multiple Tags with the same key.")
        if not (_plain(key) and _plain(value)):
            raise _invalid("A tag has control characters.")
        found[key] = value
    if len(found) > limit:
        raise _invalid(f"There can be {limit} tags at most.")
    return dict(sorted(found.items()))


def _plain(text: str) -> bool:
    return not any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000 for char in text)


def of_header(value: str | None) -> dict[str, str]:
    """`a=b&c=d` percent-encoded. Raises S3Error(InvalidArgument, InvalidTag)."""
    if not value:
        return {}
    try:
        pairs = [(key.decode("utf-8"), text.decode("utf-8")) for _, key, text in parse_query(value.replace("+", "%20"))]
    except (S3Error, UnicodeDecodeError):
        raise S3Error(
            "InvalidArgument",
            400,
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters.",
        ) from None
    return check(pairs, MAX_OBJECT_TAGS)


def parse(data: bytes, limit: int) -> dict[str, str]:
    """A `Tagging` document. Raises S3Error(MalformedXML, InvalidTag)."""
    root = xml.parse(data, "Tagging")
    if [child.tag for child in root] != ["TagSet"]:
        raise xml.malformed()
    pairs = []
    for tag in root[0]:
        key, value = xml.only_text(tag, "Key"), xml.only_text(tag, "Value")
        if tag.tag != "Tag" or key is None or value is None:
            raise xml.malformed()
        pairs.append((key, value))
    return check(pairs, limit)


def document(tags: Mapping[str, str]) -> bytes:
    inner = [xml.element("Tag", xml.text("Key", key), xml.text("Value", value)) for key, value in sorted(tags.items())]
    return xml.document("Tagging", xml.element("TagSet", *inner))

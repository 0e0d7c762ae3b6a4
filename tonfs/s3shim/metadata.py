"""What travels with an object besides its bytes: request headers -> `S3Record` -> response headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ..errors import S3Error
from ..volume.api import S3Record
from .mapping import DEFAULT_TYPE

META: Final = "x-amz-meta-"
MAX_USER_METADATA: Final = 2048
MAX_SYSTEM_HEADERS: Final = 8192

SYSTEM: Final[Mapping[str, str]] = {
    "cache-control": "Cache-Control",
    "content-disposition": "Content-Disposition",
    "content-encoding": "Content-Encoding",
    "content-language": "Content-Language",
    "expires": "Expires",
}
"""Headers kept as they are, by lower-case name."""


def user_metadata(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """`x-amz-meta-*` without the prefix, repeated ones joined. Raises S3Error(MetadataTooLarge, InvalidArgument)."""
    found: dict[str, str] = {}
    for key, value in headers:
        if key.startswith(META):
            name = key[len(META) :]
            _storable(value)
            found[name] = f"{found[name]},{value}" if name in found else value
    if sum(len(name) + len(value.encode()) for name, value in found.items()) > MAX_USER_METADATA:
        raise S3Error("MetadataTooLarge", 400, "Your metadata headers exceed the maximum allowed metadata size.")
    return found


def system_headers(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The headers of SYSTEM; `aws-chunked` is how the body travelled and is not kept."""
    found: dict[str, str] = {}
    for key, value in headers:
        if key not in SYSTEM:
            continue
        _storable(value)
        kept = value
        if key == "content-encoding":
            kept = ",".join(token for token in value.split(",") if token.strip().lower() != "aws-chunked").strip()
        if kept:
            found[key] = f"{found[key]},{kept}" if key in found else kept
    if sum(map(len, found.values())) > MAX_SYSTEM_HEADERS:
        raise S3Error("InvalidArgument", 400, "The headers to be kept with the object are too long.")
    return found


def content_type(headers: Sequence[tuple[str, str]]) -> str:
    for key, value in headers:
        if key == "content-type" and value:
            _storable(value)
            return value
    return DEFAULT_TYPE


def _storable(value: str) -> None:
    """Values come back in response headers: they must be text without control characters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise S3Error("InvalidArgument", 400, "A header to be kept with the object is not UTF-8.") from None
    if any((ord(char) < 32 and char != "\t") or ord(char) == 127 for char in value):
        raise S3Error("InvalidArgument", 400, "A header to be kept with the object has control characters.")


def response_headers(record: S3Record | None) -> list[tuple[str, str]]:
    """Kept headers, user metadata, the number of tags."""
    if record is None:
        return []
    out = [(SYSTEM[key], value) for key, value in record.headers.items() if key in SYSTEM]
    out += [(META + name, value) for name, value in record.metadata.items()]
    if record.tags:
        out.append(("x-amz-tagging-count", str(len(record.tags))))
    return out


def checksum_headers(checksums: Mapping[str, str], kind: str = "FULL_OBJECT") -> list[tuple[str, str]]:
    out = [(f"x-amz-checksum-{name}", value) for name, value in checksums.items()]
    return [*out, ("x-amz-checksum-type", kind)] if out else []

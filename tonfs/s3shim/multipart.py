"""Multipart uploads: what a CompleteMultipartUpload asks for, and what an object made of parts looks like. Pure."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from ..errors import S3Error
from ..volume.api import UploadPart
from . import checksums, xml

MIN_PART: Final = 5 << 20
MAX_PARTS: Final = 10_000
MAX_OBJECT: Final = 5 << 40
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_HEX: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Wish:
    """A part as the client names it."""

    number: int
    etag: str
    checksums: dict[str, str]


def parse_complete(data: bytes) -> list[Wish]:
    """Raises S3Error(MalformedXML, InvalidPartOrder, InvalidArgument)."""
    root = xml.parse(data, "CompleteMultipartUpload")
    wishes = [_wish(node) for node in root if node.tag == "Part"]
    if not wishes or len(wishes) != len(root):
        raise xml.malformed()
    if len(wishes) > MAX_PARTS:
        raise xml.malformed("There are too many parts.")
    if any(left.number >= right.number for left, right in itertools.pairwise(wishes)):
        raise S3Error("InvalidPartOrder", 400, "The list of parts was not in ascending order.")
    return wishes


def _wish(node: Element) -> Wish:
    number, etag = xml.only_text(node, "PartNumber"), xml.only_text(node, "ETag")
    if number is None or etag is None or not _NUMBER.fullmatch(number.strip()):
        raise xml.malformed()
    if not 1 <= int(number) <= MAX_PARTS:
        raise S3Error("InvalidArgument", 400, f"Part number must be an integer between 1 and {MAX_PARTS}, inclusive.")
    sums = {}
    for child in node:
        if child.tag.startswith("Checksum"):
            sums[child.tag[len("Checksum") :].lower()] = (xml.only_text(node, child.tag) or "").strip()
    return Wish(int(number), etag.strip().strip('"').lower(), sums)


def choose(wishes: Sequence[Wish], known: Sequence[UploadPart], algorithm: str | None) -> list[UploadPart]:
    """The parts that the client names. Raises S3Error(InvalidPart, EntityTooSmall, EntityTooLarge)."""
    by_number = {part.number: part for part in known}
    chosen: list[UploadPart] = []
    for wish in wishes:
        part = by_number.get(wish.number)
        if part is None or part.etag != wish.etag:
            raise _invalid_part()
        if algorithm is not None and wish.checksums.get(algorithm, part.checksum) != part.checksum:
            raise _invalid_part()
        chosen.append(part)
    if any(part.size < MIN_PART for part in chosen[:-1]):
        raise S3Error("EntityTooSmall", 400, "Your proposed upload is smaller than the minimum allowed size.")
    if sum(part.size for part in chosen) > MAX_OBJECT:
        raise S3Error("EntityTooLarge", 400, "Your proposed upload exceeds the maximum allowed size.")
    return chosen


def _invalid_part() -> S3Error:
    return S3Error(
        "InvalidPart",
        400,
        "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified "
        "entity tag may not match the part's entity tag.",
    )


def etag_of(etags: Sequence[str]) -> str:
    """MD5 of the parts' MD5s, and their number."""
    if not all(_HEX.fullmatch(etag) for etag in etags):
        raise _invalid_part()
    digest = hashlib.md5(b"".join(bytes.fromhex(etag) for etag in etags), usedforsecurity=False)
    return f"{digest.hexdigest()}-{len(etags)}"


def checksum_of(parts: Sequence[UploadPart], algorithm: str, kind: str) -> str:
    """Of the whole object, as the upload's type wants it."""
    if kind == "FULL_OBJECT":
        return checksums.combine(algorithm, ((part.checksum, part.size) for part in parts))
    return checksums.composite(algorithm, (part.checksum for part in parts))


def kind_of(algorithm: str | None, asked: str | None) -> str:
    """FULL_OBJECT or COMPOSITE for a new upload. Raises S3Error(InvalidRequest)."""
    if asked is not None and algorithm is None:
        raise S3Error("InvalidRequest", 400, "x-amz-checksum-type needs x-amz-checksum-algorithm.")
    if asked is None:
        return "FULL_OBJECT" if algorithm == "crc64nvme" else "COMPOSITE"
    if asked not in ("FULL_OBJECT", "COMPOSITE"):
        raise S3Error("InvalidRequest", 400, "Value for x-amz-checksum-type header is invalid.")
    linear = algorithm in checksums.LINEAR
    if (asked == "FULL_OBJECT" and not linear) or (asked == "COMPOSITE" and algorithm == "crc64nvme"):
        name = (algorithm or "").upper()
        raise S3Error("InvalidRequest", 400, f"The {asked} checksum type cannot be used with the {name} algorithm.")
    return asked

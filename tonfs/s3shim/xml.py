"""XML of S3: answers are built from escaped text, questions are parsed within bounds and without DTDs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from ..errors import S3Error

NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
MAX_BYTES: Final = 2 << 20
MAX_DEPTH: Final = 16
MAX_ELEMENTS: Final = 20_000

_SPECIAL: Final = re.compile('[&<>"\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]')
_NAMES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


def escape(text: str) -> str:
    """Text content. Characters that XML 1.0 cannot carry become character references, as S3 writes them."""
    if _SPECIAL.search(text) is None:
        return text
    return _SPECIAL.sub(lambda m: _NAMES.get(m[0]) or f"&#x{ord(m[0]):X};", text)


def element(name: str, *content: str) -> str:
    """An element around content that is XML already."""
    return f"<{name}>{''.join(content)}</{name}>"


def text(name: str, value: object) -> str:
    """An element around text."""
    return f"<{name}>{escape(str(value))}</{name}>"


def document(name: str, *content: str) -> bytes:
    """A whole answer in S3's namespace."""
    body = f'<{name} xmlns="{NAMESPACE}">{"".join(content)}</{name}>'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'.encode()


def error_document(code: str, message: str, resource: str, request_id: str) -> bytes:
    body = element(
        "Error",
        text("Code", code),
        text("Message", message),
        text("Resource", resource),
        text("RequestId", request_id),
        text("HostId", "tonfs"),
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'.encode()


def malformed(detail: str = "") -> S3Error:
    message = "The XML you provided was not well-formed or did not validate against our published schema."
    return S3Error("MalformedXML", 400, message + (f" {detail}" if detail else ""))


class _Bounded(TreeBuilder):
    """Stops at too much depth or too many elements instead of building them."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0
        self._count = 0

    def start(self, tag: Any, attrs: Any, /) -> Any:
        self._depth += 1
        self._count += 1
        if self._depth > MAX_DEPTH or self._count > MAX_ELEMENTS:
            raise malformed("It is too deep or has too many elements.")
        return super().start(tag, attrs)

    def end(self, tag: Any, /) -> Any:
        self._depth -= 1
        return super().end(tag)


def parse(data: bytes, root: str) -> Element:
    """A UTF-8 document whose root element has this name, namespaces removed. Raises S3Error(MalformedXML)."""
    if len(data) > MAX_BYTES:
        raise malformed("It is too long.")
    make: Callable[..., Any] = DefusedXMLParser
    parser = make(target=_Bounded(), forbid_dtd=True, forbid_entities=True, forbid_external=True)
    try:
        # As text: whatever encoding the document claims, only UTF-8 is read.
        parser.feed(data.decode("utf-8"))
        found: Element = parser.close()
    except (ParseError, DefusedXmlException, ValueError, LookupError) as exc:
        raise malformed() from exc
    for node in found.iter():
        node.tag = str(node.tag).rpartition("}")[2]
    if found.tag != root:
        raise malformed(f"Its root must be {root}.")
    return found


def only_text(node: Element, name: str) -> str | None:
    """Text of the one child of this name; None without it. Raises S3Error when it comes twice or has children."""
    children = [child for child in node if child.tag == name]
    if len(children) > 1 or (children and len(children[0])):
        raise malformed(f"{name} must be given once, as text.")
    return (children[0].text or "") if children else None

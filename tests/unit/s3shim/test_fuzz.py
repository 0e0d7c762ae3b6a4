"""Anything at all in XML, tokens, keys and tags ends in an answer of S3, and never in another error."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from tonfs.errors import S3Error
from tonfs.s3shim import multipart, tags, xml
from tonfs.s3shim.conditions import check_write, etag_matches, not_modified, parse_range
from tonfs.s3shim.handlers_copy import parse_source, source_range
from tonfs.s3shim.mapping import bucket_visible, check_new_bucket, parse_key, visible
from tonfs.s3shim.tokens import make_token, read_token
from tonfs.s3shim.uri import decode, encode

quick = settings(max_examples=50, derandomize=True, deadline=None)
T = TypeVar("T")


def attempt(read: Callable[[], T]) -> tuple[T | None, str, int]:
    """(what was read, the S3 code and status of a refusal)."""
    try:
        return read(), "", 0
    except S3Error as exc:
        return None, exc.s3_code, exc.s3_status


WORDS = [
    "<",
    ">",
    "</",
    "/>",
    "Delete",
    "Object",
    "Key",
    "Part",
    "PartNumber",
    "ETag",
    "&amp;",
    "&#0;",
    "&x;",
    "1",
    " ",
]
MARKUP = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=5)), max_size=30).map("".join)
ROOTS = ("Delete", "CompleteMultipartUpload", "Tagging", "CreateBucketConfiguration", "AccessControlPolicy")


@quick
@given(st.sampled_from(ROOTS), MARKUP, st.binary(max_size=20))
def test_any_document_is_read_or_malformed(root: str, inner: str, junk: bytes) -> None:
    for data in (f"<{root}>{inner}</{root}>".encode("utf-8", "surrogatepass"), inner.encode("utf-8", "replace") + junk):
        for read in (lambda d: xml.parse(d, root), multipart.parse_complete, lambda d: tags.parse(d, 10)):
            assert attempt(partial(read, data))[2] in (0, 400)


@quick
@given(st.text(max_size=60))
def test_escaped_text_comes_back_or_is_a_reference(text: str) -> None:
    document = xml.document("R", xml.text("T", text))
    plain = all(char in "\t\n" or 32 <= ord(char) < 0xD800 or 0xE000 <= ord(char) < 0xFFFE for char in text)
    if plain and "\x7f" not in text and not any(0x80 <= ord(c) < 0xA0 for c in text):
        assert xml.only_text(xml.parse(document, "R"), "T") == text
    assert document.isascii() or document.decode()


@quick
@given(st.binary(max_size=100), st.text(max_size=40))
def test_tokens_are_read_back_and_others_refused(key: bytes, text: str) -> None:
    assert read_token(make_token(key)) == key
    assert attempt(partial(read_token, text))[1:] in (("", 0), ("InvalidArgument", 400))


KEYS = st.lists(
    st.one_of(st.sampled_from([b"/", b".", b"..", b"a", b"\0", b"\xff", b"\n", b"%2e", b"\\"]), st.binary(max_size=4)),
    max_size=12,
).map(b"".join)


@quick
@given(KEYS)
def test_a_key_is_a_path_or_refused(raw: bytes) -> None:
    key, code, status = attempt(partial(parse_key, raw))
    if key is None:
        assert (code, status) in (("InvalidArgument", 400), ("KeyTooLongError", 400))
        return
    assert b"/".join(key.parts) + (b"/" if key.marker else b"") == raw, "never normalised"
    assert all(part not in (b"", b".", b"..") and b"/" not in part and len(part) <= 255 for part in key.parts)
    assert visible(raw)


@quick
@given(KEYS)
def test_a_copy_source_names_what_it_encodes(raw: bytes) -> None:
    key, _, _ = attempt(partial(parse_key, raw))
    assert key is None or parse_source("bucket/" + encode(raw, keep_slash=True)) == (b"bucket", key)
    assert decode(encode(raw)) == raw


@quick
@given(st.text(max_size=60))
def test_headers_of_any_kind_are_understood_or_refused(text: str) -> None:
    for read in (
        lambda: parse_source(text),
        lambda: source_range(text, 10),
        lambda: parse_range(text, 10),
        lambda: etag_matches(text, "x"),
        lambda: tags.of_header(text),
        lambda: check_write(lambda _: text, "x"),
        lambda: not_modified(lambda _: text, "x", 1.0),
        lambda: check_new_bucket(text.encode("utf-8", "surrogatepass")),
        lambda: bucket_visible(text.encode("utf-8", "surrogatepass")),
    ):
        assert attempt(read)[2] in (0, 400, 404, 412, 416)


@quick
@given(st.dictionaries(st.text(min_size=1, max_size=10), st.text(max_size=10), max_size=10))
def test_tags_come_back_from_their_document(given_tags: dict[str, str]) -> None:
    checked, code, _ = attempt(lambda: tags.check(given_tags.items(), 10))
    if checked is None:
        assert code == "InvalidTag"
        return
    document = tags.document(checked)
    if not any(0x7F <= ord(c) < 0xA0 or ord(c) >= 0xFFFE for pair in checked.items() for c in "".join(pair)):
        assert tags.parse(document, 10) == checked

"""The aws-chunked encoding: Amazon's examples byte for byte, any cut of the stream, and lies of every kind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonfs.errors import S3Error
from tonfs.ids import Secret
from tonfs.s3shim.chunked import ChunkDecoder
from tonfs.s3shim.keys import AccessKey, Rights
from tonfs.s3shim.sigv4 import Identity, PayloadKind, signing_key

SCOPE = "20130524/us-east-1/s3/aws4_request"
SECRET = Secret(b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
SIGNED = Identity(
    access=AccessKey("AKIAIOSFODNN7EXAMPLE", SECRET, "", Rights.WRITE, 0.0),
    payload=PayloadKind.SIGNED_CHUNKS,
    sha256="",
    date="20130524T000000Z",
    scope=SCOPE,
    signature="4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    signing_key=signing_key(SECRET, SCOPE),
    presigned=False,
)
WITH_TRAILER = SIGNED._replace(
    payload=PayloadKind.SIGNED_CHUNKS_TRAILER,
    signature="106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
)
UNSIGNED = SIGNED._replace(payload=PayloadKind.UNSIGNED_CHUNKS_TRAILER)
DATA = b"a" * 66560
CRC32C = "x-amz-checksum-crc32c"


def chunk(data: bytes, signature: str) -> bytes:
    return b"%x;chunk-signature=%s\r\n%s\r\n" % (len(data), signature.encode(), data)


DOCUMENT = (
    chunk(DATA[:65536], "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648")
    + chunk(DATA[65536:], "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497")
    + chunk(b"", "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9")
)
TRAILER_DOCUMENT = (
    chunk(DATA[:65536], "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2")
    + chunk(DATA[65536:], "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7")
    + chunk(b"", "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992")[:-2]
    + b"x-amz-checksum-crc32c:sOO8/Q==\r\n"
    + b"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
)


def decode(
    body: bytes, identity: Identity, length: int = len(DATA), names: tuple[str, ...] = (), step: int = 1 << 20
) -> tuple[bytes, dict[str, str]]:
    decoder = ChunkDecoder(identity, length, frozenset(names))
    out = b""
    for start in range(0, len(body), step):
        out += b"".join(decoder.feed(body[start : start + step]))
    return out, decoder.finish()


@pytest.mark.parametrize("step", [1 << 20, 1000, 7])
def test_the_documents_signed_body(step):
    assert decode(DOCUMENT, SIGNED, step=step) == (DATA, {})


@pytest.mark.parametrize("step", [1 << 20, 999])
def test_the_documents_signed_body_with_a_trailer(step):
    data, trailers = decode(TRAILER_DOCUMENT, WITH_TRAILER, names=(CRC32C,), step=step)
    assert data == DATA
    assert trailers == {CRC32C: "sOO8/Q=="}


def test_the_trailer_in_the_form_of_minio_clients():
    body = TRAILER_DOCUMENT.replace(b"sOO8/Q==\r\n", b"sOO8/Q==\n\r\n")
    assert decode(body, WITH_TRAILER, names=(CRC32C,))[1] == {CRC32C: "sOO8/Q=="}


@pytest.mark.parametrize("which", ["ad80c730", "0055627c", "b6c6ea8a"])
def test_a_wrong_signature_of_the_first_middle_or_last_chunk_is_found(which):
    body = DOCUMENT.replace(which.encode(), b"00000000")
    with pytest.raises(S3Error) as error:
        decode(body, SIGNED)
    assert error.value.s3_code == "SignatureDoesNotMatch"


def test_changed_data_or_swapped_chunks_are_found():
    body = bytearray(DOCUMENT)
    body[66_000] ^= 1
    with pytest.raises(S3Error):
        decode(bytes(body), SIGNED)
    first, second = DOCUMENT[:65626], DOCUMENT[65626:]
    with pytest.raises(S3Error):
        decode(second[: second.index(b"\r\n0;") + 2] + first, SIGNED)


def test_trailers_must_be_signed_and_those_that_were_announced():
    for body, names in (
        (TRAILER_DOCUMENT.replace(b"d81f82fc", b"00000000"), (CRC32C,)),
        (TRAILER_DOCUMENT.replace(b"sOO8/Q==", b"sOO8/A=="), (CRC32C,)),
        (TRAILER_DOCUMENT[: TRAILER_DOCUMENT.index(b"x-amz-trailer-signature")] + b"\r\n", (CRC32C,)),
        (TRAILER_DOCUMENT[: TRAILER_DOCUMENT.index(b"x-amz-checksum")] + b"\r\n", (CRC32C,)),
        (TRAILER_DOCUMENT, ()),
        (TRAILER_DOCUMENT, (CRC32C, "x-amz-checksum-sha1")),
        (TRAILER_DOCUMENT.replace(b"x-amz-checksum", b"x amz-checksum"), (CRC32C,)),
    ):
        with pytest.raises(S3Error):
            decode(body, WITH_TRAILER, names=names)


def test_unsigned_bodies_with_a_trailer():
    body = b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n"
    names = ("x-amz-checksum-crc32",)
    assert decode(body, UNSIGNED, 11, names) == (b"hello world", {"x-amz-checksum-crc32": "DUoRhQ=="})
    assert decode(b"0\r\n\r\n", UNSIGNED, 0) == (b"", {})
    for bad in (
        body.replace(b"5\r\n", b"5;chunk-signature=" + b"0" * 64 + b"\r\n", 1),
        body[:-4],
        body[:-20],
        body[:10],
        body.replace(b"DUoRhQ==\r\n", b"DUoRhQ==\r\nx-amz-checksum-crc32:DUoRhQ==\r\n"),
        body.replace(b"hello\r\n", b"hello"),
        body.replace(b"hello", b"helloo"),
        body.replace(b"5\r\n", b"-5\r\n", 1),
        body.replace(b"5\r\n", b"+5\r\n", 1),
        body.replace(b"5\r\n", b"0x5\r\n", 1),
        body.replace(b"5\r\n", b"text\r\n", 1),
        body.replace(b"5\r\n", b"\r\n", 1),
        body.replace(b"5\r\n", b"FFFFFFFFFFFFFFFF\r\n", 1),
        body.replace(b"5\r\n", b"F" * 100_000 + b"\r\n", 1),
        body + b"x-amz-meta-a: b\r\n" * 1000,
    ):
        with pytest.raises(S3Error) as error:
            decode(bad, UNSIGNED, 11, names)
        assert error.value.s3_status in (400, 403)


def test_the_announced_length_must_be_the_true_one():
    for length in (len(DATA) - 1, len(DATA) + 1, 0):
        with pytest.raises(S3Error) as error:
            decode(DOCUMENT, SIGNED, length)
        assert error.value.s3_code == "IncompleteBody"


def test_a_body_that_ends_early_is_incomplete_wherever_it_is_cut():
    for end in (0, 1, 80, 90, 1000, 65_626, 65_700, len(DOCUMENT) - 60, len(DOCUMENT) - 3):
        with pytest.raises(S3Error) as error:
            decode(DOCUMENT[:end], SIGNED)
        assert error.value.s3_code == "IncompleteBody"


def test_nothing_may_follow_the_last_chunk():
    with pytest.raises(S3Error):
        decode(DOCUMENT + b"more", SIGNED)
    with pytest.raises(S3Error):
        ChunkDecoder(SIGNED, 5, frozenset({CRC32C}))


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_are_decoded_or_refused(body, step):
    for identity in (SIGNED, WITH_TRAILER, UNSIGNED):
        try:
            data, _ = decode(body, identity, 100, step=step)
        except S3Error:
            continue
        assert len(data) == 100


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.integers(1, 40))
def test_any_framing_and_any_cut_give_the_same_data(pieces, step):
    body = b"".join(b"%X\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    whole = b"".join(pieces)
    assert decode(body, UNSIGNED, len(whole), step=step) == (whole, {})

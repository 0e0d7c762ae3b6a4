"""Signatures: the examples of Amazon's own documents, and everything that must not pass."""

from __future__ import annotations

import hmac
from dataclasses import replace

import pytest

from tonfs.errors import S3Error
from tonfs.ids import Secret
from tonfs.s3shim.keys import AccessKey, Rights
from tonfs.s3shim.sigv4 import (
    EMPTY_SHA256,
    Identity,
    PayloadKind,
    Request,
    authenticate,
    canonical_headers,
    parse_payload,
    sign,
)
from tonfs.s3shim.uri import parse_query, split_target

ACCESS = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
KEY = AccessKey(ACCESS, Secret(SECRET.encode()), "", Rights.ADMIN, 0.0)
NOW = 1369353600.0  # 2013-05-24T00:00:00Z
HOST = ("host", "examplebucket.s3.amazonaws.com")
DATE = ("x-amz-date", "20130524T000000Z")
EMPTY = ("x-amz-content-sha256", EMPTY_SHA256)


def authorization(names: str, signature: str, *, credential: str = "") -> tuple[str, str]:
    credential = credential or f"{ACCESS}/20130524/us-east-1/s3/aws4_request"
    value = f"AWS4-HMAC-SHA256 Credential={credential},SignedHeaders={names},Signature={signature}"
    return ("authorization", value)


def request(method: str, target: str, *headers: tuple[str, str], has_body: bool = False) -> Request:
    path, query = split_target(target)
    return Request(method, path, parse_query(query), headers, has_body)


def check(question: Request, now: float = NOW, region: str = "us-east-1") -> Identity:
    return authenticate(question, {ACCESS: KEY}.get, now=now, region=region)


GET_RANGE = request(
    "GET",
    "/test.txt",
    HOST,
    ("range", "bytes=0-9"),
    EMPTY,
    DATE,
    authorization(
        "host;range;x-amz-content-sha256;x-amz-date",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
)
PRESIGNED = (
    "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    f"&X-Amz-Credential={ACCESS}%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
    "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
)


def code_of(question: Request, **kwargs: object) -> str:
    with pytest.raises(S3Error) as error:
        check(question, **kwargs)  # type: ignore[arg-type]
    return error.value.s3_code


def with_header(question: Request, name: str, value: str | None) -> Request:
    kept = tuple((k, v) for k, v in question.headers if k != name)
    return replace(question, headers=kept if value is None else (*kept, (name, value)))


def test_get_object_of_the_documents():
    who = check(GET_RANGE)
    assert who.access is KEY
    assert who.payload is PayloadKind.EXACT
    assert who.sha256 == EMPTY_SHA256
    assert not who.presigned


def test_put_object_of_the_documents():
    sha256 = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"
    put = request(
        "PUT",
        "/test%24file.text",
        HOST,
        ("date", "Fri, 24 May 2013 00:00:00 GMT"),
        DATE,
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("x-amz-content-sha256", sha256),
        authorization(
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        has_body=True,
    )
    assert check(put).sha256 == sha256
    unencoded = replace(put, raw_path="/test$file.text")
    assert check(unencoded).sha256 == sha256, "a client may send what it signed in another encoding"


@pytest.mark.parametrize(
    ("target", "signature"),
    [
        ("/?lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("/?max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ("/?prefix=J&max-keys=2", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_queries_of_the_documents(target, signature):
    names = "host;x-amz-content-sha256;x-amz-date"
    check(request("GET", target, HOST, EMPTY, DATE, authorization(names, signature)))


def test_the_presigned_url_of_the_documents_and_its_lifetime():
    question = request("GET", PRESIGNED, HOST)
    assert check(question).presigned
    assert check(question, now=NOW + 86400).payload is PayloadKind.UNSIGNED
    assert code_of(question, now=NOW + 86401) == "AccessDenied"
    assert check(question, now=NOW - 15 * 60)
    assert code_of(question, now=NOW - 15 * 60 - 1) == "AccessDenied"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/test.txt", "/test.tx"),
        ("Expires=86400", "Expires=86401"),
        ("s3%2Faws4", "s3%2Faws3"),
        ("0524%2Fus-east-1", "0524%2Feu-west-1"),
        ("20130524T000000Z", "20130524T000001Z"),
        ("20130524T000000Z", "20130525T000000Z"),
        ("Expires=86400", "Expires=0"),
        ("Expires=86400", "Expires=-1"),
        ("Expires=86400", "Expires=604801"),
        ("Expires=86400", "Expires=99999999999999999999"),
        ("Expires=86400", "Expires=abc"),
        ("Expires=86400", "Expires="),
        ("&X-Amz-Expires=86400", ""),
        ("SignedHeaders=host", "SignedHeaders=date"),
        ("SignedHeaders=host", "SignedHeaders=host;range"),
        ("HMAC-SHA256", "HMAC-SHA1"),
        ("d404", "d405"),
        ("d404", "D404"),
        ("f604d404", ""),
        ("d404", "d404&extra=1"),
        ("d404", "d404&X-Amz-Signature=" + "0" * 64),
        ("d404", "d404&X-Amz-Expires=604800"),
        ("d404", "d404&x-amz-expires=604800"),
    ],
)
def test_a_presigned_url_changed_in_any_way_is_refused(old, new):
    assert old in PRESIGNED
    with pytest.raises(S3Error) as error:
        check(request("GET", PRESIGNED.replace(old, new), HOST))
    assert error.value.s3_status in (400, 403)


def test_a_presigned_get_is_not_a_head_or_a_put():
    for method in ("HEAD", "PUT", "DELETE"):
        assert code_of(request(method, PRESIGNED, HOST)) == "SignatureDoesNotMatch"


def test_unsigned_amz_headers_are_refused_in_both_forms():
    question = request("PUT", PRESIGNED, HOST, ("x-amz-copy-source", "/secret/key"))
    assert code_of(question) == "AccessDenied"
    for name in ("x-amz-meta-a", "x-amz-acl", "x-amz-copy-source"):
        assert code_of(with_header(GET_RANGE, name, "v")) == "AccessDenied"


def test_header_and_query_together_are_refused():
    question = replace(GET_RANGE, query=parse_query(split_target(PRESIGNED)[1]))
    assert code_of(question) == "InvalidArgument"


def test_skew_of_fifteen_minutes_is_the_limit():
    for offset in (-900, -840, 840, 900):
        check(GET_RANGE, now=NOW + offset)
    for offset in (-901, 901, 960):
        assert code_of(GET_RANGE, now=NOW + offset) == "RequestTimeTooSkewed"


def test_who_is_unknown_or_anonymous_is_refused():
    assert code_of(request("GET", "/x", HOST)) == "AccessDenied"
    with pytest.raises(S3Error) as error:
        authenticate(GET_RANGE, {}.get, now=NOW, region="us-east-1")
    assert error.value.s3_code == "InvalidAccessKeyId"
    with pytest.raises(S3Error) as error:
        authenticate(
            GET_RANGE,
            {ACCESS: replace(KEY, secret_key=Secret(SECRET.encode() + b"x"))}.get,
            now=NOW,
            region="us-east-1",
        )
    assert error.value.s3_code == "SignatureDoesNotMatch"


def test_region_service_and_day_of_the_scope_must_be_right():
    assert code_of(GET_RANGE, region="eu-central-1") == "AuthorizationHeaderMalformed"
    names = "host;range;x-amz-content-sha256;x-amz-date"
    for scope in (
        "20130524/us-east-1/ec2/aws4_request",
        "20130523/us-east-1/s3/aws4_request",
        "20130524/us-east-1/s3/aws5_request",
        "us-east-1/s3/aws4_request",
    ):
        _, value = authorization(names, "0" * 64, credential=f"{ACCESS}/{scope}")
        assert code_of(with_header(GET_RANGE, "authorization", value)) == "AuthorizationHeaderMalformed"


@pytest.mark.parametrize(
    "value",
    [
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 ",
        "AWS4-HMAC-SHA256 Credential=a",
        f"AWS4-HMAC-SHA256 Credential={ACCESS}/20130524/us-east-1/s3/aws4_request,SignedHeaders=host",
        "AWS4-HMAC-SHA256 Credential,SignedHeaders,Signature",
        "AWS4-HMAC-SHA256 Credential=a,Credential=b,SignedHeaders=host,Signature=c",
        f"AWS4-HMAC-SHA256 Credential={ACCESS}/20130524/us-east-1/s3/aws4_request,SignedHeaders=HOST,Signature=c",
        f"AWS4-HMAC-SHA256 Credential={ACCESS}/20130524/us-east-1/s3/aws4_request,SignedHeaders=,Signature=c",
        f"AWS4-HMAC-SHA256 Credential={ACCESS}/20130524/us-east-1/s3/aws4_request,SignedHeaders=host;host,Signature=c",
        f"AWS {ACCESS}:c2lnbmF0dXJl",
        "Basic dXNlcjpwYXNz",
        "Bearer token",
        "",
    ],
)
def test_malformed_or_foreign_authorization_is_refused(value):
    with pytest.raises(S3Error) as error:
        check(with_header(GET_RANGE, "authorization", value))
    assert error.value.s3_status in (400, 403)
    assert SECRET not in error.value.message


def test_signature_empty_cut_or_one_digit_off_is_refused():
    good = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    names = "host;range;x-amz-content-sha256;x-amz-date"
    for bad in ("", good[:-1], good[:-1] + "2", good.upper(), good + "0", "é"):
        _, value = authorization(names, bad)
        assert code_of(with_header(GET_RANGE, "authorization", value)) == "SignatureDoesNotMatch"


def test_host_must_be_signed_and_signed_headers_must_be_there():
    _, value = authorization("range;x-amz-content-sha256;x-amz-date", "0" * 64)
    assert code_of(with_header(GET_RANGE, "authorization", value)) == "AuthorizationHeaderMalformed"
    assert code_of(with_header(GET_RANGE, "range", None)) == "SignatureDoesNotMatch"


def test_a_header_sent_twice_is_refused():
    twice = replace(GET_RANGE, headers=(*GET_RANGE.headers, DATE))
    assert code_of(twice) == "InvalidRequest"


def test_temporary_credentials_are_refused():
    assert code_of(with_header(GET_RANGE, "x-amz-security-token", "t")) == "InvalidToken"
    assert code_of(request("GET", PRESIGNED + "&X-Amz-Security-Token=t", HOST)) == "InvalidToken"


def test_blanks_in_header_values_are_folded():
    once = request("GET", "/", ("host", "h"), ("b", "  x   y "), ("c", "1\t \t2"), ("d", "a b"))
    assert canonical_headers(once, "host;c;d;b") == ("b:x y\nc:1 2\nd:a b\nhost:h\n", "b;c;d;host")
    twice = request("GET", "/", ("host", "h"), ("a", "1  1"), ("a", " 2"))
    assert canonical_headers(twice, "a;host") == ("a:1 1,2\nhost:h\n", "a;host")


def test_what_signs_is_hmac():
    for key in (bytes(32), bytes(range(200, 232))):
        for text in ("", "AWS4-HMAC-SHA256\n", "é" * 500):
            assert sign(key, text) == hmac.new(key, text.encode(), "sha256").hexdigest()


def test_what_is_promised_about_a_body():
    assert parse_payload("UNSIGNED-PAYLOAD") == (PayloadKind.UNSIGNED, "")
    assert parse_payload("ab" * 32) == (PayloadKind.EXACT, "ab" * 32)
    for bad in ("", "AB" * 32, "ab" * 31, "nonsense", "EXACT", "exact"):
        with pytest.raises(S3Error) as error:
            parse_payload(bad)
        assert error.value.s3_status == 400
    with pytest.raises(S3Error) as error:
        parse_payload("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD")
    assert error.value.s3_code == "NotImplemented"


def test_a_body_without_a_promise_is_refused_and_no_body_needs_none():
    without = with_header(GET_RANGE, "x-amz-content-sha256", None)
    assert code_of(replace(without, has_body=True)) == "InvalidRequest"
    assert code_of(without) == "SignatureDoesNotMatch", "it was signed here, so it must be there"


def test_dates_that_are_no_dates_are_refused():
    for bad in ("", "20130524", "20130524T000000", "20131324T000000Z", "２０１３0524T000000Z"):
        assert code_of(with_header(GET_RANGE, "x-amz-date", bad)) == "AccessDenied"

"""The small pure parts: encoding, checksums, XML, conditions, ranges, metadata, names, routing."""

from __future__ import annotations

import base64
import contextlib

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonfs.errors import S3Error
from tonfs.s3shim import checksums, xml
from tonfs.s3shim.conditions import etag_matches, http_date, not_modified, parse_range, range_applies
from tonfs.s3shim.handlers_copy import parse_source
from tonfs.s3shim.mapping import bucket_visible, check_new_bucket, parse_key
from tonfs.s3shim.metadata import checksum_headers, content_type, response_headers, system_headers, user_metadata
from tonfs.s3shim.router import OVERRIDES, PARAMETERS, SUB_RESOURCES, UNSET, Operation, check_headers, route
from tonfs.s3shim.sigv4 import Request
from tonfs.s3shim.uri import decode, encode, parse_query, split_target
from tonfs.volume import S3Record


def code_of(error: pytest.ExceptionInfo[S3Error]) -> tuple[str, int]:
    return error.value.s3_code, error.value.s3_status


# Percent-encoding.


def test_decoding_is_strict_and_leaves_plus_alone():
    assert decode("a%20b+c%2Fd") == b"a b+c/d"
    assert decode("%c3%BC") == "ü".encode()
    for bad in ("%", "%2", "%zz", "a%", "%%20", "%u0041"):
        with pytest.raises(S3Error) as error:
            decode(bad)
        assert code_of(error) == ("InvalidURI", 400)


@given(st.binary())
def test_encoding_and_decoding_are_inverse(data):
    assert decode(encode(data)) == data
    assert decode(encode(data, keep_slash=True)) == data


def test_queries_keep_order_empty_values_and_repeats():
    assert parse_query("b=1&a&c=&b=2&&d=x%3Dy") == [
        ("b", b"b", b"1"),
        ("a", b"a", b""),
        ("c", b"c", b""),
        ("b", b"b", b"2"),
        ("d", b"d", b"x=y"),
    ]


def test_only_targets_in_origin_form_are_taken():
    assert split_target("/a?b?c") == ("/a", "b?c")
    for bad in ("http://host/a", "*", "", "a"):
        with pytest.raises(S3Error):
            split_target(bad)


# Checksums.

CHECK = b"123456789"
KNOWN = {"crc32": "cbf43926", "crc32c": "e3069283", "crc64nvme": "ae8b14860a799888"}


@pytest.mark.parametrize("algorithm", sorted(checksums.ALGORITHMS))
def test_digests_give_known_values_however_the_data_is_cut(algorithm):
    import hashlib

    digest = checksums.new(algorithm)
    for piece in (b"1234", b"", b"5678", b"9"):
        digest.update(piece)
    expected = KNOWN.get(algorithm) or hashlib.new(algorithm, CHECK).hexdigest()
    assert digest.digest().hex() == expected
    assert len(digest.digest()) == checksums.ALGORITHMS[algorithm][1]


def test_a_declared_checksum_is_one_and_has_the_right_form():
    good = checksums.b64(bytes(4))
    assert checksums.declared([("x-amz-checksum-crc32", good), ("x-amz-checksum-mode", "ENABLED")]) == ("crc32", good)
    assert checksums.declared([("x-amz-checksum-type", "FULL_OBJECT")]) is None
    for headers in (
        [("x-amz-checksum-crc32", good), ("x-amz-checksum-sha1", checksums.b64(bytes(20)))],
        [("x-amz-checksum-crc32", checksums.b64(bytes(5)))],
        [("x-amz-checksum-crc32", "nonsense")],
        [("x-amz-checksum-crc32", "AAAAAB==")],
        [("x-amz-checksum-crc32", "")],
        [("x-amz-checksum-crc32", "ключ")],
        [("x-amz-checksum-sha512", good)],
        [("x-amz-checksum-xxhash64", good)],
    ):
        with pytest.raises(S3Error) as error:
            checksums.declared(headers)
        assert error.value.s3_status == 400


def test_content_md5_is_sixteen_bytes_in_base64():
    assert checksums.parse_md5(base64.b64encode(bytes(16)).decode()) == bytes(16)
    for bad in ("", "AAAA", "not base64!", base64.b64encode(bytes(17)).decode()):
        with pytest.raises(S3Error) as error:
            checksums.parse_md5(bad)
        assert code_of(error) == ("InvalidDigest", 400)


# XML.


def test_text_is_escaped_also_what_xml_cannot_carry():
    assert xml.text("Key", 'a<b>&"\x01\n\ud800') == "<Key>a&lt;b&gt;&amp;&quot;&#x1;&#xA;&#xD800;</Key>"


BOMB = b"""<!DOCTYPE d [<!ENTITY a "1234567890"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><Delete>&b;</Delete>"""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not xml",
        b"<Delete>",
        b"<Delete></Delet>",
        b"<Other/>",
        b"<Delete/><Delete/>",
        BOMB,
        b'<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><Delete>&x;</Delete>',
        b'<!DOCTYPE d SYSTEM "http://127.0.0.1/x.dtd"><Delete/>',
        b"<!DOCTYPE d><Delete/>",
        b"<Delete>" * 100_000,
        b"<Delete>" + b"<a>" * 17 + b"</a>" * 17 + b"</Delete>",
        b"<Delete>" + b"<a/>" * 30_000 + b"</Delete>",
        b"<Delete>" + b" " * (20 << 20) + b"</Delete>",
        "<Delete/>".encode("utf-16"),
        b"<?xml version='1.0' encoding='utf-16'?>" + "<Delete/>".encode("utf-16"),
        b"<Delete>\xff</Delete>",
        b"<Delete>\x00</Delete>",
        b"<Delete>&undefined;</Delete>",
    ],
    ids=range(19),
)
def test_bad_xml_is_malformed(data):
    with pytest.raises(S3Error) as error:
        xml.parse(data, "Delete")
    assert code_of(error) == ("MalformedXML", 400)


def test_good_xml_with_and_without_a_namespace():
    for head in (b"<Delete>", b'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'):
        root = xml.parse(head + b"<Object><Key>a&amp;\xc3\xbc</Key></Object></Delete>", "Delete")
        assert xml.only_text(root[0], "Key") == "a&ü"
        assert xml.only_text(root[0], "Other") is None
    with pytest.raises(S3Error):
        xml.only_text(xml.parse(b"<D><K>1</K><K>2</K></D>", "D"), "K")
    with pytest.raises(S3Error):
        xml.only_text(xml.parse(b"<D><K><X/></K></D>", "D"), "K")


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_malformed(data):
    with contextlib.suppress(S3Error):
        xml.parse(data, "Delete")


# Conditions and ranges.


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=0-9", 10, (0, 10)),
        ("bytes=0-52428799", 10, (0, 10)),
        ("bytes=5-", 10, (5, 10)),
        ("bytes=-3", 10, (7, 10)),
        ("bytes=-99", 10, (0, 10)),
        ("bytes=3-" + "9" * 4000, 10, (3, 10)),
        ("bytes=9-5", 10, None),
        ("bytes=0-1,3-4", 10, None),
        ("bytes=-", 10, None),
        ("bytes=a-b", 10, None),
        ("bytes=1-2x", 10, None),
        ("lines=0-1", 10, None),
        ("bytes=" + "0-1," * 500, 10, None),
        (None, 10, None),
    ],
)
def test_ranges(text, size, expected):
    assert parse_range(text, size) == expected


@pytest.mark.parametrize(("text", "size"), [("bytes=10-", 10), ("bytes=10-20", 10), ("bytes=-0", 10), ("bytes=0-", 0)])
def test_ranges_without_a_byte_are_not_satisfiable(text, size):
    with pytest.raises(S3Error) as error:
        parse_range(text, size)
    assert code_of(error) == ("InvalidRange", 416)
    assert ("Content-Range", f"bytes */{size}") in error.value.headers


T = 1_700_000_000.0
OLDER, SAME, NEWER = (http_date(T + d) for d in (-10, 0, 10))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"if-match": '"e"'}, 200),
        ({"if-match": "e"}, 200),
        ({"if-match": '"x", "e"'}, 200),
        ({"if-match": "*"}, 200),
        ({"if-match": '"x"'}, 412),
        ({"if-none-match": '"e"'}, 304),
        ({"if-none-match": 'W/"e"'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"x"'}, 200),
        ({"if-modified-since": SAME}, 304),
        ({"if-modified-since": NEWER}, 304),
        ({"if-modified-since": OLDER}, 200),
        ({"if-unmodified-since": OLDER}, 412),
        ({"if-unmodified-since": SAME}, 200),
        ({"if-match": '"e"', "if-unmodified-since": OLDER}, 200),
        ({"if-none-match": '"x"', "if-modified-since": NEWER}, 200),
        ({"if-match": '"x"', "if-none-match": '"e"'}, 412),
        ({"if-modified-since": "nonsense"}, 200),
        ({"if-unmodified-since": "Mon, 99 Foo 2020"}, 200),
    ],
)
def test_conditional_reads(headers, expected):
    if expected == 412:
        with pytest.raises(S3Error) as error:
            not_modified(headers.get, "e", T + 0.7)
        assert code_of(error) == ("PreconditionFailed", 412)
    else:
        assert not_modified(headers.get, "e", T + 0.7) == (expected == 304)


def test_if_range():
    assert range_applies({}.get, "e", T)
    assert range_applies({"if-range": '"e"'}.get, "e", T)
    assert not range_applies({"if-range": '"x"'}.get, "e", T)
    assert range_applies({"if-range": SAME}.get, "e", T)
    assert not range_applies({"if-range": OLDER}.get, "e", T)
    assert etag_matches("e", "e")


# Metadata.


def test_metadata_is_lower_case_joined_and_bounded():
    headers = [("x-amz-meta-a", "1"), ("x-amz-meta-b", ""), ("x-amz-meta-a", "2"), ("other", "x")]
    assert user_metadata(headers) == {"a": "1,2", "b": ""}
    user_metadata([("x-amz-meta-a", "x" * 2047)])
    for bad in ([("x-amz-meta-a", "x" * 2048)], [("x-amz-meta-a", "a\udcffb")], [("x-amz-meta-a", "a\x01b")]):
        with pytest.raises(S3Error):
            user_metadata(bad)


def test_aws_chunked_is_not_kept_as_an_encoding():
    assert system_headers([("content-encoding", "aws-chunked")]) == {}
    assert system_headers([("content-encoding", "gzip,aws-chunked")]) == {"content-encoding": "gzip"}
    assert system_headers([("cache-control", "no-cache"), ("expires", "never")]) == {
        "cache-control": "no-cache",
        "expires": "never",
    }
    assert content_type([]) == "binary/octet-stream"
    assert content_type([("content-type", "a/b")]) == "a/b"


def test_what_was_kept_comes_back_in_headers():
    record = S3Record("e", "a/b", {"m": "1"}, {"crc32": "AAAAAA=="}, {"expires": "x", "acl": "y"}, tags={"t": "u"})
    assert response_headers(record) == [("Expires", "x"), ("x-amz-meta-m", "1"), ("x-amz-tagging-count", "1")]
    assert response_headers(None) == []
    assert checksum_headers({}) == []
    assert checksum_headers({"crc32": "AAAAAA=="}) == [
        ("x-amz-checksum-crc32", "AAAAAA=="),
        ("x-amz-checksum-type", "FULL_OBJECT"),
    ]


# Names.


def test_keys_that_are_paths():
    assert parse_key(b"a/b").parts == (b"a", b"b")
    assert not parse_key(b"a/b").marker
    assert parse_key(b"a/b/").marker
    assert parse_key(b"a/b/").parts == (b"a", b"b")
    assert parse_key(b"...").parts == (b"...",)
    assert parse_key(b"a\\..\\b").parts == (b"a\\..\\b",)
    assert parse_key("é\n\x01".encode()).text == "é\n\x01".encode()


@pytest.mark.parametrize("bad", [b"/a", b"a//b", b"a//", b"//", b"/", b".", b"..", b"a/../b", b"./a", b"a/.", b"a/./"])
def test_keys_that_cannot_be_paths_are_refused(bad):
    with pytest.raises(S3Error) as error:
        parse_key(bad)
    assert code_of(error) == ("InvalidArgument", 400)


def test_keys_that_are_too_long_or_not_text_are_refused():
    parse_key(b"a" * 255 + b"/" + b"b" * 255)
    for bad in (b"a" * 256, b"a/" * 512 + b"a"):
        with pytest.raises(S3Error) as error:
            parse_key(bad)
        assert code_of(error) == ("KeyTooLongError", 400)
    for bad in (b"a\x00b", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80"):
        with pytest.raises(S3Error) as error:
            parse_key(bad)
        assert code_of(error) == ("InvalidArgument", 400)


def test_bucket_names():
    for good in (b"abc", b"my-files", b"a.b.c", b"a" * 63, b"123"):
        check_new_bucket(good)
        assert bucket_visible(good)
    for bad in (
        b"ab",
        b"a" * 64,
        b"Abc",
        b"a_b",
        b"-ab",
        b"ab-",
        b"a..b",
        b"1.2.3.4",
        b"xn--a",
        b"a b",
        b"..",
        b"\xff\xff\xff",
    ):
        with pytest.raises(S3Error) as error:
            check_new_bucket(bad)
        assert code_of(error) == ("InvalidBucketName", 400)
    for shown in (b"My_Files", b"UPPER"):
        assert bucket_visible(shown)
    for hidden in (b".tonfs", b"..", b"ab", b"a b", b"", b"a" * 64, "ü12".encode()):
        assert not bucket_visible(hidden)


# Routing.


def routed(method: str, target: str, *headers: tuple[str, str]) -> Operation:
    path, query = split_target(target)
    request = Request(method, path, parse_query(query), headers)
    operation = route(request).operation
    check_headers(request, operation)
    return operation


@pytest.mark.parametrize(
    ("method", "target", "operation"),
    [
        ("GET", "/", Operation.LIST_BUCKETS),
        ("GET", "/?x-id=ListBuckets", Operation.LIST_BUCKETS),
        ("PUT", "/bkt", Operation.CREATE_BUCKET),
        ("PUT", "/bkt/", Operation.CREATE_BUCKET),
        ("HEAD", "/bkt", Operation.HEAD_BUCKET),
        ("DELETE", "/bkt", Operation.DELETE_BUCKET),
        ("GET", "/bkt", Operation.LIST_V1),
        ("GET", "/bkt?prefix=a&delimiter=/&marker=b", Operation.LIST_V1),
        ("GET", "/bkt?list-type=2", Operation.LIST_V2),
        ("GET", "/bkt?location", Operation.GET_LOCATION),
        ("GET", "/bkt/?location=", Operation.GET_LOCATION),
        ("POST", "/bkt?delete", Operation.DELETE_OBJECTS),
        ("PUT", "/bkt/k?x-id=PutObject", Operation.PUT_OBJECT),
        ("GET", "/bkt/k?anything=else", Operation.GET_OBJECT),
        ("GET", "/bkt/k?response-content-type=a%2Fb", Operation.GET_OBJECT),
        ("HEAD", "/bkt/k", Operation.HEAD_OBJECT),
        ("DELETE", "/bkt/k/", Operation.DELETE_OBJECT),
        ("PUT", "/bkt/k?partNumber=1&uploadId=x", Operation.UPLOAD_PART),
        ("GET", "/bkt/k?uploadId=x", Operation.LIST_PARTS),
        ("GET", "/bkt?uploads&prefix=a", Operation.LIST_UPLOADS),
        ("GET", "/bkt?versions", Operation.LIST_VERSIONS),
        ("GET", "/bkt?policy", Operation.GET_UNSET),
    ],
)
def test_what_is_served(method, target, operation):
    assert routed(method, target) is operation


BUCKET_GET = ("location", "list-type", "versioning", "acl", "tagging", "versions", "uploads", *UNSET)
ALLOWED = {
    *(("GET", "/bkt", word) for word in BUCKET_GET),
    *(("PUT", "/bkt", word) for word in ("acl", "tagging")),
    ("DELETE", "/bkt", "tagging"),
    ("POST", "/bkt", "delete"),
    ("GET", "/", "max-buckets"),
    ("GET", "/", "bucket-region"),
    *(("GET", "/bkt/key", word) for word in ("acl", "tagging", "attributes", "uploadId", "partNumber", "versionId")),
    *(("HEAD", "/bkt/key", word) for word in ("partNumber", "versionId")),
    *(("PUT", "/bkt/key", word) for word in ("acl", "tagging")),
    *(("DELETE", "/bkt/key", word) for word in ("tagging", "uploadId", "versionId")),
    *(("POST", "/bkt/key", word) for word in ("uploads", "uploadId")),
}
PLAIN = frozenset(
    [
        Operation.PUT_OBJECT,
        Operation.DELETE_OBJECT,
        Operation.CREATE_BUCKET,
        Operation.DELETE_BUCKET,
        Operation.COPY_OBJECT,
    ]
)


def outcome(method: str, target: str) -> Operation | str:
    try:
        return routed(method, target)
    except S3Error as exc:
        return exc.s3_code


@pytest.mark.parametrize("word", sorted(SUB_RESOURCES))
def test_no_sub_resource_falls_through(word):
    for target in ("/", "/bkt", "/bkt/key"):
        for method in ("GET", "HEAD", "PUT", "DELETE", "POST"):
            for suffix in ("", "=", "=1"):
                answer = outcome(method, f"{target}?{word}{suffix}")
                if isinstance(answer, Operation):
                    assert (method, target, word) in ALLOWED
                    assert answer not in PLAIN or (word == "versionId" and method == "DELETE")
                else:
                    assert answer in ("NotImplemented", "MethodNotAllowed", "InvalidArgument")


@pytest.mark.parametrize("word", sorted(SUB_RESOURCES - {"versionId"}))
def test_two_sub_resources_are_not_served_as_one(word):
    for method, target in (("PUT", "/bkt/key?tagging"), ("DELETE", "/bkt/key?tagging"), ("GET", "/bkt?acl")):
        if word not in target:
            with pytest.raises(S3Error) as error:
                routed(method, f"{target}&{word}")
            assert code_of(error) == ("NotImplemented", 501)


def sub_resources_of_the_sdk() -> set[str]:
    """The words without a value in the addresses of botocore's model of S3: what a client of today may send."""
    operations = botocore.session.get_session().get_service_model("s3")
    addresses = [operations.operation_model(name).http["requestUri"] for name in operations.operation_names]
    queries = [address.partition("?")[2] for address in addresses]
    return {word for query in queries for word in query.split("&") if word and "=" not in word}


def parameters_of_the_sdk() -> set[str]:
    model = botocore.session.get_session().get_service_model("s3")
    shapes = [model.operation_model(name).input_shape for name in model.operation_names]
    members = [member for shape in shapes if shape is not None for member in shape.members.values()]
    return {one.serialization["name"] for one in members if one.serialization.get("location") == "querystring"}


def test_every_word_of_the_sdk_is_known():
    assert len(words := sub_resources_of_the_sdk()) > 30
    assert words <= SUB_RESOURCES
    assert len(words := parameters_of_the_sdk()) > 25
    assert words <= SUB_RESOURCES | PARAMETERS | set(OVERRIDES)


@pytest.mark.parametrize("word", ["shiny", "shiny=", "Acl", "x-id&updateObjectEncryption"])
def test_a_sub_resource_of_tomorrow_destroys_nothing(word):
    for target in ("/bkt", "/bkt/key"):
        for method in ("PUT", "DELETE", "POST"):
            assert outcome(method, f"{target}?{word}") in ("NotImplemented", "MethodNotAllowed")
    assert routed("GET", f"/bkt/key?{word}") is Operation.GET_OBJECT
    assert routed("PUT", "/bkt/key?x-id=PutObject&shiny=1") is Operation.PUT_OBJECT


@pytest.mark.parametrize("source", ["b/k?x=y", "b/k?versionId=7", "b/k?versionId=null&x", "b/k?"])
def test_a_copy_source_names_nothing_but_its_one_version(source):
    assert parse_source("b/k?versionId=null") == (b"b", parse_key(b"k"))
    with pytest.raises(S3Error) as error:
        parse_source(source)
    assert code_of(error) == ("InvalidArgument", 400)


def test_an_object_has_the_one_version_null():
    assert routed("DELETE", "/bkt/k?versionId=null") is Operation.DELETE_OBJECT
    assert routed("GET", "/bkt/k?tagging&versionId=null") is Operation.GET_TAGGING
    for method in ("GET", "HEAD", "DELETE"):
        with pytest.raises(S3Error) as error:
            routed(method, "/bkt/k?versionId=abc")
        assert code_of(error) == ("InvalidArgument", 400)
    with pytest.raises(S3Error) as error:
        routed("PUT", "/bkt/k?versionId=null")
    assert code_of(error) == ("NotImplemented", 501)


@pytest.mark.parametrize("method", ["POST", "PATCH", "OPTIONS", "TRACE", "CONNECT", "FOO"])
def test_other_methods_are_not_allowed(method):
    for target in ("/", "/bkt/k"):
        with pytest.raises(S3Error) as error:
            routed(method, target)
        assert code_of(error) == ("MethodNotAllowed", 405)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-amz-grant-read", "id=1"),
        ("x-amz-copy-source-range", "bytes=0-1"),
        ("x-amz-storage-class", "GLACIER"),
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ("x-amz-object-lock-mode", "GOVERNANCE"),
        ("x-amz-object-lock-legal-hold", "ON"),
        ("x-amz-bucket-object-lock-enabled", "true"),
        ("x-amz-bypass-governance-retention", "true"),
        ("x-amz-website-redirect-location", "/x"),
        ("x-amz-write-offset-bytes", "0"),
        ("x-amz-rename-source", "/b/k"),
        ("x-amz-if-match-size", "3"),
        ("x-amz-mfa", "1"),
        ("x-amz-anything-new", "1"),
        ("x-amz-mp-object-size", "1"),
        ("x-amz-metadata-directive", "REPLACE"),
        ("x-amz-object-attributes", "ETag"),
    ],
)
def test_headers_that_ask_for_more_are_refused(name, value):
    with pytest.raises(S3Error) as error:
        routed("PUT", "/bkt/k", (name, value))
    assert code_of(error) == ("NotImplemented", 501)


def test_headers_that_ask_for_what_is_done_anyway_are_taken():
    routed("PUT", "/bkt", ("x-amz-bucket-object-lock-enabled", "false"))
    routed(
        "PUT",
        "/bkt/k",
        ("x-amz-storage-class", "STANDARD"),
        ("x-amz-meta-anything", "x"),
        ("x-amz-checksum-crc32", "x"),
        ("x-amz-expected-bucket-owner", "tonfs"),
        ("amz-sdk-invocation-id", "x"),
    )
    with pytest.raises(S3Error) as error:
        routed("PUT", "/bkt/k", ("x-amz-expected-bucket-owner", "1234"))
    assert code_of(error) == ("AccessDenied", 403)


def test_strange_paths_name_no_bucket():
    for target in ("//k", "/a%2Fb/k"):
        with pytest.raises(S3Error) as error:
            routed("GET", target)
        assert code_of(error) == ("InvalidBucketName", 400)

"""SigV2: URLs to read one object until they expire, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import quote

import pytest

from tonfs.errors import S3Error
from tonfs.s3shim.auth import identify
from tonfs.s3shim.keys import KeyStore
from tonfs.s3shim.sigv4 import Request
from tonfs.s3shim.uri import parse_query, split_target

NOW = 1_000_000_000.0


@pytest.fixture
def keys(tmp_path) -> KeyStore:
    return KeyStore(tmp_path)


def sign(text: str, secret: bytes) -> str:
    return base64.b64encode(hmac.new(secret, text.encode(), hashlib.sha1).digest()).decode()


def url(keys: KeyStore, path: str = "/bkt/k", method: str = "GET", expires: object = NOW + 60, words: str = "") -> str:
    key = keys.list()[0] if keys.list() else keys.new()
    when = str(int(expires)) if isinstance(expires, float) else str(expires)
    text = f"{method}\n\n\n{when}\n{path}{'?' + words if words else ''}"
    signature = quote(sign(text, key.secret_key.reveal()), safe="")
    query = f"AWSAccessKeyId={key.access_key}&Signature={signature}&Expires={when}"
    return f"{path}?{words.replace(' ', '%20') + '&' if words else ''}{query}"


def ask(keys: KeyStore, target: str, method: str = "GET", *headers: tuple[str, str], on: bool = True) -> str:
    """Access key that the request was found to be from."""
    path, query = split_target(target)
    request = Request(method, path, parse_query(query), headers)
    return identify(request, keys, now=NOW, region="us-east-1", presigned_v2=on).access.access_key


def code(keys: KeyStore, *args: object, **words: object) -> str:
    with pytest.raises(S3Error) as error:
        ask(keys, *args, **words)  # type: ignore[arg-type]
    assert keys.list()[0].secret_key.reveal().decode() not in error.value.message
    return error.value.s3_code


def test_get_and_head_are_served_until_they_expire(keys):
    target = url(keys)
    assert ask(keys, target) == keys.list()[0].access_key
    assert ask(keys, url(keys, method="HEAD"), "HEAD")
    assert ask(keys, url(keys, "/bkt/a%20b/%C3%A9"))
    assert code(keys, url(keys, expires=NOW)) == "AccessDenied"
    assert code(keys, url(keys, expires=NOW + 8 * 86400)) == "AccessDenied"
    for nonsense in ("", "-1", "1e10", "text", "9" * 30):
        assert code(keys, url(keys, expires=nonsense)) == "AccessDenied"


def test_a_url_is_for_one_key_one_verb_and_these_words(keys):
    target = url(keys)
    assert code(keys, target.replace("/bkt/k", "/bkt/j")) == "SignatureDoesNotMatch"
    assert code(keys, target, "HEAD") == "SignatureDoesNotMatch"
    assert code(keys, target, "GET", ("x-amz-meta-a", "1")) == "SignatureDoesNotMatch"
    assert code(keys, target + "&response-content-type=text/html") == "SignatureDoesNotMatch"
    assert code(keys, target.replace("Signature=", "Signature=A")) == "SignatureDoesNotMatch"
    assert ask(keys, url(keys, words="response-content-type=text/html; charset=x"))
    assert code(keys, target + "&acl") == "InvalidRequest", "a word that is not signed"
    assert code(keys, target + "&Expires=1") == "InvalidArgument", "twice"


def test_everything_else_is_refused_with_the_setting_to_change(keys):
    keys.new()
    for method, path in (("PUT", "/bkt/k"), ("DELETE", "/bkt/k"), ("GET", "/bkt"), ("GET", "/"), ("POST", "/bkt/k")):
        with pytest.raises(S3Error, match="s3v4"):
            ask(keys, url(keys, path, method), method)
    with pytest.raises(S3Error, match="s3v4"):
        ask(keys, "/bkt/k", "GET", ("authorization", f"AWS {keys.list()[0].access_key}:c2ln"))
    with pytest.raises(S3Error, match="s3v4"):
        ask(keys, url(keys), on=False)


def test_unknown_keys_and_two_mechanisms_at_once_are_refused(keys):
    target = url(keys)
    assert code(keys, target.replace("AWSAccessKeyId=", "AWSAccessKeyId=X")) == "InvalidAccessKeyId"
    assert code(keys, target, "GET", ("authorization", "AWS4-HMAC-SHA256 x")) == "InvalidArgument"
    assert code(keys, "/bkt/k?Signature=x") == "AccessDenied"

"""Where the door listens: this machine, or beyond it with TLS, or beyond it without when told twice."""

from __future__ import annotations

import pytest

from tonfs.errors import UsageError
from tonfs.s3shim.listen import check_exposure, is_loopback, parse_listen, tls_context


@pytest.mark.parametrize("listen", [":80", "127.0.0.1", "127.0.0.1:70000", "x", "", "127.0.0.1:8a"])
def test_nonsense_is_refused(listen: str) -> None:
    with pytest.raises(UsageError):
        parse_listen(listen)


def test_addresses_are_split() -> None:
    assert parse_listen("127.0.0.1:0") == ("127.0.0.1", 0)
    assert parse_listen("localhost:8080") == ("localhost", 8080)
    assert parse_listen("[::1]:8080") == ("::1", 8080)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "::", "example.org", "127.0.0.1.example.org"])
def test_beyond_this_machine_needs_tls_or_two_words(host: str) -> None:
    assert not is_loopback(host)
    for asked, allowed in ((False, False), (True, False), (False, True)):
        with pytest.raises(UsageError, match="TLS"):
            check_exposure(host, tls=False, asked=asked, allowed=allowed)
    check_exposure(host, tls=False, asked=True, allowed=True)
    check_exposure(host, tls=True, asked=False, allowed=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_needs_nothing(host: str) -> None:
    check_exposure(host, tls=False, asked=False, allowed=False)


def test_a_certificate_that_cannot_be_used_is_said_so(tmp_path) -> None:
    assert tls_context("", "") is None
    junk = tmp_path / "junk.pem"
    junk.write_text("not a certificate")
    for certificate, key in ((str(junk), ""), (str(tmp_path / "absent.pem"), ""), ("", str(junk))):
        with pytest.raises(UsageError):
            tls_context(certificate, key)

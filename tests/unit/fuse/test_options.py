from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonfs.errors import UsageError
from tonfs.fuse import MountOptions, known_options, parse_options


def test_nothing_given_means_defaults() -> None:
    assert parse_options(()) == MountOptions()
    assert parse_options(("", "defaults,,")) == MountOptions()


def test_our_options_are_read() -> None:
    got = parse_options(
        ("volume=/v,uid=7,gid=8,umask=027", "deadline=2m,cache_size=4M,offline,s3=127.0.0.1:0,allow_other")
    )
    assert got == MountOptions(
        volume="/v",
        uid=7,
        gid=8,
        umask=0o027,
        deadline=120.0,
        cache_size=4 << 20,
        offline=True,
        s3="127.0.0.1:0",
        allow_other=True,
    )


def test_generic_options_go_to_the_kernel_or_nowhere() -> None:
    got = parse_options(
        ("rw,nosuid,dev,noexec,noatime,_netdev,nofail,user,x-systemd.automount,comment=hello,relatime",)
    )
    assert got == MountOptions(kernel=("nosuid", "dev", "noexec", "noatime"))
    assert parse_options(("default_permissions",)) == MountOptions()


@pytest.mark.parametrize(("text", "read_only"), [("ro", True), ("rw", False), ("ro,rw", False), ("rw,ro", True)])
def test_the_last_of_ro_and_rw_wins(text: str, read_only: bool) -> None:
    got = parse_options((text,))
    assert got.read_only == read_only
    assert ("ro" in got.kernel) == read_only


def test_commas_in_values_are_escaped() -> None:
    assert parse_options(("volume=/a\\,b,offline",)).volume == "/a,b"


def test_values_between_quotes_keep_their_commas_as_mount8_promises() -> None:
    got = parse_options(('volume="/a, b",offline',))
    assert (got.volume, got.offline) == ("/a, b", True)
    assert known_options(('volume="/a, b",nosuch,ro',)) == ('volume="/a, b",ro',)
    assert parse_options(('volume="/a',)).volume == '"/a'


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("deadlin=3", "deadline"),
        ("cachesize=1", "cache_size"),
        ("alow_other", "allow_other"),
        ("noatme", "noatime"),
        ("cache=4G", "cache_size"),
        ("iud=0", "uid"),
        ("readonly", "ro"),
        ("Allow-Other", "allow_other"),
        ("fmask=022", "umask"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest(text: str, near: str) -> None:
    with pytest.raises(UsageError, match="Unknown mount option") as caught:
        parse_options((text,))
    assert near in caught.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("fsname=abc", "volume="),
        ("subtype=x", "volume="),
        ("nosymfollow", "bind"),
        ("nonempty", "always"),
        ("max_read=4096", "Leave it out"),
    ],
)
def test_what_users_of_other_mounts_expect_has_an_answer_of_its_own(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_options((text,))
    assert hint in caught.value.hint
    assert "Did you mean" not in caught.value.hint


def test_a_remount_brings_what_the_kernel_shows_of_a_mount() -> None:
    got = parse_options(("rw,remount,nosuid,user_id=0,group_id=0,default_permissions,allow_other,deadline=2m",))
    assert got == MountOptions(remount=True, allow_other=True, deadline=120.0, kernel=("nosuid",))


def test_sloppy_calls_lose_what_nobody_knows_and_nothing_else() -> None:
    assert known_options(("ro,nosuch,volume=/a\\,b,x-y", "frob=1")) == ("ro,volume=/a\\,b,x-y", "")
    assert parse_options(known_options(("remount,nosuch,ro",))).remount


def test_owners_are_numbers_or_names() -> None:
    got = parse_options(("uid=root,gid=root",))
    assert (got.uid, got.gid) == (0, 0)
    with pytest.raises(UsageError, match="uid"):
        parse_options(("uid=no such user",))


@pytest.mark.parametrize(
    "text",
    ["uid=", "uid", "uid=x", "uid=-1", "uid=4294967296", "umask=9", "umask=7777", "deadline=0", "deadline=soon",
     "uid=4294967295", "default_permissions=0", "_netdev=1", "cache_size=lots", "show_control=1",
     "offline=1", "remount=1", "ro=1", "volume=", "deadline"],
)  # fmt: skip
def test_wrong_values_name_the_option(text: str) -> None:
    with pytest.raises(UsageError, match=text.split("=")[0]):
        parse_options((text,))


@pytest.mark.parametrize(
    ("text", "hint"), [("uid=nobody here", "number or name"), ("umask=9", "octal"), ("deadline=x", "30s")]
)
def test_a_wrong_value_is_told_what_would_be_right(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_options((text,))
    assert hint in caught.value.hint


@given(st.lists(st.text(max_size=20), max_size=4))
def test_any_text_is_parsed_or_refused(texts: list[str]) -> None:
    with contextlib.suppress(UsageError):
        parse_options(tuple(texts))

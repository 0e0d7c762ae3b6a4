from __future__ import annotations

import json
import stat

import pytest

from tonfs.clock import ManualClock
from tonfs.errors import Damaged, NotFound, UsageError
from tonfs.s3shim.keys import KeyStore, Rights

VECTOR = {
    "version": 2,
    "nonce": "000102030405060708090a0b",
    "sealed": (
        "Z4DzPgDTotvhqhinHShL9ZNhxLRiGip38oJEr289mTOIig7e7A/+gu9N3DxTqk8FJBDEtvT7fuWUq1O29FM8d7jcj5MpvYU5eATp"
        "hwcOVdQlbITNSmind8hRAaDB3vHPU6RzwQwmG0keLjp74vLX3wig00l8Ah90gK1ey86w18OkT61ZJtjVx1aMeM6uE4H/PdlIc234"
        "kw=="
    ),
}


def test_a_new_key_is_found_at_once_by_another_store(tmp_path):
    running, cli = KeyStore(tmp_path), KeyStore(tmp_path, ManualClock(1000))
    assert running.find("x") is None
    made = cli.new()
    found = running.find(made.access_key)
    assert found is not None
    assert found.secret_key.reveal() == made.secret_key.reveal()
    assert (found.rights, found.bucket, found.created) == (Rights.ADMIN, "", 1000)
    cli.revoke(made.access_key)
    assert running.find(made.access_key) is None


def test_keys_are_private_and_secrets_are_not_shown(tmp_path):
    made = KeyStore(tmp_path / "keys").new()
    path = tmp_path / "keys" / "s3.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert made.secret_key.reveal().decode() not in repr(made)
    assert len(made.secret_key.reveal()) == 40
    assert len(made.access_key) == 20


def test_rights_include_each_other_and_stop_at_the_bucket(tmp_path):
    store = KeyStore(tmp_path)
    reader, writer = store.new("pics", Rights.READ), store.new("", Rights.WRITE)
    assert reader.allows("pics", Rights.READ)
    assert not reader.allows("pics", Rights.WRITE)
    assert not reader.allows("other", Rights.READ)
    assert writer.allows("other", Rights.READ)
    assert not writer.allows("other", Rights.ADMIN)
    assert [key.access_key for key in store.list()] == sorted(
        (reader.access_key, writer.access_key), key=lambda k: (store.find(k).created, k)
    )
    with pytest.raises(UsageError):
        Rights.parse("owner")


def test_an_unknown_key_cannot_be_revoked(tmp_path):
    with pytest.raises(NotFound):
        KeyStore(tmp_path).revoke("nobody")


def test_a_broken_file_is_damage_and_stays_as_it_is(tmp_path):
    for text in ("", "{", "[]", '{"version": 2, "keys": []}', '{"version": 1, "keys": [{}]}', '{"version":1,"keys":5}'):
        (tmp_path / "s3.json").write_text(text, encoding="utf-8")
        with pytest.raises(Damaged):
            KeyStore(tmp_path).find("x")
        with pytest.raises(Damaged):
            KeyStore(tmp_path).new()
        assert (tmp_path / "s3.json").read_text(encoding="utf-8") == text


def test_the_file_is_sealed_and_opens_only_with_its_key_file(tmp_path):
    made = KeyStore(tmp_path).new("pics")
    stored = (tmp_path / "s3.json").read_bytes()
    for text in (made.access_key.encode(), made.secret_key.reveal(), b"pics"):
        assert text not in stored
    key_file = tmp_path / "s3.key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    elsewhere = tmp_path / "elsewhere.key"
    key_file.rename(elsewhere)
    with pytest.raises(Damaged, match="missing"):
        KeyStore(tmp_path).find(made.access_key)
    assert KeyStore(tmp_path, key_file=elsewhere).find(made.access_key).bucket == "pics"
    key_file.write_text("00" * 32)
    key_file.chmod(0o600)
    with pytest.raises(Damaged):
        KeyStore(tmp_path).find(made.access_key)
    elsewhere.chmod(0o640)
    with pytest.raises(Damaged, match="Others may read"):
        KeyStore(tmp_path, key_file=elsewhere).find(made.access_key)


def test_the_format_is_the_one_of_the_pages(tmp_path):
    """Vector of docs/formats.md."""
    (tmp_path / "s3.key").write_text("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n")
    (tmp_path / "s3.key").chmod(0o600)
    (tmp_path / "s3.json").write_text(json.dumps(VECTOR))
    store = KeyStore(tmp_path)
    found = store.find("TFEXAMPLE")
    assert found is not None
    assert (found.secret_key.reveal(), found.bucket, found.rights) == (b"secret", "pics", Rights.READ)
    assert store.public() == ["open"]


def test_a_plain_file_of_version_one_is_read_and_sealed(tmp_path):
    item = {"access_key": "TFOLD", "secret_key": "old secret", "bucket": "", "rights": "admin", "created": 5.0}
    (tmp_path / "s3.json").write_text(json.dumps({"version": 1, "keys": [item]}))
    store = KeyStore(tmp_path)
    assert store.find("TFOLD").secret_key.reveal() == b"old secret"
    store.migrate()
    assert b"old secret" not in (tmp_path / "s3.json").read_bytes()
    assert KeyStore(tmp_path).find("TFOLD").secret_key.reveal() == b"old secret"


def test_buckets_become_public_by_name_only(tmp_path):
    store = KeyStore(tmp_path)
    assert not store.is_public("pics")
    store.set_public("pics", True)
    assert KeyStore(tmp_path).is_public("pics")
    assert not store.is_public("pic")
    store.set_public("pics", False)
    assert not KeyStore(tmp_path).is_public("pics")
    with pytest.raises(NotFound):
        store.set_public("pics", False)


def test_patience_bounds_how_long_a_change_by_others_goes_unseen(tmp_path, monkeypatch):
    moment = 100.0
    monkeypatch.setattr("tonfs.s3shim.keys.time.monotonic", lambda: moment)
    door, other = KeyStore(tmp_path, patience=0.1), KeyStore(tmp_path)
    made = other.new()
    assert door.find(made.access_key) is not None
    other.revoke(made.access_key)
    assert door.find(made.access_key) is not None
    moment += 0.11
    assert door.find(made.access_key) is None
    mine = door.new()
    assert door.find(mine.access_key) is not None
    door.revoke(mine.access_key)
    assert door.find(mine.access_key) is None, "its own changes are seen at once"

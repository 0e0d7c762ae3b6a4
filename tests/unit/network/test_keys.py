from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from tonfs.errors import BadPacket, Damaged
from tonfs.network import keys

SEED_A = bytes(range(32))
SEED_B = bytes(range(32, 64))


def test_reference_vectors_of_both_keys() -> None:
    a, b = keys.KeyPair.from_seed(SEED_A), keys.KeyPair.from_seed(SEED_B)
    assert a.public_key.hex() == "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
    assert a.short_id.hex() == "c6fa26802422205ef272b0208c6273e83f94f3a0b88cd7e7aa2329726dc37820"
    assert keys.adnl_text(a.short_id) == "xdpujuaeqrcaxxsokycbddcopud7fhtuc4izv7hvirss4tnyn4caxvq"
    assert b.public_key.hex() == "29acbae141bccaf0b22e1a94d34d0bc7361e526d0bfe12c89794bc9322966dd7"
    assert b.short_id.hex() == "57377b68b3558b6375b4ab81fc85687d5bf5fb10a26e8ad3c33fcd40b67228e8"


def test_signature_vector_of_an_overlay_node() -> None:
    a = keys.KeyPair.from_seed(SEED_A)
    overlay = bytes.fromhex("4bdfd936fae332e385fc9f69b6bef417dba732732ee7393bb9494fe850bf515e")
    message = (0x03D8A8E1).to_bytes(4, "little") + a.short_id + overlay + (1_700_000_000).to_bytes(4, "little")
    signature = a.sign(message)
    assert signature.hex() == (
        "97a237f55e93150f11d86ed1e8d4cb0757504397c982afa61377fa976d97313b"
        "0a99ff3a606a7259c26f9764c7f5c05b0dd765a4b0e3d28fd36a55aac686300c"
    )
    assert keys.verify(a.public_key, message, signature)
    assert not keys.verify(a.public_key, message + b"x", signature)
    assert not keys.verify(a.public_key, message, signature[:-1])
    assert not keys.verify(bytes(32), message, signature)


def test_both_sides_agree_on_the_channel_secret_of_the_reference() -> None:
    a, b = keys.KeyPair.from_seed(b"\x07" * 32), keys.KeyPair.from_seed(b"\x09" * 32)
    secret = bytes.fromhex("2cb7f43f03eba482d4605e910e04c9209c90c3cf50dbf1ff3f2bd641d468bf16")
    assert a.x25519(b.public_key) == b.x25519(a.public_key) == secret


@pytest.mark.parametrize("bad", [bytes(32), b"\xff" * 32, b"\x01" + bytes(31)])
def test_bad_points_are_bad_packets(bad: bytes) -> None:
    with pytest.raises(BadPacket):
        keys.KeyPair.from_seed(SEED_A).x25519(bad)


def test_a_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "peer.key"
    first = keys.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    assert keys.load_or_create(path).public_key == first.public_key
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"too short")
    with pytest.raises(Damaged):
        keys.load_or_create(path)


def test_no_repr_shows_the_seed() -> None:
    pair = keys.KeyPair.from_seed(sha256(b"x").digest())
    assert pair.seed.reveal().hex() not in repr(pair) + str(pair.seed)

"""Words, keys, addresses and signed externals, against pytoniq's own wallets."""

from __future__ import annotations

import pytest
from nacl.signing import VerifyKey
from pytoniq_core import Cell as PyCell
from pytoniq_core.crypto.keys import mnemonic_is_valid, mnemonic_to_private_key
from pytoniq_core.tlb.custom.wallet import WalletV3Data, WalletV4Data

from tonfs.chain import codes
from tonfs.chain.address import join
from tonfs.chain.api import AccountState, AccountStatus
from tonfs.chain.cells import Builder, Cell, Reader, one_cell
from tonfs.chain.messages import Message, comment, parse_message
from tonfs.chain.wallet import WALLET_ID, Version, Wallet, check_words, new_words
from tonfs.errors import BadData, Refused, UsageError
from tonfs.ids import Address, NanoTon

SEED = bytes(range(32))
TO = Address("0:" + "12" * 32)


def state(wallet: Wallet, status: AccountStatus, code: Cell | None = None, data: Cell | None = None) -> AccountState:
    return AccountState(
        wallet.address, NanoTon(0), status, None if code is None else code.hash, code, data, 0, b"", 1, 1
    )


def test_new_words_are_valid_for_pytoniq_and_give_the_same_key() -> None:
    words = new_words()
    assert len(words) == 24
    assert mnemonic_is_valid(words)
    public, _ = mnemonic_to_private_key(words)
    assert Wallet.from_words(words).public_key == public


def test_words_are_read_in_any_case_and_spacing() -> None:
    words = new_words()
    assert check_words("  " + "\n ".join(w.upper() for w in words)) == words


def test_bad_words_are_refused_without_being_quoted() -> None:
    words = new_words()
    with pytest.raises(UsageError, match="23 words"):
        check_words(" ".join(words[:23]))
    with pytest.raises(UsageError, match="Word 3") as caught:
        check_words(" ".join([*words[:2], "secretword", *words[3:]]))
    assert "secretword" not in str(caught.value)
    swapped = [words[1], words[0], *words[2:]]
    if not mnemonic_is_valid(swapped):
        with pytest.raises(UsageError, match="belong"):
            check_words(" ".join(swapped))


@pytest.mark.parametrize(("version", "scheme"), [(Version.V3R2, WalletV3Data), (Version.V4R2, WalletV4Data)])
def test_data_and_address_are_what_pytoniq_computes(version: Version, scheme: type) -> None:
    wallet = Wallet.from_seed(SEED, version)
    data = scheme(seqno=0, wallet_id=WALLET_ID, public_key=wallet.public_key).serialize()
    code, ours = wallet.state_init.refs
    assert ours.hash == data.hash
    assert code.hash == {Version.V3R2: codes.WALLET_V3R2, Version.V4R2: codes.WALLET_V4R2}[version]
    assert wallet.address == join(0, wallet.state_init.hash)


def test_a_wallet_shows_no_key() -> None:
    assert SEED.hex() not in repr(Wallet.from_seed(SEED))


@pytest.mark.parametrize("version", list(Version))
def test_a_signed_external_verifies_and_holds_its_messages_in_order(version: Version) -> None:
    wallet = Wallet.from_seed(SEED, version)
    messages = [Message(TO, NanoTon(5), comment("one")), Message(TO, NanoTon(7), bounce=False)]
    signed = wallet.sign(3, 1_800_000_000, messages)
    cell = one_cell(signed.boc)
    assert signed.hash == cell.hash == PyCell.one_from_boc(signed.boc).hash
    external = parse_message(cell)
    assert external.destination == wallet.address
    assert not external.has_state_init
    reader = Reader(external.body)
    signature = reader.raw(64)
    VerifyKey(wallet.public_key).verify(reader.rest().hash, signature)
    assert (reader.left, external.body.refs[0].hash) == (0, messages[0].cell().hash)
    first, second = (parse_message(ref) for ref in external.body.refs)
    assert (first.value, first.comment, first.bounce) == (5, "one", True)
    assert (second.value, second.comment, second.bounce) == (7, None, False)


def test_the_first_external_carries_the_state_init_and_five_messages_are_too_many() -> None:
    wallet = Wallet.from_seed(SEED)
    assert parse_message(one_cell(wallet.sign(0, 1, []).boc)).has_state_init
    with pytest.raises(ValueError, match="at most 4"):
        wallet.sign(1, 1, [Message(TO, NanoTon(1))] * 5)


def test_the_seqno_comes_from_the_proved_data() -> None:
    wallet = Wallet.from_seed(SEED, "v4r2")
    code = codes.code(codes.WALLET_V4R2)
    data = Builder().uint(41, 32).uint(WALLET_ID, 32).raw(wallet.public_key).bit(False).cell()
    assert wallet.seqno(state(wallet, AccountStatus.ACTIVE, code, data)) == 41
    assert wallet.seqno(state(wallet, AccountStatus.UNINIT)) == 0
    assert wallet.seqno(state(wallet, AccountStatus.NONE)) == 0
    with pytest.raises(Refused):
        wallet.seqno(state(wallet, AccountStatus.FROZEN))
    with pytest.raises(Refused):
        wallet.seqno(state(wallet, AccountStatus.ACTIVE, Cell(b"x"), data))
    with pytest.raises(BadData):
        wallet.seqno(state(wallet, AccountStatus.ACTIVE, code, Cell(b"")))

"""The binding of libemulator: widths that the stock one gets wrong, refusals, get methods."""

from __future__ import annotations

import resource

import pytest
from pytoniq_core import Cell, Transaction, begin_cell
from pytoniq_core.tlb.vm_stack import VmStack

from tonfs.devnet.chain_api import AccountId
from tonfs.devnet.emulator import Emulator, Executed, NotExecuted, library_path
from tonfs.devnet.genesis import config_dictionary
from tonfs.devnet.ledger import FAUCET, crc16
from tonfs.devnet.multiboc import to_boc
from tonfs.devnet.tlb import NO_SHARD_ACCOUNT, internal_message
from tonfs.errors import BadData, NotFound, TonfsError

NOBODY = to_boc(NO_SHARD_ACCOUNT)
SEED = bytes(32)


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return Emulator(to_boc(config_dictionary()))


def gift(amount: int, lt: int = 5) -> bytes:
    return to_boc(internal_message(FAUCET, AccountId(0, b"\x05" * 32), amount, lt=lt, now=10**9))


def test_logical_times_beyond_32_bits_are_kept(emulator: Emulator) -> None:
    lt = 8_589_934_599 * 1_000_000
    result = emulator.execute(NOBODY, gift(10**9), now=1_700_000_000, lt=lt, seed=SEED)
    assert isinstance(result, Executed)
    transaction = Transaction.deserialize(Cell.one_from_boc(result.transaction).begin_parse())
    assert transaction.lt == lt
    assert transaction.now == 1_700_000_000


def getter(instructions: str) -> bytes:
    """Code that drops the method id and runs these instructions."""
    code: bytes = begin_cell().store_bytes(bytes.fromhex("30" + instructions)).end_cell().to_boc()
    return code


EMPTY = begin_cell().end_cell().to_boc()
NO_ARGUMENTS = VmStack.serialize([]).to_boc()


def run(emulator: Emulator, code: bytes, balance: int = 0, now: int = 7) -> tuple[int, list[object]]:
    result = emulator.run_method(
        AccountId(0, bytes(32)).raw, code, EMPTY, method_id=1, stack=NO_ARGUMENTS, now=now, balance=balance
    )
    return result.exit_code, VmStack.deserialize(Cell.one_from_boc(result.stack).begin_parse())


def test_balances_beyond_32_bits_reach_get_methods(emulator: Emulator) -> None:
    exit_code, stack = run(emulator, getter("f827" + "6f10"), balance=123_456_789_000_000_000)
    assert exit_code == 0
    assert stack[-1] == 123_456_789_000_000_000


def test_get_methods_see_the_given_time(emulator: Emulator) -> None:
    assert run(emulator, getter("f823"), now=4_000_000_000) == (0, [4_000_000_000])


def test_a_refused_external_says_so(emulator: Emulator) -> None:
    body = begin_cell().store_uint(0b10, 2).store_uint(0, 2).store_uint(0b100, 3).store_uint(0, 8)
    message = body.store_bytes(b"\x05" * 32).store_coins(0).store_bit(False).store_bit(False).end_cell()
    result = emulator.execute(NOBODY, message.to_boc(), now=10**9, lt=10**6, seed=SEED)
    assert isinstance(result, NotExecuted)
    assert result.error


@pytest.mark.parametrize("junk", [b"", b"abc", b"\xb5\xee\x9c\x72" + bytes(40)])
def test_junk_is_an_error_not_a_crash(emulator: Emulator, junk: bytes) -> None:
    assert isinstance(emulator.execute(NOBODY, junk, now=1, lt=10**6, seed=SEED), NotExecuted)
    assert isinstance(emulator.execute(junk, gift(1), now=1, lt=10**6, seed=SEED), NotExecuted)
    with pytest.raises((TonfsError, BadData)):
        emulator.run_method("0:" + "0" * 64, getter("f823"), EMPTY, method_id=1, stack=junk, now=1, balance=0)
    with pytest.raises(TonfsError):
        Emulator(junk)


def test_memory_stays_flat(emulator: Emulator) -> None:
    message = gift(10**9)

    def work(times: int) -> int:
        for _ in range(times):
            emulator.execute(NOBODY, message, now=10**9, lt=10**6, seed=SEED)
            run(emulator, getter("f823"))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = work(100)
    assert work(600) - before < 2000  # KiB; the stock binding leaks 0.68 KiB a call and more for long answers


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotFound, match="pytvm"):
        library_path()


def test_method_ids_are_the_known_ones() -> None:
    assert crc16(b"seqno") & 0xFFFF | 0x10000 == 85143

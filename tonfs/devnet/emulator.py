"""A thin binding of libemulator, the TON node's own transaction executor as shipped in the pytvm wheel.

The wheel's Python classes truncate lt and balance to 32 bits and never free result strings (reference contracts
9.1), so only its library file is used. All strings cross as base64 of a BoC. Not safe for more than one thread.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import BadData, NotFound, TonfsError
from ..ids import Address

EXTERNAL_REFUSED: Final = "cannot apply external message to current state"
_LIBRARY: Final = "engine/libemulator-linux-x86_64.so"


@dataclass(frozen=True, slots=True)
class Executed:
    """A transaction that went into the chain: BoCs of the Transaction and of the new ShardAccount."""

    transaction: bytes
    shard_account: bytes


@dataclass(frozen=True, slots=True)
class NotExecuted:
    """No transaction. `accepted` is False when an external message was refused; `vm_exit_code` says why."""

    error: str
    external_refused: bool
    vm_exit_code: int | None


@dataclass(frozen=True, slots=True)
class MethodResult:
    """`stack` is a VmStack BoC (empty when the emulator itself failed)."""

    exit_code: int
    stack: bytes
    gas_used: int


def library_path() -> Path:
    """Where the library file is. Raises NotFound when the devnet extra is not installed."""
    spec = importlib.util.find_spec("pytvm")
    if spec is None or not spec.submodule_search_locations:
        raise NotFound("The package pytvm is not installed.", hint="Install tonfs with its devnet extra.")
    path = Path(spec.submodule_search_locations[0]) / _LIBRARY
    if not path.exists():
        raise NotFound(f"There is no emulator library at {path}.", hint="The devnet needs x86-64 Linux.")
    return path


class _Library:
    """The functions in use with their true widths; `text` copies and frees a result string."""

    def __init__(self, path: Path) -> None:
        lib = ctypes.CDLL(str(path))
        handle, text, flag = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_bool
        u32, u64, i32, i64 = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int32, ctypes.c_int64

        def bind(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
            return function  # type: ignore[no-any-return]

        self.create = bind("transaction_emulator_create", handle, text, i32)
        self.destroy = bind("transaction_emulator_destroy", None, handle)
        self.set_unixtime = bind("transaction_emulator_set_unixtime", flag, handle, u32)
        self.set_lt = bind("transaction_emulator_set_lt", flag, handle, u64)
        self.set_seed = bind("transaction_emulator_set_rand_seed", flag, handle, text)
        self.emulate = bind("transaction_emulator_emulate_transaction", handle, handle, text, text)
        self.tvm_create = bind("tvm_emulator_create", handle, text, text, i32)
        self.tvm_destroy = bind("tvm_emulator_destroy", None, handle)
        self.tvm_c7 = bind("tvm_emulator_set_c7", flag, handle, text, u32, u64, text, text)
        self.tvm_gas = bind("tvm_emulator_set_gas_limit", flag, handle, i64)
        self.tvm_method = bind("tvm_emulator_run_get_method", handle, handle, i32, text)
        self._free = ctypes.CDLL(None).free
        self._free.argtypes, self._free.restype = [handle], None
        bind("emulator_set_verbosity_level", flag, i32)(0)

    def text(self, pointer: int | None) -> dict[str, Any]:
        if not pointer:
            raise TonfsError("The emulator gave no answer.")
        try:
            answer: dict[str, Any] = json.loads(ctypes.string_at(pointer))
        finally:
            self._free(pointer)
        return answer


@functools.cache
def _library() -> _Library:
    return _Library(library_path())


class Emulator:
    """Executes transactions and get methods under one config (BoC of the config dictionary's root)."""

    def __init__(self, config: bytes) -> None:
        self._lib = _library()
        self._config = b64encode(config)
        self._handle = self._lib.create(self._config, 0)
        if not self._handle:
            raise TonfsError("The emulator does not accept the chain's config.")

    def close(self) -> None:
        if self._handle:
            self._lib.destroy(self._handle)
            self._handle = None

    def __del__(self) -> None:
        self.close()

    def execute(
        self, shard_account: bytes, message: bytes, *, now: int, lt: int, seed: bytes
    ) -> Executed | NotExecuted:
        """One transaction. `lt` must exceed the account's and the message's; `seed` (32 bytes) decides rand()."""
        lib, handle = self._lib, self._handle
        if not (lib.set_unixtime(handle, now) and lib.set_lt(handle, lt) and lib.set_seed(handle, seed.hex().encode())):
            raise TonfsError("The emulator does not accept time, lt or seed.")
        answer = lib.text(lib.emulate(handle, b64encode(shard_account), b64encode(message)))
        if answer.get("success"):
            return Executed(b64decode(answer["transaction"]), b64decode(answer["shard_account"]))
        refused = bool(answer.get("external_not_accepted"))
        code = answer.get("vm_exit_code")
        return NotExecuted(str(answer.get("error", "")), refused, code if isinstance(code, int) else None)

    def run_method(
        self,
        address: Address,
        code: bytes,
        data: bytes,
        *,
        method_id: int,
        stack: bytes,
        now: int,
        balance: int,
        seed: bytes = bytes(32),
        gas_limit: int = 1_000_000,
    ) -> MethodResult:
        """A get method on this code and data; `stack` = VmStack BoC."""
        lib = self._lib
        handle = lib.tvm_create(b64encode(code), b64encode(data), 0)
        if not handle:
            raise TonfsError("The emulator does not accept the contract's code or data.")
        try:
            lib.tvm_c7(handle, address.encode(), now, balance, seed.hex().encode(), self._config)
            lib.tvm_gas(handle, gas_limit)
            answer = lib.text(lib.tvm_method(handle, method_id, b64encode(stack)))
        finally:
            lib.tvm_destroy(handle)
        if not answer.get("success"):
            raise BadData(f"The emulator could not run the get method: {answer.get('error', '')}")
        return MethodResult(int(answer["vm_exit_code"]), b64decode(answer["stack"]), int(answer["gas_used"]))

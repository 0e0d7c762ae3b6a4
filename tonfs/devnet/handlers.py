"""What only a devnet can do, over its control socket: faucet, time, faults, traces, snapshots.

Addresses are taken in every usual form and given in the raw one; amounts are integer nanoTON; hashes are hex.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from ..chain.address import parse_address
from ..chain.cells import one_cell
from ..chain.messages import parse_transaction
from ..clock import rfc3339
from ..control import Handler, serve
from ..errors import TimedOut, UsageError
from ..ids import NanoTon
from .chain_api import AccountId, TraceStep, TransactionInfo
from .state import LOOPBACK

if TYPE_CHECKING:
    from .daemon import Daemon

FAUCET_TIMEOUT: Final = 60.0
MOST_TRANSACTIONS: Final = 1000


def _text(params: Mapping[str, Any], name: str) -> str:
    value = params.get(name)
    if not isinstance(value, str) or not value:
        raise UsageError(f"The control method needs {name!r}, a text.")
    return value


def _number(params: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = params.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"The control method needs {name!r}, a whole number.")
    return value


def transaction_json(value: TransactionInfo) -> dict[str, Any]:
    """One transaction; `source`, `value`, `op`, `query_id` and `comment` are those of the message that came in."""
    message = parse_transaction(one_cell(value.boc), AccountId.parse(value.account).workchain).in_message
    out = zip(value.out_messages, value.out_destinations, value.out_values, strict=True)
    return {
        "account": value.account,
        "lt": value.lt,
        "hash": value.hash.hex(),
        "seqno": value.seqno,
        "time": rfc3339(value.utime),
        "aborted": value.aborted,
        "exit_code": value.exit_code,
        "action_code": value.action_code,
        "fees": value.total_fees,
        "message": value.in_hash.hex() if value.in_hash is not None else None,
        "source": value.in_source,
        "value": value.in_value,
        "bounced": value.in_bounced,
        "op": message.op if message is not None else None,
        "query_id": message.query_id if message is not None else None,
        "comment": message.comment if message is not None else None,
        "out": [{"message": h.hex(), "to": to, "value": amount} for h, to, amount in out],
    }


def step_json(step: TraceStep) -> dict[str, Any]:
    found = step.transaction
    return {
        "message": step.message.hex(),
        "depth": step.depth,
        "transaction": None if found is None else transaction_json(found),
    }


class Handlers:
    """The methods of control.sock."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._chain = daemon.chain

    async def serve(self, path: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        methods: dict[str, Handler] = {
            "ping": self.ping,
            "status": self.status,
            "faucet": self.faucet,
            "balance": self.balance,
            "advance": self.advance,
            "fault": self.fault,
            "trace": self.trace,
            "transactions": self.transactions,
            "snapshot": self.snapshot,
            "restore": self.restore,
            "snapshots": self.snapshots,
            "coins": self.coins,
            "shutdown": self.shutdown,
        }
        await serve(path, methods, task_status=task_status)

    async def ping(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"pid": os.getpid(), "ready": self._daemon.ready}

    async def status(self, params: dict[str, Any]) -> dict[str, Any]:
        daemon, last = self._daemon, self._chain.last
        return {
            "state": str(daemon.options.state.path),
            "pid": os.getpid(),
            "ready": daemon.ready,
            "global_config": str(daemon.options.state.global_config),
            "lite_server": f"{LOOPBACK}:{daemon.state.lite_port}",
            "dht": f"{LOOPBACK}:{daemon.state.dht_port}",
            "providers": [p.summary() for p in daemon.supervisor.providers],
            "seqno": last.seqno,
            "time": rfc3339(self._chain.now()),
            "block_interval": daemon.ticker.interval,
            "clients": daemon.lite.connections,
            "coins": self._coins(),
        }

    def _coins(self) -> dict[str, Any]:
        coins = self._chain.coins()
        return {
            "issued": coins.issued,
            "held": coins.held,
            "fees": coins.fees,
            "in_flight": coins.in_flight,
            "ok": coins.ok,
        }

    async def coins(self, params: dict[str, Any]) -> dict[str, Any]:
        return self._coins()

    async def faucet(self, params: dict[str, Any]) -> dict[str, Any]:
        """New coins for an address; answers once they are in a block."""
        address = parse_address(_text(params, "address"))
        amount = NanoTon(_number(params, "amount"))
        message = self._chain.faucet(address, amount)
        self._daemon.ticker.hurry()
        with trio.move_on_after(FAUCET_TIMEOUT):
            while True:
                block = await self._daemon.ticker.next_block()
                if self._chain.trace(message)[0].transaction is not None:
                    break
            balance = self._chain.account(address).balance
            return {
                "address": address,
                "amount": amount,
                "balance": balance,
                "message": message.hex(),
                "seqno": block.seqno,
            }
        raise TimedOut(f"The coins are not in a block after {FAUCET_TIMEOUT:g} s.")

    async def balance(self, params: dict[str, Any]) -> dict[str, Any]:
        account = self._chain.account(parse_address(_text(params, "address")))
        return {"address": account.address, "balance": account.balance, "status": account.status}

    async def advance(self, params: dict[str, Any]) -> dict[str, Any]:
        """Move the chain clock; answers once a block has the new time."""
        self._chain.advance(_number(params, "seconds"))
        self._daemon.ticker.hurry()
        block = await self._daemon.ticker.next_block()
        return {"seqno": block.seqno, "time": rfc3339(block.gen_utime)}

    async def fault(self, params: dict[str, Any]) -> dict[str, Any]:
        provider = self._daemon.supervisor.find(str(params.get("provider", "")))
        await self._daemon.supervisor.set_fault(provider, _text(params, "kind"))
        return provider.summary()

    async def trace(self, params: dict[str, Any]) -> dict[str, Any]:
        word = _text(params, "hash")
        try:
            hash_ = bytes.fromhex(word)
        except ValueError:
            hash_ = b""
        if len(hash_) != 32:
            raise UsageError(f"{word[:80]!r} is not the hash of a message (64 hex digits).")
        return {"steps": [step_json(step) for step in self._chain.trace(hash_)]}

    async def transactions(self, params: dict[str, Any]) -> dict[str, Any]:
        address = parse_address(_text(params, "address"))
        limit = _number(params, "limit", 20)
        if not 0 < limit <= MOST_TRANSACTIONS:
            raise UsageError(f"The limit must be 1 to {MOST_TRANSACTIONS}.")
        before = _number(params, "before", 0) or None
        found = self._chain.transactions(address, limit, before)
        return {"transactions": [transaction_json(t) for t in found]}

    async def snapshot(self, params: dict[str, Any]) -> dict[str, Any]:
        name = _text(params, "name")
        self._chain.snapshot(name)
        return {"name": name, "seqno": self._chain.last.seqno}

    async def restore(self, params: dict[str, Any]) -> dict[str, Any]:
        """Set the chain back; lite clients are disconnected, for they know blocks that are gone."""
        name = _text(params, "name")
        self._chain.restore(name)
        self._daemon.lite.drop_connections()
        self._daemon.fund_providers()
        return {"name": name, "seqno": self._chain.last.seqno}

    async def snapshots(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"snapshots": self._chain.snapshots()}

    async def shutdown(self, params: dict[str, Any]) -> dict[str, Any]:
        """Stop in order. The answer comes first; the state directory is free when its lock is."""
        self._daemon.stopping.set()
        return {"pid": os.getpid()}

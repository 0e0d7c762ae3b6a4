"""What the peer process answers on its control socket, and how values of `PeerNet` look there.

Byte strings are hex, sets of pieces are `[[first, count], ...]`, errors cross by their code (see `control`). No bag
data crosses: pieces are written in place.

| method | params | result |
| --- | --- | --- |
| `ping` | | `pid`, `id`, `address`, `instance` (another one after every start) |
| `seed` | `bag_id`, `directory` | |
| `forget` | `bag_id` | |
| `fetch` | `bag_id`, `directory`, `pieces` or null, `timeout`, `token`? | `have`, `wanted`, `bytes`, `wrong` |
| `audit_piece` | as `fetch`, with `piece`, `peer` for `pieces` | `outcome`, `bytes`, `seconds`, `detail` |
| `revoke` | `token` | the call with this token ends with `TimedOut` |
| `provider_rates` | `provider`, `size`, `timeout` | fields of `Rates` |
| `provider_storage` | `provider`, `contract`, `byte`, `timeout` | fields of `StorageStatus` |
| `provider_adnl` | `provider`, `contract`, `timeout` | `adnl_id` |
| `status` | | `id`, `address`, `bags`, `traffic`, `limits` (`upload`, `upload_per_peer`: bytes per second, 0: none) |
| `peers` | `bag_id` | `peers` |
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import trio

from ..control import Handler
from ..errors import TimedOut, UsageError
from ..ids import Address, AdnlId, BagId, ProviderKey, bag_id, provider_key, raw_address
from .api import AdnlEndpoint, FetchReport, PeerNet, PieceAnswer
from .storage_node import BagInfo, PeerInfo, StorageNode

MAX_PIECES: Final = 32_000_000


def pack_pieces(pieces: Iterable[int]) -> list[list[int]]:
    """Runs `[first, count]` of a set of pieces."""
    runs = []
    for _, group in groupby(enumerate(sorted(set(pieces))), key=lambda pair: pair[1] - pair[0]):
        run = [piece for _, piece in group]
        runs.append([run[0], len(run)])
    return runs


def parse_pieces(value: Any) -> Sequence[int] | None:
    """The opposite; None stays None. Raises UsageError."""
    if value is None:
        return None
    pieces: list[int] = []
    try:
        for first, count in value:
            if type(first) is not int or type(count) is not int or count < 1 or len(pieces) + count > MAX_PIECES:
                raise ValueError
            pieces.extend(range(first, first + count))
    except (TypeError, ValueError):
        raise UsageError("'pieces' is not a list of [first, count].") from None
    return pieces


def _get(params: dict[str, Any], name: str, parse: Callable[[Any], Any]) -> Any:
    try:
        return parse(params[name])
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"The parameter {name!r} is missing or wrong.") from None


def _adnl_id(text: str) -> AdnlId:
    return AdnlId(bag_id(text))


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 < seconds < 1e9:
        raise ValueError
    return seconds


def _bag(params: dict[str, Any]) -> tuple[BagId, Path]:
    return _get(params, "bag_id", bag_id), _get(params, "directory", Path)


class _Revocable:
    """Calls that can be ended by their token."""

    def __init__(self) -> None:
        self._scopes: dict[str, trio.CancelScope] = {}

    async def run(
        self, params: dict[str, Any], call: Callable[[], Awaitable[FetchReport | PieceAnswer]]
    ) -> dict[str, Any]:
        token = str(params.get("token") or id(params))
        with trio.CancelScope() as scope:
            self._scopes[token] = scope
            try:
                return asdict(await call())
            finally:
                self._scopes.pop(token, None)
        raise TimedOut("The call was revoked.")

    async def revoke(self, params: dict[str, Any]) -> dict[str, Any]:
        scope = self._scopes.get(str(params.get("token")))
        if scope is not None:
            scope.cancel()
        return {}


def net_handlers(net: PeerNet) -> dict[str, Handler]:
    """The methods of `PeerNet` for a control socket."""
    revocable = _Revocable()

    async def seed(params: dict[str, Any]) -> dict[str, Any]:
        await net.seed(*_bag(params))
        return {}

    async def forget(params: dict[str, Any]) -> dict[str, Any]:
        await net.forget(_get(params, "bag_id", bag_id))
        return {}

    async def fetch(params: dict[str, Any]) -> dict[str, Any]:
        pieces = parse_pieces(params.get("pieces"))
        timeout = _get(params, "timeout", _seconds)
        return await revocable.run(params, partial(net.fetch, *_bag(params), pieces, timeout=timeout))

    async def audit_piece(params: dict[str, Any]) -> dict[str, Any]:
        piece, peer = _get(params, "piece", int), _get(params, "peer", _adnl_id)
        timeout = _get(params, "timeout", _seconds)
        return await revocable.run(params, partial(net.audit_piece, *_bag(params), piece, peer, timeout=timeout))

    async def provider_rates(params: dict[str, Any]) -> dict[str, Any]:
        provider: ProviderKey = _get(params, "provider", provider_key)
        size = _get(params, "size", int)
        return asdict(await net.provider_rates(provider, size, timeout=_get(params, "timeout", _seconds)))

    async def provider_storage(params: dict[str, Any]) -> dict[str, Any]:
        provider: ProviderKey = _get(params, "provider", provider_key)
        contract: Address = _get(params, "contract", raw_address)
        timeout = _get(params, "timeout", _seconds)
        status = await net.provider_storage(provider, contract, _get(params, "byte", int), timeout=timeout)
        return {**asdict(status), "proof": status.proof.hex()}

    async def provider_adnl(params: dict[str, Any]) -> dict[str, Any]:
        provider: ProviderKey = _get(params, "provider", provider_key)
        contract: Address = _get(params, "contract", raw_address)
        found = await net.provider_adnl(provider, contract, timeout=_get(params, "timeout", _seconds))
        return {"adnl_id": found.hex()}

    methods: list[Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = [
        seed,
        forget,
        fetch,
        audit_piece,
        provider_rates,
        provider_storage,
        provider_adnl,
        revocable.revoke,
    ]
    return {method.__name__: method for method in methods}


def _show_bag(info: BagInfo) -> dict[str, Any]:
    return {**asdict(info), "bag_id": info.bag_id.hex(), "directory": str(info.directory)}


def _show_peer(info: PeerInfo) -> dict[str, Any]:
    return {**asdict(info), "id": info.id.hex(), "address": _show_address(info.address)}


def _show_address(address: tuple[str, int] | None) -> str | None:
    return None if address is None else f"{address[0]}:{address[1]}"


def node_handlers(
    node: StorageNode, endpoint: AdnlEndpoint, traffic: Callable[[], dict[str, Any]], limits: dict[str, int]
) -> dict[str, Handler]:
    """All methods of a node of our own, those that show its insides included."""
    instance = os.urandom(8).hex()

    async def ping(params: dict[str, Any]) -> dict[str, Any]:
        address = _show_address(endpoint.address)
        return {"pid": os.getpid(), "id": endpoint.id.hex(), "address": address, "instance": instance}

    async def status(params: dict[str, Any]) -> dict[str, Any]:
        bags = [_show_bag(info) for info in node.bags()]
        return {**await ping({}), "bags": bags, "traffic": traffic(), "limits": limits}

    async def peers(params: dict[str, Any]) -> dict[str, Any]:
        return {"peers": [_show_peer(info) for info in node.peers(_get(params, "bag_id", bag_id))]}

    return {**net_handlers(node), "ping": ping, "status": status, "peers": peers}

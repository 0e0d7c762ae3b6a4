"""`tonfs contract list|show`: storage contracts, as the chain proves them."""

from __future__ import annotations

from typing import Any

import click

from ..chain.address import friendly, parse_address
from ..chain.api import AccountState
from ..chain.lite import LiteChain
from ..chain.storage2 import read_contract
from ..clock import rfc3339
from ..control import call_sync
from ..ids import format_ton
from .chainwork import with_chain
from .common import Context, emit, json_option, pass_context, show_size, show_table, volume_option


@click.group(help="Storage contracts.")
def command() -> None:
    """One contract per bag; it pays every provider that proves."""


@command.command("list", help="The contracts of this volume's bags.")
@json_option
@volume_option
@pass_context
def list_(context: Context, as_json: bool) -> None:
    settings = context.with_network()
    reply = call_sync(context.volume / "run" / "agent.sock", "contracts", who="agent", timeout=30.0)
    if as_json:
        emit("contract.list", reply)
        return
    test_only = settings.network == "testnet"
    rows = [
        (row["bag_id"][:12], friendly(row["contract"], test_only=test_only), row["state"], show_size(row["size"]))
        for row in reply["contracts"]
    ]
    show_table(("bag", "contract", "state", "size"), rows, right={"size"})


@command.command(help="One contract: balance, bag, providers, proofs. ADDRESS in any usual form.")
@click.argument("address")
@json_option
@volume_option
@pass_context
def show(context: Context, address: str, as_json: bool) -> None:
    settings = context.with_network()
    target = parse_address(address)

    async def look(chain: LiteChain) -> AccountState:
        return await chain.account(target)

    state = with_chain(context.volume, settings, look)
    contract = read_contract(state)
    providers: list[dict[str, Any]] = [
        {
            "key": key.hex(),
            "rate": entry.rate,
            "span": entry.max_span,
            "last_proof": rfc3339(entry.last_proof_time) if entry.last_proof_time else None,
            "bounty": contract.bounty(key),
        }
        for key, entry in sorted(contract.providers.items())
    ]
    value = {
        "address": friendly(target, test_only=settings.network == "testnet"),
        "raw": target,
        "status": state.status.value,
        "balance": contract.balance,
        "available": contract.available,
        "owner": contract.owner,
        "bag_id": contract.torrent_hash.hex(),
        "size": contract.file_size,
        "piece_size": contract.piece_size,
        "root_hash": contract.merkle_hash.hex(),
        "code_hash": state.code_hash.hex() if state.code_hash else None,
        "data_hash": state.data.hash.hex() if state.data else None,
        "cost_per_day": contract.cost_per_day(),
        "providers": providers,
    }
    if as_json:
        emit("contract.show", value)
        return
    click.echo(f"{value['address']} ({value['status']})")
    click.echo(f"bag {value['bag_id']}, {show_size(contract.file_size)}")
    click.echo(
        f"{format_ton(contract.balance)} TON, {format_ton(contract.available)} for providers, "
        f"{format_ton(contract.cost_per_day())} a day"
    )
    for row in providers:
        click.echo(
            f"  {row['key'][:16]}  {format_ton(row['rate'])} TON per MB-day, every {row['span']} s, "
            f"last proof {row['last_proof'] or 'none yet'}"
        )

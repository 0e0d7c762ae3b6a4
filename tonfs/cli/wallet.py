"""`tonfs wallet show|new`: the wallet that pays for storage."""

from __future__ import annotations

import click

from ..chain.address import friendly
from ..chain.api import AccountState
from ..chain.lite import LiteChain
from ..chain.wallet import new_words
from ..ids import format_ton
from .chainwork import volume_wallet, with_chain
from .common import Context, emit, json_option, pass_context, volume_option
from .init import show_words


@click.group(help="The wallet that pays for storage.")
def command() -> None:
    """A v4r2 wallet made of the volume's 24 words."""


@command.command(help="Show address and balance, as the chain proves them.")
@json_option
@volume_option
@pass_context
def show(context: Context, as_json: bool) -> None:
    settings = context.settings()
    wallet = volume_wallet(context.volume)

    async def look(chain: LiteChain) -> AccountState:
        return await chain.account(wallet.address)

    state = with_chain(context.volume, settings, look)
    test_only = settings.network == "testnet"
    address = friendly(wallet.address, bounceable=False, test_only=test_only)
    if as_json:
        value = {
            "address": address,
            "raw": wallet.address,
            "version": wallet.version.value,
            "public_key": wallet.public_key.hex(),
            "balance": state.balance,
            "status": state.status.value,
            "seqno": wallet.seqno(state),
        }
        emit("wallet.show", value)
        return
    click.echo(f"{address} ({wallet.version.value}, {state.status.value})")
    click.echo(f"{format_ton(state.balance)} TON")


@command.command(help="Print 24 new words; nothing is kept. 'tonfs init --words-file' makes a volume of them.")
def new() -> None:
    show_words(new_words())

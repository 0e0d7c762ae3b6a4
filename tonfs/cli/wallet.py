"""`tonfs wallet show|new|import`: the wallet that pays for storage."""

from __future__ import annotations

from pathlib import Path

import click

from ..chain.address import friendly
from ..chain.api import AccountState
from ..chain.lite import LiteChain
from ..chain.wallet import Wallet, new_words
from ..errors import Refused
from ..ids import format_ton
from .chainwork import volume_wallet, with_chain
from .common import Context, emit, json_option, pass_context, volume_option
from .init import read_words, show_words, write_private


@click.group(help="The wallet that pays for storage.")
def command() -> None:
    """A v4r2 wallet made of the volume's 24 words."""


@command.command(help="Show address and balance, as the chain proves them.")
@json_option
@volume_option
@pass_context
def show(context: Context, as_json: bool) -> None:
    settings = context.with_network()
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


@command.command("import", help="Give the volume the wallet of 24 words in FILE, when its own file is lost.")
@click.argument("file", type=click.Path(path_type=Path))
@volume_option
@pass_context
def import_(context: Context, file: Path) -> None:
    settings = context.with_network()
    words = read_words(file)
    kept = context.volume / "keys" / "words"
    if kept.exists():
        if kept.read_text(encoding="utf-8").split() != words:
            raise Refused(
                "The volume has another wallet already, and its contracts belong to that one.",
                hint="Make a new volume with 'tonfs init --words-file'.",
            )
        click.echo("The volume has this very wallet already.", err=True)
        return
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    write_private(kept, " ".join(words) + "\n")
    test_only = settings.network == "testnet"
    click.echo(friendly(Wallet.from_words(words).address, bounceable=False, test_only=test_only))

"""`tonfs ledger`: what was spent on what, down to the nanoTON."""

from __future__ import annotations

import csv
import sys

import click

from ..control import call_sync
from ..ids import format_ton
from .common import Context, emit, json_option, pass_context, show_table, volume_option


@click.command(help="What was spent on what, from the chain's own transactions.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated rows on stdout, amounts in nanoTON.")
@json_option
@volume_option
@pass_context
def command(context: Context, as_csv: bool, as_json: bool) -> None:
    context.with_network()
    reply = call_sync(context.volume / "run" / "agent.sock", "ledger", who="agent", timeout=120.0)
    if as_json:
        emit("ledger", reply)
        return
    columns = ("bag_id", "contract", "state", "funded", "returned", "rewards", "fees", "left")
    if as_csv:
        writer = csv.DictWriter(sys.stdout, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(reply["contracts"])
        return
    amounts = columns[3:]
    rows = [[c["bag_id"][:12], c["state"], *(format_ton(c[name]) for name in amounts)] for c in reply["contracts"]]
    show_table(("bag", "state", *amounts), rows, right=amounts)
    total = reply["total"]
    click.echo(
        f"\nTON: received {format_ton(total['received'])}, sent to contracts {format_ton(total['funded'])}, "
        f"back {format_ton(total['returned'])}, wallet fees {format_ton(total['wallet_fees'])}, "
        f"balance {format_ton(total['balance'])}; adds up: {'yes' if total['adds_up'] else 'NO'}"
    )

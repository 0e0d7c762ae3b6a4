"""Runs inside .judges/tonutils, which knows nothing of tonfs: what does a stock client see of the devnet?

Usage: stock_client.py GLOBAL_CONFIG WALLET CONTRACT; prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys

from ton_core import Address, NetworkGlobalID
from tonutils.clients import LiteBalancer


async def main(config: str, wallet: str, contract: str) -> None:
    client = LiteBalancer.from_config(network=NetworkGlobalID.MAINNET, config=config)
    await client.connect()
    try:
        wallet_info = await client.get_info(wallet)
        contract_info = await client.get_info(contract)
        print(
            json.dumps(
                {
                    "wallet_balance": wallet_info.balance,
                    "wallet_state": wallet_info.state.value,
                    "contract_balance": contract_info.balance,
                    "contract_state": contract_info.state.value,
                    "contract_code_hash": contract_info.code.hash.hex() if contract_info.code else None,
                    "contract_data_hash": contract_info.data.hash.hex() if contract_info.data else None,
                    "contract_address": Address(contract).to_str(is_user_friendly=False),
                }
            )
        )
    finally:
        await client.close()


asyncio.run(main(*sys.argv[1:4]))

"""The end of a bag: the front forgets the pack, coins come back, files go, a receipt stays."""

from __future__ import annotations

import shutil
from functools import partial

import trio

from ..bag import TorrentInfo
from ..chain.storage2 import WITHDRAW_VALUE
from ..errors import NotFound, Refused
from ..log import get_logger
from .context import Agent
from .contracts import afford
from .placement import PAID, Event, State
from .store import Bag, Receipt

log = get_logger(__name__)


async def close(agent: Agent, bag: Bag) -> bool:
    """Wind a bag down; every step may be repeated. False when it is in use again: then it lives on.

    Raises NotRunning, InsufficientCoins, IntentFailed, ChainUnavailable, BadProof: to be tried again later.
    """
    try:
        await agent.front.call("drop_pack", {"bag_id": bag.bag_id.hex()})
    except NotFound:
        pass  # dropped before a crash; `closing` was recorded first
    except Refused:
        agent.store.set_bag_state(bag.bag_id, "live")
        log.info("a bag is in use again", bag_id=bag.bag_id.hex())
        return False
    info = TorrentInfo.parse(bag.info, expect=bag.bag_id)
    address = agent.money.contract_address(info)
    contract, _ = await agent.money.contract(address, fresh=True)
    if contract is not None and (contract.providers or contract.available):
        await afford(agent, 2 * WITHDRAW_VALUE, "taking back what a contract holds")
        await agent.money.close(bag.bag_id, info)
    now = agent.clock.now()
    for placement in agent.store.placements(bag.bag_id):
        if placement.state is State.QUOTED:
            agent.store.event(bag.bag_id, placement.provider, Event.DROP, now)
        elif placement.state in PAID or placement.state is State.FAILED:
            agent.store.event(bag.bag_id, placement.provider, Event.REMOVE, now)
        if placement.state not in (State.QUOTED, State.GONE):
            agent.store.event(bag.bag_id, placement.provider, Event.REMOVED, now)
    account = await agent.money.account_of(address)
    agent.store.add_receipt(
        Receipt(bag.bag_id, address, now, account.funded, account.returned, account.rewards, account.fees, account.left)
    )
    async with agent.locks.alone(bag.bag_id):
        await agent.net.forget(bag.bag_id)
        remove = partial(shutil.rmtree, agent.pack_directory(bag.bag_id), ignore_errors=True)
        await trio.to_thread.run_sync(remove)
    agent.store.set_bag_state(bag.bag_id, "closed")
    agent.money.forget(address)
    log.info("bag closed", bag_id=bag.bag_id.hex(), returned=account.returned)
    return True

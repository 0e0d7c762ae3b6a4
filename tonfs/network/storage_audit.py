"""Asking one very provider for one piece (reference contracts 6.6): the only check that proves possession.

The peer is found by its address record, no other peer's data is used, nothing is written. The answer tells apart what
an auditor must not mix up: good bytes, wrong bytes, silence of a peer that lives, and no sign of life at all. When no
DHT node answers we are offline ourselves; that is raised, not held against the peer.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Final

import trio

from ..bag import TorrentInfo, verify_piece
from ..errors import BadBag, BadPacket, BadPiece, DhtUnavailable, PeerTimeout, PeerUnreachable, UsageError
from ..ids import AdnlId
from . import overlay, storage_tl
from .api import Peer, PieceAnswer, PieceOutcome
from .storage_link import Link
from .storage_swarm import Swarm

PROBE_TIMEOUT: Final = 3.0
PROBE_PAUSE: Final = 0.5
ATTEMPT: Final = 15.0
FIRST_ATTEMPT: Final = 5.0
"""Before the peer has said that it uploads (C++ is silent while it chokes; Go never says more than its first word)."""
CHOKE_STEP: Final = 0.25


@dataclass
class _Findings:
    alive: bool = False
    detail: str = ""
    answer: PieceAnswer | None = None


async def audit_piece(swarm: Swarm, piece: int, peer_id: AdnlId, *, timeout: float) -> PieceAnswer:
    """See `PeerNet.audit_piece`. Raises DhtUnavailable, UsageError for a piece outside the bag."""
    started = trio.current_time()
    findings = _Findings()
    peer: Peer | None = None
    with trio.move_on_after(timeout):
        peer = await swarm.hunt.find_by_record(peer_id)
        if peer is None:
            return PieceAnswer(PieceOutcome.UNREACHABLE, 0, trio.current_time() - started, "no address record")
        link = swarm.link_for(peer)
        if link is None:
            raise PeerUnreachable("Too many peers are known in this bag; try again.")
        await _audit(link, piece, findings)
    if findings.answer is not None:
        return findings.answer
    if not findings.alive and peer is not None and (peer.last_heard or started) > started:
        findings.alive = True
        findings.detail = "the peer is there, but it does not answer for this bag"
    outcome = PieceOutcome.SILENT if findings.alive else PieceOutcome.UNREACHABLE
    detail = findings.detail or ("no answer to getPiece" if findings.alive else "no answer to anything")
    return PieceAnswer(outcome, 0, trio.current_time() - started, detail)


async def _audit(link: Link, piece: int, findings: _Findings) -> None:
    link.audits += 1
    link.swarm.audits += 1
    failure: list[UsageError] = []
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_probe, link, findings)
            link.refresh()
            try:
                info = link.swarm.info or await _get_info(link, findings)
                if info is not None and not 0 <= piece < info.pieces:
                    failure.append(UsageError(f"There is no piece {piece} in a bag of {info.pieces}."))
                elif info is not None:
                    findings.answer = await _get_piece(link, info, piece, findings)
            finally:
                nursery.cancel_scope.cancel()
    finally:
        link.audits -= 1
        link.swarm.audits -= 1
        link.refresh()
    if failure:
        raise failure[0]


async def _probe(link: Link, findings: _Findings) -> None:
    """Is anybody there? A ping of its own, so that the verdict does not hang on the session's timers."""
    while not findings.alive:
        ping = overlay.wrap(link.swarm.overlay, storage_tl.pack_ping(link.session.sid))
        try:
            storage_tl.parse_pong(await link.peer.query(ping, timeout=PROBE_TIMEOUT))
            findings.alive = True
        except (PeerTimeout, PeerUnreachable, BadPacket):
            # The address may be an old one; the endpoint takes over a newer.
            with contextlib.suppress(DhtUnavailable):
                await link.swarm.hunt.find_by_record(link.id, fresh=True)
            await trio.sleep(PROBE_PAUSE)


async def _ask(peer: Peer, overlay_id: bytes, query: bytes, limit: int, timeout: float) -> bytes | None:
    try:
        return await peer.rldp_query(overlay.wrap(overlay_id, query), max_answer=limit, timeout=timeout)
    except PeerTimeout:
        return None
    except PeerUnreachable:
        await trio.sleep(timeout)
        return None


async def _get_info(link: Link, findings: _Findings) -> TorrentInfo | None:
    """The info, from this peer, when we do not have it. None: it sent a wrong one."""
    while True:
        query = storage_tl.GET_TORRENT_INFO
        answer = await _ask(link.peer, link.swarm.overlay, query, storage_tl.MAX_INFO + 64, ATTEMPT)
        if answer is None:
            findings.detail = "no answer to getTorrentInfo" if findings.alive else ""
            continue
        findings.alive = True
        try:
            boc = storage_tl.parse_torrent_info(answer)
            if not boc:
                findings.detail = "the peer does not have the bag's info"
                await trio.sleep(1.0)
                continue
            return TorrentInfo.parse(boc, link.swarm.bag_id)
        except (BadPacket, BadBag) as exc:
            findings.answer = PieceAnswer(PieceOutcome.WRONG, len(answer), 0.0, f"torrentInfo: {exc.message}")
            return None


async def _get_piece(link: Link, info: TorrentInfo, piece: int, findings: _Findings) -> PieceAnswer:
    """Ask until an answer comes; the caller's deadline ends it."""
    query = storage_tl.pack_get_piece(piece)
    limit = info.piece_size + storage_tl.ANSWER_SLACK
    while True:
        state = link.session.peer_state
        if state is not None and not state.will_upload:
            findings.detail = "the peer does not upload to us (choked)"
            await trio.sleep(CHOKE_STEP)
            continue
        begun = trio.current_time()
        answer = await _ask(link.peer, link.swarm.overlay, query, limit, FIRST_ATTEMPT if state is None else ATTEMPT)
        if answer is None:
            findings.detail = "no answer to getPiece" if findings.alive else ""
            continue
        findings.alive = True
        seconds = trio.current_time() - begun
        try:
            proof, data = storage_tl.parse_piece(answer)
            verify_piece(info, piece, proof, data)
        except (BadPacket, BadPiece) as exc:
            link.wrong += 1
            link.swarm.wrong_arrived(link, piece, exc)
            return PieceAnswer(PieceOutcome.WRONG, len(answer), seconds, exc.message)
        return PieceAnswer(PieceOutcome.OK, len(data), seconds)

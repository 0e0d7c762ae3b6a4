"""The S3 door as an HTTP server: aiohttp on the bridge's asyncio thread, everything else is in the other modules.

Order of work for each request: parse, authenticate, route, check rights, refuse what is not done here, and only then
ask for the body (a client that sent `Expect: 100-continue` waits for that). No answer names a path of this machine.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import trio
import uvloop
from aiohttp import web

from ..bridge import AsyncioThread
from ..clock import Clock, SystemClock
from ..errors import Busy, S3Error, TonfsError, UsageError
from ..log import Batch, get_logger
from ..volume.api import Fetch, Namespace, RemoteRange
from . import gate, operations, xml
from .auth import identify
from .connections import Connection, Connections, new_request_id
from .crowd import Crowd
from .door import Answer, Call, Door
from .durable import GroupCommit
from .features import DEFAULT_FEATURES, Features, keep_house
from .http import HttpBody, question_of, send
from .keys import KeyStore
from .limits import UploadLimits
from .listen import DEFAULT_SAFETY, Safety, check_exposure, is_loopback, parse_listen, tls_context
from .router import PUBLIC, Operation, check_headers, check_method, route
from .sigv4 import anonymous
from .turns import Turns

log = get_logger(__name__)

T = TypeVar("T")

WORKERS: Final = 16
HEALTH: Final = "/.health"
"""Answers anybody, about nothing but that the door answers; no bucket can have this name."""
START_TIMEOUT: Final = 30.0
STOP_TIMEOUT: Final = 4.0


async def serve_s3(
    namespace: Namespace,
    listen: str,
    region: str,
    keys: KeyStore,
    fetch: Fetch,
    *,
    safety: Safety = DEFAULT_SAFETY,
    features: Features = DEFAULT_FEATURES,
    clock: Clock | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. `listen` is HOST:PORT (port 0 picks one), `keys` the access keys.

    `task_status` reports the URL that it is reached by. Raises UsageError, Busy when the port is taken.
    """
    host, port = parse_listen(listen)
    tls = tls_context(safety.tls_certificate, safety.tls_key)
    check_exposure(host, tls=tls is not None, asked=safety.remote_asked, allowed=safety.remote_allowed)
    private = tls is not None or is_loopback(host)
    times = clock or SystemClock()
    async with AsyncioThread("s3", uvloop.new_event_loop) as bridge:

        async def fetch_in_trio(ranges: Sequence[RemoteRange]) -> None:
            await bridge.call_trio(fetch, ranges)

        server = _Server(
            namespace,
            keys,
            region,
            times,
            fetch_in_trio,
            allow_unsigned=private or safety.unsigned_over_http,
            presigned_v2=safety.presigned_v2,
            features=features,
        )
        try:
            bound = await bridge.run(server.start, host, port, tls, timeout=START_TIMEOUT)
            url = f"{'http' if tls is None else 'https'}://{bound}"
            log.info("S3 listens", url=url)
            task_status.started(url)
            await keep_house(namespace, features, times)
        finally:
            with trio.CancelScope(shield=True):
                await bridge.run(server.stop, timeout=3 * STOP_TIMEOUT)


class _Server:
    """Lives in the asyncio thread."""

    def __init__(
        self,
        namespace: Namespace,
        keys: KeyStore,
        region: str,
        clock: Clock,
        fetch: Callable[[Sequence[RemoteRange]], Awaitable[None]],
        *,
        allow_unsigned: bool,
        presigned_v2: bool,
        features: Features,
    ) -> None:
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="s3-disk")
        self._gate: gate.Gate | None = None
        self._turns = Turns(namespace.kernel.busy)
        self._door = Door(
            namespace=namespace,
            keys=keys,
            region=region,
            clock=clock,
            fetch=fetch,
            slow=self._slow,
            commit=GroupCommit(namespace.commit, self._slow),
            limits=UploadLimits(features.open_uploads, features.parts_share),
            uid=os.getuid(),
            gid=os.getgid(),
            allow_unsigned=allow_unsigned,
            presigned_v2=presigned_v2,
            replicated=features.replicated,
            show_state=features.show_state,
            crowd=Crowd(self._turns.take),
        )
        self._requests = Batch(__name__, "request")
        self._connections: Connections

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> str:
        """HOST:PORT it is bound to."""
        try:
            sockets = await gate.listen(host, port)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise Busy(f"{host}:{port} is in use.", hint="Give S3 another port.") from exc
            raise UsageError(f"S3 cannot listen on {host}:{port}: {exc.strerror}.") from exc
        self._connections = Connections(self._handle)
        self._connections.start_patrol(self._requests.flush)
        self._gate = gate.Gate(sockets, self._connections, tls)
        real_host, real_port = sockets[0].getsockname()[:2]
        return f"[{real_host}]:{real_port}" if ":" in real_host else f"{real_host}:{real_port}"

    async def stop(self) -> None:
        if self._gate is not None:
            await self._gate.close()
            await self._connections.stop_patrol()
            self._connections.pre_shutdown()
            await self._connections.shutdown(STOP_TIMEOUT)
        self._requests.flush()
        await asyncio.to_thread(self._pool.shutdown)

    async def _slow(self, function: Callable[[], T]) -> T:
        """In a worker thread; a cancelled caller waits for it, so that nothing is undone while it still works."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, function)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()
            raise

    # One request.

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        request_id = new_request_id()
        begin = time.monotonic()
        self._turns.take()
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.begin()
        label = "-"

        def named(operation: Operation) -> None:
            nonlocal label
            label = operation.label

        try:
            answer = await self._answer(request, named)
        except TonfsError as exc:
            answer = self._refused(request, exc, request_id)
        except (asyncio.CancelledError, ConnectionError):
            connection.end()
            raise
        except Exception as exc:
            log.error("a request failed", request_id=request_id, operation=label, exc=exc)
            answer = self._refused(request, TonfsError("internal"), request_id)
        connection.take_back()
        try:
            return await send(request, answer, request_id)
        finally:
            if answer.stream is not None:
                answer.stream.close()
            connection.end()
            self._requests.add(
                request_id=request_id,
                operation=label,
                method=request.method,
                target=ascii(request.raw_path.partition("?")[0][:200])[1:-1],
                status=answer.status,
                milliseconds=round(1000 * (time.monotonic() - begin), 1),
            )

    async def _answer(self, request: web.BaseRequest, named: Callable[[Operation], None]) -> Answer:
        door = self._door
        question = question_of(request)
        if question.raw_path == HEALTH and not question.query and question.method in ("GET", "HEAD"):
            return Answer(200, [("Content-Type", "text/plain")], b"ok\n")
        check_method(question)
        identity = identify(
            question, door.keys, now=door.clock.now(), region=door.region, presigned_v2=door.presigned_v2
        )
        target = route(question)
        named(target.operation)
        operation = target.operation
        bucket = target.bucket.decode("latin-1")
        if bucket and not identity.access.allows(bucket, operation.rights):
            raise S3Error("AccessDenied", 403, f"This access key may not do {operation.label} there.")
        if not identity.access.access_key and operation not in PUBLIC:
            raise anonymous()
        check_headers(question, operation)
        call = Call(door, question, identity, target.bucket, target.key, HttpBody(request, question, door.crowd))
        return await operations.answer(call, operation)

    def _refused(self, request: web.BaseRequest, exc: TonfsError, request_id: str) -> Answer:
        """An error as S3 says it. Only S3Error's message is meant for clients."""
        headers = [("Content-Type", "application/xml")]
        if isinstance(exc, S3Error):
            code, status, message = exc.s3_code, exc.s3_status, exc.message
            headers += exc.headers
        else:
            log.error("a request failed", request_id=request_id, code=exc.code, reason=exc.message)
            code, status, message = "InternalError", 500, "We encountered an internal error. Please try again."
        if status == 503:
            headers.append(("Retry-After", "5"))
        resource = request.raw_path.partition("?")[0]
        return Answer(status, headers, xml.error_document(code, message, resource, request_id))

"""The S3 door as an HTTP server: aiohttp on the bridge's asyncio thread, everything else is in the other modules.

Order of work for each request: parse, authenticate, route, check rights, refuse what is not done here, and only then
ask for the body (a client that sent `Expect: 100-continue` waits for that). No answer names a path of this machine.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import aiohttp
import trio
from aiohttp import web

from ..bridge import AsyncioThread
from ..clock import Clock, SystemClock
from ..errors import Busy, S3Error, TonfsError, UsageError
from ..log import get_logger
from ..volume.api import Fetch, Namespace, RemoteRange
from . import xml
from .door import Answer, Call, Door
from .handlers_bucket import create_bucket, delete_bucket, get_location, head_bucket, list_buckets
from .handlers_delete import delete_object, delete_objects
from .handlers_get import get_object, head_object
from .handlers_list import list_v1, list_v2
from .handlers_put import put_object
from .keys import AccessKey, KeyStore
from .router import Operation, check_headers, route, split_path
from .sigv4 import Request, authenticate
from .uri import parse_query, split_target

log = get_logger(__name__)

T = TypeVar("T")

READ_TIMEOUT: Final = 60.0
"""Seconds without a byte of a body before the client is given up."""
KEEPALIVE: Final = 75.0
LINGER: Final = 2.0
WORKERS: Final = 16
START_TIMEOUT: Final = 30.0
STOP_TIMEOUT: Final = 4.0

HANDLERS: Final[Mapping[Operation, Callable[[Call], Awaitable[Answer]]]] = {
    Operation.LIST_BUCKETS: list_buckets,
    Operation.CREATE_BUCKET: create_bucket,
    Operation.DELETE_BUCKET: delete_bucket,
    Operation.HEAD_BUCKET: head_bucket,
    Operation.GET_LOCATION: get_location,
    Operation.LIST_V1: list_v1,
    Operation.LIST_V2: list_v2,
    Operation.DELETE_OBJECTS: delete_objects,
    Operation.PUT_OBJECT: put_object,
    Operation.GET_OBJECT: get_object,
    Operation.HEAD_OBJECT: head_object,
    Operation.DELETE_OBJECT: delete_object,
}


async def serve_s3(
    namespace: Namespace,
    listen: str,
    region: str,
    keys: KeyStore,
    fetch: Fetch,
    *,
    clock: Clock | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. `listen` is HOST:PORT (port 0 picks one), `keys` the access keys.

    `task_status` reports the HOST:PORT that it listens on. Raises UsageError, Busy when the port is taken.
    """
    host, port = parse_listen(listen)
    times = clock or SystemClock()
    async with AsyncioThread("s3") as bridge:

        async def fetch_in_trio(ranges: Sequence[RemoteRange]) -> None:
            await bridge.call_trio(fetch, ranges)

        server = _Server(namespace, keys, region, times, fetch_in_trio)
        try:
            bound = await bridge.run(server.start, host, port, timeout=START_TIMEOUT)
            log.info("S3 listens", url=f"http://{bound}")
            task_status.started(bound)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await bridge.run(server.stop, timeout=3 * STOP_TIMEOUT)


def parse_listen(listen: str) -> tuple[str, int]:
    """(host, port) of `HOST:PORT`. Raises UsageError, also for addresses beyond this machine: there is no TLS yet."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+):([0-9]{1,5})", listen)
    if match is None or int(match[2]) > 65535:
        raise UsageError(f"{listen!r} is not HOST:PORT.", hint="Try 127.0.0.1:8080.")
    host = match[1].strip("[]")
    if host != "localhost":
        try:
            local = ipaddress.ip_address(host).is_loopback
        except ValueError:
            local = False
        if not local:
            raise UsageError(
                f"S3 does not listen on {host}: without TLS it serves this machine only.",
                hint="Listen on 127.0.0.1 and put a TLS proxy in front.",
            )
    return host, int(match[2])


def _quiet_logger() -> logging.Logger:
    """aiohttp writes a traceback for each malformed request, which anybody could use to fill our log."""
    logger = logging.getLogger("tonfs.s3shim.http")
    logger.setLevel(logging.CRITICAL)
    return logger


class _HttpBody:
    """`door.Body` on an aiohttp request."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._expects = request.headers.get("Expect", "").lower() == "100-continue"

    @property
    def length(self) -> int | None:
        return self._request.content_length

    @property
    def chunked(self) -> bool:
        return "chunked" in self._request.headers.get("Transfer-Encoding", "").lower()

    async def read(self) -> bytes:
        request = self._request
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                if self._expects:
                    self._expects = False
                    assert request.transport is not None
                    request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return await request.content.readany()
        except TimeoutError:
            raise S3Error(
                "RequestTimeout", 400, "Your socket connection was not read from or written to in time."
            ) from None
        except (aiohttp.ClientError, web.RequestPayloadError, ConnectionError, ValueError) as exc:
            raise S3Error("IncompleteBody", 400, "The request's body could not be read to its end.") from exc


class _Server:
    """Lives in the asyncio thread."""

    def __init__(
        self,
        namespace: Namespace,
        keys: KeyStore,
        region: str,
        clock: Clock,
        fetch: Callable[[Sequence[RemoteRange]], Awaitable[None]],
    ) -> None:
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="s3-disk")
        self._runner: web.ServerRunner | None = None
        self._door = Door(
            namespace=namespace,
            keys=keys,
            region=region,
            clock=clock,
            fetch=fetch,
            slow=self._slow,
            uid=os.getuid(),
            gid=os.getgid(),
        )

    async def start(self, host: str, port: int) -> str:
        """HOST:PORT it is bound to."""
        server = web.Server(
            self._handle,
            access_log=None,
            logger=_quiet_logger(),
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE,
            lingering_time=LINGER,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=STOP_TIMEOUT)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, reuse_address=True)
        try:
            await site.start()
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise Busy(f"{host}:{port} is in use.", hint="Give S3 another port.") from exc
            raise UsageError(f"S3 cannot listen on {host}:{port}: {exc.strerror}.") from exc
        real_host, real_port = self._runner.addresses[0][:2]
        return f"[{real_host}]:{real_port}" if ":" in real_host else f"{real_host}:{real_port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
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
        request_id = secrets.token_hex(8).upper()
        begin = time.monotonic()
        label = "-"

        def named(operation: Operation) -> None:
            nonlocal label
            label = operation.label

        try:
            answer = await self._answer(request, named)
        except TonfsError as exc:
            answer = self._refused(request, exc, request_id)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as exc:
            log.error("a request failed", request_id=request_id, operation=label, exc=exc)
            answer = self._refused(request, TonfsError("internal"), request_id)
        try:
            return await _send(request, answer, request_id)
        finally:
            if answer.stream is not None:
                answer.stream.close()
            log.info(
                "request",
                request_id=request_id,
                operation=label,
                method=request.method,
                target=ascii(request.raw_path.partition("?")[0][:200])[1:-1],
                status=answer.status,
                milliseconds=round(1000 * (time.monotonic() - begin), 1),
            )

    async def _answer(self, request: web.BaseRequest, named: Callable[[Operation], None]) -> Answer:
        door = self._door
        question = _question(request)
        access: list[AccessKey] = []

        def lookup(access_key: str) -> str | None:
            found = door.keys.find(access_key)
            if found is None:
                return None
            access.append(found)
            return found.secret_key.reveal().decode()

        identity = authenticate(question, lookup, now=door.clock.now(), region=door.region)
        target = route(question)
        named(target.operation)
        operation = target.operation
        bucket = target.bucket.decode("latin-1")
        if bucket and not access[0].allows(bucket, operation.rights):
            raise S3Error("AccessDenied", 403, f"This access key may not do {operation.label} there.")
        check_headers(question)
        expect = question.header("expect")
        if expect is not None and expect.lower() != "100-continue":
            raise S3Error("InvalidArgument", 417, "Only Expect: 100-continue is known.")
        call = Call(door, question, identity, access[0], target.bucket, target.key, _HttpBody(request))
        return await HANDLERS[operation](call)

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


def _question(request: web.BaseRequest) -> Request:
    """The request as it came. Raises S3Error(InvalidURI)."""
    path, query = split_target(request.raw_path)
    headers = tuple(
        (name.decode("latin-1").lower(), value.decode("utf-8", "surrogateescape").strip())
        for name, value in request.raw_headers
    )
    split_path(path)
    return Request(request.method, path, parse_query(query), headers, has_body=request.can_read_body)


async def _send(request: web.BaseRequest, answer: Answer, request_id: str) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status)
    for name, value in answer.headers:
        response.headers.add(name, value)
    response.headers["Server"] = "tonfs"
    response.headers["x-amz-request-id"] = request_id
    response.headers["x-amz-id-2"] = request_id
    if not request.content.is_eof():
        # What is left of the body will not be read: this connection ends here.
        response.force_close()
    body = b"" if request.method == "HEAD" else answer.body
    if answer.status not in (204, 304):
        response.content_length = answer.length if answer.length is not None else len(body)
    await response.prepare(request)
    try:
        if body:
            await response.write(body)
        if answer.stream is not None:
            while block := await answer.stream.next():
                await response.write(block)
    except TonfsError as exc:
        # Too late for an error: the client must see that the body is not whole.
        log.info("an answer was cut", request_id=request_id, reason=exc.message)
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("cut on purpose") from None
    await response.write_eof()
    return response

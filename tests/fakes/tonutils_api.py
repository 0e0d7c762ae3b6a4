"""tonutils-storage's HTTP API as far as `TonutilsDaemon` uses it, over bags that a storage node of ours serves.

It makes bags as the daemon does: its own choice of pieces, its own order unless told, `./` in names refused.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tonfs.bagfiles import StoredBag, create_bag
from tonfs.errors import TonfsError
from tonfs.ids import BagId


class TonutilsApi:
    """`start(bag, directory)` and `stop(bag)` are called from the server's thread."""

    def __init__(self, folder: Path, start: Callable[[BagId, Path], None], stop: Callable[[BagId], None]) -> None:
        self.folder = folder
        self.bags: dict[str, Path] = {}
        self.calls: list[str] = []
        self.login = ""
        self.broken = 0
        """Answer everything with this status."""
        self._start, self._stop = start, stop
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: dict[str, Any]) -> None:
                status, value = api.answer(self.path, body, self.headers.get("Authorization", ""))
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def answer(self, path: str, body: dict[str, Any], login: str) -> tuple[int, dict[str, Any]]:
        name, _, query = path.removeprefix("/api/v1/").partition("?")
        self.calls.append(name)
        if self.login and login != self.login:
            return 401, {"error": "Invalid credentials"}
        if self.broken:
            return self.broken, {"error": "broken"}
        if name == "details":
            known = query.removeprefix("bag_id=") in self.bags
            return (200, {"active": True, "seeding": True, "completed": True}) if known else (404, {"ok": False})
        if name == "list":
            return 200, {"bags": [{"bag_id": bag} for bag in self.bags] or None}
        if name == "create":
            return self._create(Path(body["path"]), str(body["description"]).encode())
        bag = str(body["bag_id"])
        if self.bags.pop(bag, None) is None:
            return 404, {"ok": False}
        self._stop(BagId(bytes.fromhex(bag)))
        return 200, {"ok": True}

    def _create(self, path: Path, description: bytes) -> tuple[int, dict[str, Any]]:
        try:
            created = create_bag(path, description=description, raw=True)
        except TonfsError as exc:
            return 500, {"error": exc.message}
        bag = created.info.bag_id
        directory = self.folder / bag.hex()
        StoredBag.keep(directory, created)
        self.bags[bag.hex()] = directory
        self._start(bag, directory)
        return 200, {"bag_id": bag.hex()}

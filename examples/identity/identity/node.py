"""One node of the service: ``python -m identity.node --release 1 --url sqlite:///identity.db``.

It says on standard output where it listens as soon as it does. SIGTERM (or, with ``--until-eof``, the end of
standard input) stops it: requests under way are finished first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .database import Database
from .release import Release
from .service import Answer, Request, Service


def release_of(number: int) -> Release:
    if number == 1:
        from .release_1 import RELEASE
    else:
        from .release_2 import RELEASE
    return RELEASE


class Handler(BaseHTTPRequestHandler):
    """Requests of one kept-alive connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = 64 * 1024  # head and body in one packet
    disable_nagle_algorithm = True
    server: Node

    def __getattr__(self, name: str) -> Any:
        # The base class looks up do_GET, do_POST ... by the request's method: the service answers them all.
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def _handle(self) -> None:
        answer = self._answer()
        body = b"" if answer.body is None else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        if body:
            self.send_header("Content-Type", "application/json")
        if answer.status != 204:
            self.send_header("Content-Length", str(len(body)))
        if self.server.stopping.is_set():
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _answer(self) -> Answer:
        try:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(content) if content else {}
        except ValueError:
            return Answer(status=400, body={"error": "the body is not JSON"})
        if not isinstance(body, dict):
            return Answer(status=400, body={"error": "the body is not a JSON object"})
        target = urlsplit(self.path)
        request = Request(
            method=self.command,
            path=target.path,
            query=dict(parse_qsl(target.query)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
        )
        try:
            return self.server.service.answer(request)
        except Exception as error:  # noqa: BLE001 - a node outlives a request that failed
            traceback.print_exc()
            return Answer(status=500, body={"error": f"{type(error).__name__}: {error}"})

    def log_message(self, *_arguments: Any) -> None:
        """Requests are not logged."""


class Node(ThreadingHTTPServer):
    """A listening socket and a thread for each connection."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, service: Service, port: int) -> None:
        self.service = service
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open.add(request)
            if self.stopping.is_set():
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RD)
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._guard:
                self._open.discard(request)

    def stop(self) -> None:
        """Answer what was asked, then return from ``serve_forever``. Not to be called by its thread."""
        self.shutdown()
        with self._guard:
            self.stopping.set()
            for connection in self._open:
                with contextlib.suppress(OSError):  # the client may have left
                    connection.shutdown(socket.SHUT_RD)  # an idle one reads its end, a busy one answers first


def _wait_for_eof(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop.set()


def main() -> None:
    parser = argparse.ArgumentParser(prog="identity.node", description=__doc__)
    parser.add_argument("--release", type=int, choices=(1, 2), required=True)
    parser.add_argument("--url", required=True, help="the database, as SQLAlchemy writes it")
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    parser.add_argument("--name", default="node")
    parser.add_argument("--until-eof", action="store_true", help="stop when standard input ends")
    options = parser.parse_args()

    database = Database(options.url)
    service = Service(release_of(options.release), database, options.name)
    service.health(Request(method="GET", path="/health", query={}, headers={}, body={}))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Node(service, options.port) as node:
        server = threading.Thread(target=node.serve_forever, kwargs={"poll_interval": 0.05})
        server.start()
        try:
            print(f"release {options.release} listening on http://127.0.0.1:{node.server_port}", flush=True)  # noqa: T201
            if options.until_eof:
                threading.Thread(target=_wait_for_eof, args=(stop,), daemon=True).start()
            stop.wait()
        finally:  # whoever started it may be gone before it reads that line
            node.stop()
            server.join()
    database.close()


if __name__ == "__main__":
    main()

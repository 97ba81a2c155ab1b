"""An HTTP server on loopback that speaks the OpenAI API as far as the tests need, and fails in the ways that servers fail."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

BROKEN = {"html": "<html>", "empty": '{"choices": []}', "null": "null", "surrogate": '{"choices": [{"text": "\\ud800", "message": {}}]}'}


class Server(ThreadingHTTPServer):
    """`reply` makes the body of an answer from path and request; `troubles` come first, by `name` of the request, once each.

    A trouble is an HTTP status, `slow`, `drop` or a word of `BROKEN`. `seen` is all that was asked: path, request, key.
    """

    def __init__(self, reply: Callable[[str, Any], Any], name: Callable[[Any], Any], troubles: Mapping[Any, Sequence[str]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.name = reply, name
        self.troubles = {key: list(value) for key, value in troubles.items()}
        self.seen: list[tuple[str, Any, str | None]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((self.path, request, self.headers.get("Authorization")))
            left = self.server.troubles.get(self.server.name(request), [])
            trouble = left.pop(0) if left else ""
        if trouble == "slow":
            time.sleep(0.6)
        if trouble == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = BROKEN[trouble] if trouble in BROKEN else json.dumps(self.server.reply(self.path, request))
        try:
            self.send_response(int(trouble) if trouble.isdigit() else 200)
            if trouble == "429":
                self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client has given up: that is what `slow` is for

    def log_message(self, *_):
        pass


Running = TypeVar("Running", bound=ThreadingHTTPServer)


@contextmanager
def in_thread(server: Running) -> Iterator[Running]:
    """A server in a thread of its own, until the end of the block."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def serving(
    reply: Callable[[str, Any], Any], name: Callable[[Any], Any] = str, troubles: Mapping[Any, Sequence[str]] | None = None
) -> AbstractContextManager[Server]:
    """A server that answers with `reply`, until the end of the block."""
    return in_thread(Server(reply, name, troubles or {}))

"""The review's web server: on this machine alone, for those who have the token, and for its own page alone.

Every request must name this server as its host (else a foreign name that resolves to this machine could reach it: DNS rebinding), come from
its own page where the browser says where from, and carry the token: once in the address, from then on in a cookie that no other site's
request and no script gets. Files are served from a fixed list, so that no path leads anywhere else. Nothing is logged: an address may hold
the token.
"""

import errno
import hmac
import secrets
import sys
import traceback
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from curate.record import FineryError, InputError
from flows.reviewing.api import Answer, NotFound, Review

ADDRESS = "127.0.0.1"
MOST_BODY = 4 << 20  # bytes, as of a line of the decisions
WAIT_S = 30  # for a request that does not come to its end
FILES = {
    "/": ("page.html", "text/html"), "/app.css": ("app.css", "text/css"), "/app.js": ("app.js", "text/javascript"),
    "/view.js": ("view.js", "text/javascript"), "/dialogs.js": ("dialogs.js", "text/javascript"),
}  # fmt: skip
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Moving on by a redirect would leave the cookie behind where the link was opened from another site, such as a notebook.
ENTER = b'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/"><title>Review</title>'
NO_TOKEN = "This page needs the token. Open the address that `python -m flows.review` printed."


class Refused(Exception):
    """A request that is not answered: HTTP status and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class Server(ThreadingHTTPServer):
    """Serves one review. `token` opens it; the cookie holds another secret, so that neither gives the other away."""

    daemon_threads = True
    request_queue_size = 128  # connections that may wait; a page opens several at once
    block_on_close = False

    def __init__(self, review: Review, port: int) -> None:
        self.review = review
        self.token, self.session = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                why = f"port {port} is in use, perhaps by another review. Stop that one, or give --port N (0: any that is free)."
            else:
                why = f"port {port} cannot be opened ({error.strerror}). Give another one with --port N (0: any that is free)."
            raise InputError(why) from None
        self.port = int(self.server_address[1])
        self.hosts = {f"{ADDRESS}:{self.port}", f"localhost:{self.port}"} | ({ADDRESS, "localhost"} if self.port == 80 else set())
        self.cookie = f"finery-review-{self.port}"

    @property
    def url(self) -> str:
        """The address that opens the page."""
        return f"http://{ADDRESS}:{self.port}/?token={self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no news; anything else is a fault of ours."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            traceback.print_exc(limit=-1)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = WAIT_S
    server: Server

    def version_string(self) -> str:
        """Not what Python this is."""
        return "finery"

    def log_message(self, *_: object) -> None:
        """Nothing: see the module."""

    def do_GET(self) -> None:
        """A file of the page, or what the page asks for."""
        self._answer(self._get)

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """A decision."""
        self._answer(self._post)

    def _answer(self, work: Callable[[str, Mapping[str, str]], None]) -> None:
        try:
            address = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(address.query, max_num_fields=20).items()}
            self._check_origin()
            if self.command != "POST" and address.path == "/" and "token" in query:
                self._enter(query["token"])
                return
            self._check_token()
            work(address.path, query)
        except Refused as refused:
            self.close_connection = True  # its body may not have been read
            self._json(refused.status, {"error": refused.why})
        except ValueError:
            self.close_connection = True
            self._json(HTTPStatus.BAD_REQUEST, {"error": "The request cannot be read."})

    def _check_origin(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            raise Refused(HTTPStatus.FORBIDDEN, f"This server answers as {ADDRESS}:{self.server.port} alone.")
        origin = self.headers.get("Origin")
        if origin is not None and origin.lower() != f"http://{hosts[0].lower()}":
            raise Refused(HTTPStatus.FORBIDDEN, "The request comes from another page.")
        arriving = self.command != "POST" and self.path.startswith("/?token=")  # a link to the page may stand anywhere
        if not arriving and self.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            raise Refused(HTTPStatus.FORBIDDEN, "The request comes from another page.")

    def _check_token(self) -> None:
        kind, _, bearer = self.headers.get("Authorization", "").partition(" ")
        if kind == "Bearer" and _same(bearer, self.server.token):
            return
        for pair in self.headers.get("Cookie", "").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self.server.cookie and _same(value, self.server.session):
                return
        raise Refused(HTTPStatus.UNAUTHORIZED, NO_TOKEN)

    def _enter(self, token: str) -> None:
        if not _same(token, self.server.token):
            raise Refused(HTTPStatus.UNAUTHORIZED, NO_TOKEN)
        cookie = f"{self.server.cookie}={self.server.session}; Path=/; HttpOnly; SameSite=Strict"
        self._send(HTTPStatus.OK, "text/html", ENTER, {"Set-Cookie": cookie})

    def _get(self, path: str, query: Mapping[str, str]) -> None:
        if path in FILES:
            name, kind = FILES[path]
            self._send(HTTPStatus.OK, kind, Path(__file__).with_name(name).read_bytes())
            return
        self._json(*self._asked(lambda: (200, _read(self.server.review, path, query))))

    def _post(self, path: str, _: Mapping[str, str]) -> None:
        if path != "/api/decide":
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")
        if self.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Expected application/json.")
        body = self._body()
        try:
            asked = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise Refused(HTTPStatus.BAD_REQUEST, "The body is not JSON.") from None
        if not isinstance(asked, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "The body must be a JSON object.")
        self._json(*self._asked(lambda: self.server.review.decide(asked)))

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing.")
        if int(length) > MOST_BODY:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {MOST_BODY >> 20} MiB.")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Refused(HTTPStatus.BAD_REQUEST, "The body came to an early end.")
        return body

    def _asked(self, work: Callable[[], Answer]) -> Answer:
        try:
            return work()
        except NotFound as error:
            return HTTPStatus.NOT_FOUND, {"error": str(error)}
        except FineryError as error:
            return HTTPStatus.UNPROCESSABLE_ENTITY, {"error": str(error)}
        except OSError as error:
            return HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"{error.strerror or error}. Nothing was written."}

    def _json(self, status: int, found: Mapping[str, Any]) -> None:
        self._send(status, "application/json", orjson.dumps(found))

    def _send(self, status: int, kind: str, body: bytes, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body)), **(more or {})}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _same(given: str, secret: str) -> bool:
    """Compared in the same time wherever they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())


def _read(review: Review, path: str, query: Mapping[str, str]) -> dict[str, Any]:
    """What the page reads. Raises NotFound for an address that there is not."""
    reviewer = query.get("reviewer", "")
    if path == "/api/state":
        return review.state(reviewer)
    if path == "/api/open":
        filters = (query.get(name, "") for name in ("label", "source", "text"))
        return review.open(query.get("queue", ""), reviewer, *filters)
    if path == "/api/item":
        return review.item(query.get("handle", ""), int(query.get("at", "")), reviewer)
    if path == "/api/row":
        return review.alone(query.get("id", ""), reviewer)
    if path == "/api/whole":
        return review.whole(query.get("id", ""), reviewer)
    raise NotFound("There is nothing here.")

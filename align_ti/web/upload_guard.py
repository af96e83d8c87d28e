"""What the page's server refuses before the page's own code runs, and what a browser may load with the page."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import JSONResponse

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

FORM_OVERHEAD = 2**16
"""Bytes that a request may have beyond the largest picture."""

HEADERS = {
    # The page comes whole from this server; a browser shall ask no other one, whatever an answer contains.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


class Guard:
    """ASGI middleware in front of the page.

    It refuses a request that is larger than any upload may be, and one that asks the server to take a file from the
    network or to unpack one from an address, which the widgets would otherwise do for a client that does not use
    them. The check of the picture itself is ``llava.serve.uploads``.

    Args:
        app: the page.
        max_bytes: Largest picture, in bytes.
    """

    def __init__(self, app: Any, max_bytes: int) -> None:
        self.app, self.limit = app, max_bytes + FORM_OVERHEAD

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        send = _with_headers(send)
        if scope["method"] == "POST":
            length = dict(scope["headers"]).get(b"content-length", b"")
            if not length.isdigit():
                return await _refuse(411, "the request does not say how long it is")(scope, receive, send)
            if int(length) > self.limit:
                return await _refuse(413, "the request is too large")(scope, receive, send)
            if not scope["path"].endswith("/upload"):
                body = await _read(receive)
                if fetches(body):
                    refusal = _refuse(400, "files are taken from uploads only, never from an address")
                    return await refusal(scope, receive, send)
                receive = _replay(body, receive)
        await self.app(scope, receive, send)


def fetches(body: bytes) -> bool:
    """Whether a request's JSON holds a file that would come from an address: a ``path`` on a network, or a ``url``
    that contains the file. Bodies that are not JSON hold no file."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return False
    todo = [content]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            path, url = str(value.get("path") or ""), str(value.get("url") or "")
            if "://" in path or path.strip().lower().startswith("data:") or url.strip().lower().startswith("data:"):
                return True
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    return False


def _refuse(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"detail": reason}, status_code=status)


async def _read(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await send(message)

    return wrapped

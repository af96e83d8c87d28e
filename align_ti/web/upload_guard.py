"""Requests that the server rejects before the page's own code runs, and the page's content security policy."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import JSONResponse

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

FORM_OVERHEAD = 2**16
"""Bytes that a request may have in addition to the largest picture."""

HEADERS = {
    # Everything on the page comes from this server: a browser must not contact another one, whatever an answer
    # contains.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


class Guard:
    """ASGI middleware in front of the page.

    It rejects requests that are larger than any allowed upload, and requests that make the server fetch a file from the
    network or decode one from a data URL, which Gradio's widgets would do for a client that bypasses the page. The
    picture itself is checked in ``llava.serve.uploads``.

    Args:
        app: The page.
        max_bytes: Largest picture, in bytes.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], max_bytes: int) -> None:
        self.app, self.limit = app, max_bytes + FORM_OVERHEAD

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        send = _with_headers(send)
        if scope["method"] == "POST":
            length = dict(scope["headers"]).get(b"content-length", b"")
            if not length.isdigit():
                return await _refuse(411, "the request has no content length")(scope, receive, send)
            if int(length) > self.limit:
                return await _refuse(413, "the request is too large")(scope, receive, send)
            if not scope["path"].endswith("/upload"):
                body = await _read(receive)
                if fetches(body):
                    refusal = _refuse(400, "files are only accepted as uploads, never from a URL")
                    return await refusal(scope, receive, send)
                receive = _replay(body, receive)
        await self.app(scope, receive, send)


def fetches(body: bytes) -> bool:
    """Whether a request's JSON contains a file that would be read from a URL: a ``path`` on the network, or a ``url``
    that contains the file (a data URL). Bodies that are not JSON contain no file."""
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

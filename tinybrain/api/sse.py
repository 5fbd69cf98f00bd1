"""Server-sent events out. Source: WHATWG HTML, server-sent events."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

DONE = b"data: [DONE]\n\n"


def event(data: Any) -> bytes:
    """One event with JSON data."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


class EventStream(StreamingResponse):
    """Streams events, and closes their generator however the connection ends.

    Starlette leaves the generator to the garbage collector when a caller goes away between two
    events; an answer must be recorded then and there.
    """

    def __init__(self, events: AsyncGenerator[bytes, None], headers: dict[str, str]) -> None:
        super().__init__(
            events,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers},
        )
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            # A task of its own: this one may be cancelled already, and again while it waits.
            await asyncio.shield(asyncio.ensure_future(self._events.aclose()))

"""Server-sent events out. Source: WHATWG HTML, server-sent events."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

DONE = b"data: [DONE]\n\n"


def event(data: Any) -> bytes:
    """One event with JSON data."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


class EventStream(StreamingResponse):
    """Streams events, and closes the `source` they are made from however the connection ends.

    Starlette leaves both to the garbage collector when a caller goes away, and begins to stream
    to one who has left already; an answer must be recorded then and there.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        headers: dict[str, str],
        *,
        source: AsyncGenerator[Any, None],
    ) -> None:
        super().__init__(
            events,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers},
        )
        self._events = events
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream."""
        try:
            if not await Request(scope, receive).is_disconnected():
                await super().__call__(scope, receive, send)
        finally:
            # A task of its own: this one may be cancelled already, and again while it waits.
            await asyncio.shield(asyncio.ensure_future(self._close()))

    async def _close(self) -> None:
        await self._events.aclose()
        # Closing a generator that never began does not reach what it would have closed.
        await self._source.aclose()

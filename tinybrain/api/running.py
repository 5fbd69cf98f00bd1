"""An answer being made: one producer, any number of readers, each from the beginning.

Who leaves does not stop the producer; what becomes of an answer without readers is the gateway's
decision. Nothing here knows money or HTTP.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from tinybrain.api.choices import Part


@dataclass(frozen=True, slots=True)
class Receipt:
    """The last event of an answer: it is recorded, and this is what the caller keeps."""

    answer_id: str
    body: dict[str, Any]


Event = Part | Receipt
Events = AsyncGenerator[Event, None]


class RunningAnswer:
    """The events so far. `delivered` says that a reader was shown some of the text."""

    def __init__(self, *, on_left: Callable[["RunningAnswer"], None]) -> None:
        self.delivered = False
        self.readers = 0
        self._on_left = on_left
        self._events: list[Event] = []
        self._error: Exception | None = None
        self._ended = False
        self._changed = asyncio.Event()

    def add(self, event: Event) -> None:
        """Show the readers one event more."""
        self._events.append(event)
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """No more events come; readers see `error` after the last."""
        self._error = error
        self._ended = True
        self._wake()

    async def read(self, *, shown: bool) -> Events:
        """Yield every event. `shown` says that the reader passes text on as it comes."""
        self.readers += 1
        index = 0
        try:
            while True:
                while index < len(self._events):
                    event = self._events[index]
                    index += 1
                    yield event
                    self.delivered |= shown and isinstance(event, Part) and event.is_text
                if self._ended:
                    break
                await self._changed.wait()
        finally:
            self.readers -= 1
            if not self.readers and not self._ended:
                self._on_left(self)
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

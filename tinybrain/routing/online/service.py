"""Auditing and following, joined: what a gateway starts, feeds and ends."""

import asyncio
from typing import Any

from tinybrain.routing.online.auditor import Answered, Auditor
from tinybrain.routing.online.follower import Follower


class Online:
    """Runs both in the background. `checkpoint` is the one whose gate judges."""

    def __init__(self, checkpoint: str, auditor: Auditor, follower: Follower) -> None:
        self.checkpoint = checkpoint
        self.auditor = auditor
        self.follower = follower
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def standing(self) -> dict[str, Any]:
        """See Follower."""
        return self.follower.standing

    def start(self) -> None:
        """Begin; needs a running event loop."""
        self._tasks = [
            asyncio.create_task(work) for work in (self.auditor.run(), self.follower.run())
        ]

    def offer(self, answered: Answered) -> None:
        """See Auditor."""
        self.auditor.offer(answered)

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

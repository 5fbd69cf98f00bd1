"""One answer of two models: the words of the second are joined to what the first was shown to say.

Knows events, not models.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace

from tinybrain.errors import UpstreamError
from tinybrain.routing.continuation import Seam
from tinybrain.routing.events import AnswerEvent, Completed, Continued, Delta, ReasoningDelta

REST_S = 10.0
"""So long the caller waits for the end of what is not shown, which alone tells its cost."""


async def handed_over(
    events: AsyncGenerator[AnswerEvent, None],
    *,
    shown: str,
    prompt_tokens: int,
    shown_tokens: int,
    told: Continued,
) -> AsyncGenerator[AnswerEvent, None]:
    """Yield the second model's `events` as the rest of the answer of which `shown` is known.

    Its decision becomes `told`, right before the first that is seen of it. Its tokens are added to
    `shown_tokens`; the prompt is counted once, as the first model did, or, where that tells no
    count (0), the second, with what it was shown.

    Raises:
        UpstreamError: It began anew, or said nothing more; nothing of it was yielded then but
            reasoning. Otherwise as `events` raise.
    """
    seam = Seam(shown)
    announced = begun = False
    async with aclosing(events) as second:
        async for event in second:
            seen = _seen(event, seam)
            if seam.restarts:
                await _ended(second)
                raise UpstreamError(f"{told.model} began anew instead of continuing.")
            if seen and not announced:
                announced = True
                yield told
            if seen:
                yield seen
            begun = begun or isinstance(seen, Delta)
            if isinstance(event, Completed):
                if not begun:
                    raise UpstreamError(f"{told.model} had nothing to add.")
                tokens = shown_tokens + event.completion_tokens
                prompt = prompt_tokens or event.prompt_tokens
                yield replace(event, prompt_tokens=prompt, completion_tokens=tokens)


async def _ended(events: AsyncGenerator[AnswerEvent, None]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(REST_S):
            async for _ in events:
                pass


def _seen(event: AnswerEvent, seam: Seam) -> Delta | ReasoningDelta | None:
    match event:
        case ReasoningDelta():
            return event
        case Delta(text):
            text = seam.feed(text)
        case Completed():
            text = seam.close()
        case _:
            text = ""
    return Delta(text) if text else None

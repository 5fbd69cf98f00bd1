"""What is kept of an answer, so that the same request gets it again. Knows no wire format."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

from tinybrain.api.running import Event, Receipt
from tinybrain.chat import Prefilled, TokenLogprob
from tinybrain.routing.events import Completed, Decision, Delta, ReasoningDelta

Reply = dict[str, Any]
"""JSON: prefilled, decision, reasoning, content, completed, receipt; logprobs if there are."""


def reply_of(events: Iterable[Event], receipt: Receipt) -> Reply:
    """Gather an answer's events into one record."""
    reply: Reply = {"reasoning": "", "content": "", "receipt": asdict(receipt)}
    for event in events:
        match event:
            case Prefilled():
                reply["prefilled"] = asdict(event)
            case Decision():
                reply["decision"] = asdict(replace(event, signals=None))
            case ReasoningDelta(text):
                reply["reasoning"] += text
            case Delta(text, logprobs):
                reply["content"] += text
                if logprobs:
                    reply.setdefault("logprobs", []).extend(map(_kept, logprobs))
            case Completed():
                reply["completed"] = asdict(event)
    return reply


def events_of(reply: Reply) -> list[Event]:
    """The events of a kept answer, its text in one piece."""
    events: list[Event] = []
    if "prefilled" in reply:
        events.append(Prefilled(**reply["prefilled"]))
    if "decision" in reply:
        events.append(Decision(**reply["decision"]))
    if reply["reasoning"]:
        events.append(ReasoningDelta(reply["reasoning"]))
    if reply["content"]:
        logprobs = tuple(map(_told, reply.get("logprobs", ())))
        events.append(Delta(reply["content"], logprobs))
    if "completed" in reply:
        events.append(Completed(**reply["completed"]))
    return [*events, Receipt(**reply["receipt"])]


def _kept(token: TokenLogprob) -> list[Any]:
    return [token.raw.hex(), token.logprob, [[raw.hex(), logprob] for raw, logprob in token.top]]


def _told(kept: list[Any]) -> TokenLogprob:
    raw, logprob, top = kept
    return TokenLogprob(
        bytes.fromhex(raw), logprob, tuple((bytes.fromhex(raw), logprob) for raw, logprob in top)
    )

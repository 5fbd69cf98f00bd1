"""What is kept of an answer, so that the same request gets it again. Knows no wire format."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any

from tinybrain.api.choices import Choice, Part
from tinybrain.api.running import Event, Receipt
from tinybrain.chat import Prefilled, TokenLogprob
from tinybrain.routing.events import (
    AnswerEvent,
    Completed,
    Continued,
    Decision,
    Delta,
    ReasoningDelta,
)

Reply = dict[str, Any]
"""JSON: receipt, and choices, each with prefilled, decision, continued, begun, reasoning, content,
logprobs and completed, as far as there are."""


def reply_of(choices: Iterable[Choice], receipt: Receipt) -> Reply:
    """Gather an answer into one record."""
    return {"choices": [_kept_choice(choice) for choice in choices], "receipt": asdict(receipt)}


def events_of(reply: Reply) -> list[Event]:
    """The events of a kept answer, the text of each choice in one piece."""
    choices = reply.get("choices", [reply])  # one that was kept before there were several
    parts = [Part(index, event) for index, kept in enumerate(choices) for event in _events(kept)]
    return [*parts, Receipt(**reply["receipt"])]


def _kept_choice(choice: Choice) -> Reply:
    kept: Reply = {"reasoning": choice.reasoning, "content": choice.content}
    if choice.prefilled:
        kept["prefilled"] = asdict(choice.prefilled)
    if choice.decision:
        kept["decision"] = asdict(replace(choice.decision, signals=None))
    if choice.continued:
        kept["continued"] = asdict(replace(choice.continued, signals=None))
        kept["begun"] = choice.begun
    if choice.logprobs:
        kept["logprobs"] = [_kept(token) for token in choice.logprobs]
    if choice.completed:
        kept["completed"] = asdict(choice.completed)
    return kept


def _events(kept: Reply) -> Iterator[AnswerEvent]:
    if "prefilled" in kept:
        yield Prefilled(**kept["prefilled"])
    if "decision" in kept:
        yield Decision(**kept["decision"])
    begun = kept.get("begun", 0)
    logprobs = tuple(map(_told, kept.get("logprobs", ())))
    if "continued" in kept:
        yield Delta(kept["content"][:begun], logprobs)
        yield Continued(**kept["continued"])
        logprobs = ()
    if kept["reasoning"]:
        yield ReasoningDelta(kept["reasoning"])
    if rest := kept["content"][begun:]:
        yield Delta(rest, logprobs)
    if "completed" in kept:
        yield Completed(**kept["completed"])


def _kept(token: TokenLogprob) -> list[Any]:
    return [token.raw.hex(), token.logprob, [[raw.hex(), logprob] for raw, logprob in token.top]]


def _told(kept: list[Any]) -> TokenLogprob:
    raw, logprob, top = kept
    return TokenLogprob(
        bytes.fromhex(raw), logprob, tuple((bytes.fromhex(raw), logprob) for raw, logprob in top)
    )

"""Asks a small model questions: what it answers, and how much it doubted its first tokens.

Knows models by their protocol only: the engine's, a replica's, one behind an API.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinybrain.chat import Finished, LocalModel, Message, Prefilled, Sampling, Token
from tinybrain.errors import LocalModelError
from tinybrain.routing.calibration.outcomes import Outcome
from tinybrain.routing.calibration.questions import Question
from tinybrain.routing.model_events import closing
from tinybrain.routing.signals import Signals

GREEDY = Sampling(temperature=0, max_tokens=48)


@dataclass(frozen=True, slots=True)
class Draft:
    """What the small model answered; `signals` are of its first tokens, as the gate has them."""

    question: Question
    answer: str
    signals: Signals

    @property
    def is_right(self) -> bool:
        """Whether it is an accepted answer."""
        return self.question.is_answered_by(self.answer)

    def is_declined(self, declines: str | None) -> bool:
        """Whether it said that it does not know, which it does in these words."""
        return declines is not None and self.answer.startswith(declines)

    def outcome(self, *, right: bool, declines: str | None) -> Outcome:
        """What calibration learns of it."""
        declined = self.is_declined(declines)
        return Outcome(
            family=self.question.family,
            kind=self.question.kind,
            right=right and not declined,
            declined=declined,
            signals=self.signals,
        )


async def draft_all(
    model: LocalModel,
    questions: Sequence[Question],
    *,
    hold_back_tokens: int,
    at_once: int,
    sampling: Sampling = GREEDY,
    done: Callable[[Draft], object] = lambda _: None,
) -> list[Draft]:
    """Ask the questions, `at_once` of them together; `done` is told each as it comes.

    Raises:
        LocalModelError: An answer broke off.
    """
    turn = asyncio.Semaphore(at_once)

    async def ask(question: Question) -> Draft:
        async with turn:
            found = await draft(model, question, sampling, hold_back_tokens)
        done(found)
        return found

    return list(await asyncio.gather(*map(ask, questions)))


async def draft(
    model: LocalModel, question: Question, sampling: Sampling, hold_back_tokens: int
) -> Draft:
    """Ask one question."""
    asked = [Message("user", question.text)]
    return Draft(question, *await drafted(model, asked, sampling, hold_back_tokens))


async def drafted(
    model: LocalModel, messages: Sequence[Message], sampling: Sampling, hold_back_tokens: int
) -> tuple[str, Signals]:
    """What the small model says, and the signals of its first `hold_back_tokens` tokens.

    Raises:
        LocalModelError: The answer broke off.
    """
    prefilled, tokens, text = None, list[Token](), ""
    events = model.generate(messages, sampling)
    async with closing(events):
        async for event in events:
            match event:
                case Prefilled():
                    prefilled = event
                case Token():
                    tokens.append(event)
                    text += event.text
                case Finished():
                    signals = Signals.of_opening(tokens, hold_back_tokens, prefilled)
                    return text + event.text, signals
    raise LocalModelError("The small model's answer broke off.")

"""A cascade over two models that play scripts, and the checks every answer must pass."""

import asyncio
import math
from unittest.mock import ANY

import pytest

from tinybrain.chat import Finished, Message, Prefilled, Sampling, Text, Thought, Token
from tinybrain.routing.cascade import Cascade
from tinybrain.routing.events import Completed, Decision, Delta, ReasoningDelta
from tinybrain.routing.gate import Gate, Limit, least_certain_token
from tinybrain.routing.rules import Rules
from tinybrain.usdc import Usdc

PLAIN = [Message("user", "Good morning")]
HARD = [Message("user", "Think hard")]
SELF = [Message("user", "Who are you?")]
HANG = 60.0
PREFILLED = Prefilled(12.5, 4)


class Scripted:
    """A model that plays a script for each call: yields events, sleeps floats, raises errors."""

    def __init__(self, name, *scripts):
        self.name = name
        self.scripts = list(scripts)
        self.calls = []
        self.open = 0

    async def generate(self, messages, sampling, *, answer_id=None):
        self.calls.append((messages, sampling, answer_id))
        self.open += 1
        try:
            for step in self.scripts.pop(0):
                if isinstance(step, float):
                    await asyncio.sleep(step)
                elif isinstance(step, BaseException):
                    raise step
                else:
                    yield step
        finally:
            self.open -= 1


def tokens(*texts, probability=0.99):
    return [Token(text, math.log(probability), 0.1, 0.9) for text in texts]


def local_script(*texts, probability=0.99):
    return [PREFILLED, *tokens(*texts, probability=probability), Finished("stop", 4, len(texts))]


SURE = local_script("a", "b", "c", "d", "e")
UNSURE = local_script("a", "b", "c", "d", "e", probability=0.2)
BOUGHT = [Thought("hm"), Text("big"), Text("ger"), Finished("length", 7, 3, "", Usdc(900), "0xa")]
BOUGHT_ANSWER = [
    ReasoningDelta("hm"),
    Delta("big"),
    Delta("ger"),
    Completed("length", 7, 3, Usdc(900), "0xa"),
]


def gate(hold_back, later=None):
    """Half as likely as not is sure enough; a perplexity over 1000 is out of scope."""
    return Gate(
        later=later,
        opening=Limit(estimate=least_certain_token, max_p_wrong=0.5),
        prefill=Limit(estimate=lambda s: min(1.0, s.perplexity / 2000), max_p_wrong=0.5),
        hold_back_tokens=hold_back,
        declines="I pass",
    )


class World:
    """A cascade over two scripted models, and the checks every answer must pass."""

    def __init__(self, local=(), upstream=(), *, timeout=5.0, hold_back=3, later=None):
        self.local = Scripted("tinychat", *local)
        self.upstream = Scripted("blockrun", *upstream)
        self.events = []
        self.cascade = Cascade(
            self.local,
            self.upstream,
            rules=Rules(keyword=True, complexity=True, self_referential=True),
            gate=gate(hold_back, later),
            first_event_timeout_s=timeout,
        )

    def start(self, messages=PLAIN, **options):
        return self.cascade.answer(messages, Sampling(max_tokens=9), answer_id="a1", **options)

    async def ask(self, messages=PLAIN, **options):
        async for event in self.start(messages, **options):
            self.events.append(event)
            if isinstance(event, Decision):
                other = self.upstream if event.answered_by == "tinychat" else self.local
                assert other.open == 0
        assert self.local.open == self.upstream.open == 0
        return self.events

    async def fail(self, error, messages=PLAIN, **options):
        with pytest.raises(error) as caught:
            await self.ask(messages, **options)
        assert self.local.open == self.upstream.open == 0
        return caught.value


def decision(by, reason="none", **fields):
    model = "tinychat" if by == "tinychat" else "blockrun"
    if "confidence" in fields:
        fields["signals"] = ANY
    return Decision(answered_by=by, model=model, reason=reason, **fields)

"""Asks a larger model whether the small model's answers are right, within a budget.

For questions of which nobody has said what a right answer is. A verdict is one word; any other
reply is discarded, but paid for. Verdicts are kept in a file, so that none is bought twice.
"""

import asyncio
import json
import random
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from tinybrain.chat import Finished, Message, Sampling, Text, Upstream
from tinybrain.errors import BudgetExceeded, ConfigError, UpstreamError
from tinybrain.routing.calibration.collecting import Draft
from tinybrain.routing.calibration.draft_file import append_line, whole_lines
from tinybrain.routing.calibration.outcomes import Outcome
from tinybrain.usdc import Usdc, format_usdc

AT_ONCE = 4
SAMPLING = Sampling(temperature=0, max_tokens=1024)  # a model that reasons needs room for it
PROMPT = """\
You judge an answer. Is it right: true, and an answer to what was asked? To a greeting or other \
small talk any fitting reply is right. Reply with one word, RIGHT or WRONG.

<question>
{question}
</question>

<answer>
{answer}
</answer>"""
VERDICTS = {"RIGHT": True, "WRONG": False}

Key = tuple[str, str]
"""Question and answer."""


def needs_judging(draft: Draft, *, declines: str | None) -> bool:
    """Whether nobody has said what a right answer is, and the small model gave one."""
    return draft.question.accepted is None and not draft.is_declined(declines)


def label(
    draft: Draft, verdicts: Mapping[Key, bool | None], *, declines: str | None
) -> Outcome | None:
    """The outcome, by accepted answers or by a verdict; None where there is neither."""
    right: bool | None = draft.is_right
    if needs_judging(draft, declines=declines):
        right = verdicts.get(_key(draft))
    return None if right is None else draft.outcome(right=right, declines=declines)


def judging_order(drafts: Sequence[Draft], *, seed: int) -> list[Draft]:
    """The drafts without accepted answers, shuffled: wherever judging ends, it was of a sample.

    Declined ones stand among them, though they need no judging, so that they end there, too.
    """
    unlabelled = [draft for draft in drafts if draft.question.accepted is None]
    random.Random(seed).shuffle(unlabelled)  # noqa: S311  # nothing is secret here
    return unlabelled


def reached(order: Sequence[Draft], judging: "Judging", *, declines: str | None) -> list[Draft]:
    """The drafts of `order` before the first that was to be judged and never was asked about."""
    return list(
        takewhile(
            lambda draft: not needs_judging(draft, declines=declines) or judging.reached(draft),
            order,
        )
    )


@dataclass(slots=True)
class Judging:
    """What was judged, and at what cost.

    `verdicts`, those of earlier calls among them, has None where the reply was neither word.
    `spent` counts what a call may have cost at most where nobody told it; `untold` are how many
    these were. `failures` are what calls failed about, `failure` is why the last that failed did.
    """

    verdicts: dict[Key, bool | None]
    judged: int = 0
    discarded: int = 0
    untold: int = 0
    spent: int = 0
    failure: str | None = None
    failures: set[Key] = field(default_factory=set)

    @property
    def failed(self) -> int:
        """How many calls did."""
        return len(self.failures)

    def reached(self, draft: Draft) -> bool:
        """Whether the larger model was asked about it, whatever came of that."""
        return _key(draft) in self.verdicts or _key(draft) in self.failures


def judging_in_words(judging: Judging, *, most: Usdc) -> str:
    """How many were judged, and what it cost."""
    counts = [
        (
            judging.untold,
            f"calls did not tell what they cost and count as {format_usdc(most)} each",
        ),
        (judging.discarded, "replies were neither RIGHT nor WRONG"),
        (judging.failed, "calls failed"),
    ]
    told = [f"{judging.judged:,} answers were judged for {format_usdc(judging.spent)}"]
    told += [f"{count:,} {what}" for count, what in counts if count]
    return " ".join(filter(None, ["; ".join(told) + ".", judging.failure]))


class VerdictFile:
    """Verdicts of earlier calls, one JSON line each."""

    def __init__(self, home: Path) -> None:
        self.path = home / "verdicts.jsonl"

    def read(self) -> dict[Key, bool | None]:
        """All of them.

        Raises:
            ConfigError: A line is no verdict.
        """
        try:
            rows = [json.loads(line) for _, line in whole_lines(self.path)]
            return {(row["question"], row["answer"]): row["right"] for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self.path} holds a line that is no verdict: {error}. Remove the line; what it "
                "was about is judged again."
            ) from error

    def append(self, key: Key, *, right: bool | None) -> None:
        """Keep a verdict."""
        append_line(self.path, {"question": key[0], "answer": key[1], "right": right})


class Judge:
    """A larger model that judges, as long as its budget lasts.

    Args:
        upstream: The model.
        budget: What may be spent in all.
        most: What one call may cost at most. So much is held back for each call under way, and
            counted for one that does not tell its cost.
        file: Where verdicts are kept.
    """

    def __init__(self, upstream: Upstream, *, budget: Usdc, most: Usdc, file: VerdictFile) -> None:
        self._upstream = upstream
        self._left = int(budget)
        self._most = most
        self._file = file
        self._done = Judging(file.read())

    async def judge_all(
        self, drafts: Sequence[Draft], *, done: Callable[[], object] = lambda: None
    ) -> Judging:
        """Judge in this order what was not judged before; `done` is called after each.

        It ends when the budget could be exceeded by one more, or a spending cap is reached.
        """
        known = self._done.verdicts
        waiting = (draft for draft in drafts if _key(draft) not in known)
        await asyncio.gather(*(self._work(waiting, done) for _ in range(AT_ONCE)))
        return self._done

    async def _work(
        self, waiting: Generator[Draft, None, None], done: Callable[[], object]
    ) -> None:
        while self._left >= self._most and (draft := next(waiting, None)):
            self._left -= self._most
            try:
                await self._judge(draft)
            except BudgetExceeded as error:
                waiting.close()  # a cap of the treasury holds for all calls
                self._left += self._most
                self._done.failure = error.message
            except UpstreamError as error:
                self._done.failures.add(_key(draft))
                self._done.failure = error.message
                self._pay(Usdc(0))  # it may have been paid all the same
            done()

    async def _judge(self, draft: Draft) -> None:
        key, reply, cost = _key(draft), "", Usdc(0)
        prompt = PROMPT.format(question=draft.question.text, answer=draft.answer)
        async for event in self._upstream.generate(
            [Message("user", prompt)], SAMPLING, answer_id=f"cal_{uuid.uuid4().hex}"
        ):
            match event:
                case Text(text):
                    reply += text
                case Finished():
                    reply, cost = reply + event.text, event.cost
        right = VERDICTS.get(reply.strip())
        self._pay(cost)
        self._done.judged += right is not None
        self._done.discarded += right is None
        self._done.verdicts[key] = right
        self._file.append(key, right=right)

    def _pay(self, cost: Usdc) -> None:
        """Count a call; a cost of nothing is one that nobody told."""
        self._done.untold += not cost
        self._done.spent += cost or self._most
        self._left += self._most - (cost or self._most)


def _key(draft: Draft) -> Key:
    return draft.question.text, draft.answer

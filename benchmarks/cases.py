"""Questions that a small model was asked, with its answers and doubts: what routing is measured on.

Answers are kept by checkpoint and question, so that another run only asks what is new.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.progress import Progress

from tinybrain.chat import LocalModel, Sampling
from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.collecting import GREEDY, Draft, draft_all
from tinybrain.routing.calibration.outcomes import Outcome
from tinybrain.routing.calibration.questions import Question
from tinybrain.routing.signals import Signals
from tinybrain.training.beyond import beyond_reply
from tinybrain.training.knowledge import Knowledge, all_facts, own_facts
from tinybrain.training.questions import build_questions

HOLD_BACK_TOKENS = 8
TRAINED_WITH = 1
"""The seed of what was withheld from the model that ships."""

FACTS = ("fact", "sum")
ASKED_BEFORE_KEPT = 64


def declining() -> str:
    """How the shipped model begins to decline; all it says is more than the gate holds back."""
    return beyond_reply().partition(". ")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(Outcome):
    """An outcome with the question and the answer it is of."""

    text: str
    answer: str
    split: str

    @classmethod
    def of(cls, draft: Draft, declines: str | None) -> Self:
        outcome = draft.outcome(right=draft.is_right, declines=declines)
        return cls(
            family=outcome.family,
            kind=outcome.kind,
            right=outcome.right,
            declined=outcome.declined,
            signals=outcome.signals,
            text=draft.question.text,
            answer=draft.answer,
            split=draft.question.split,
        )

    @property
    def is_fact(self) -> bool:
        return self.kind in FACTS


def questions_in_new_wordings(wordnet: Path) -> tuple[list[Question], str]:
    """What the shipped model can be asked in words it was never trained on, and whose facts.

    Without the packages that hold facts, the project's own alone.
    """
    try:
        facts, whose = list(all_facts(wordnet)), "all"
    except ConfigError as error:
        facts, whose = list(own_facts()), f"the project's own ({error.message})"
    questions = build_questions(Knowledge(facts, seed=TRAINED_WITH))
    return [question for question in questions if question.wording == "new"], whose


class Answers:
    """A file of answers, one a JSON line."""

    def __init__(self, file: Path, *, fresh: bool = False) -> None:
        self._file = file
        self._known: dict[str, tuple[str, Signals]] = {}
        file.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            file.unlink(missing_ok=True)
        if file.is_file():
            for line in file.read_text(encoding="utf-8").splitlines():
                found = json.loads(line)
                self._known[found["text"]] = found["answer"], Signals.read(found["signals"])

    def missing(self, questions: Sequence[Question]) -> list[Question]:
        return [question for question in questions if question.text not in self._known]

    async def ask(
        self,
        model: LocalModel,
        questions: Sequence[Question],
        *,
        at_once: int,
        sampling: Sampling = GREEDY,
    ) -> None:
        """Ask those that are missing, and keep the answers."""
        missing = self.missing(questions)
        with Progress(disable=not missing) as progress:
            task = progress.add_task("asking", total=len(missing))
            for begin in range(0, len(missing), ASKED_BEFORE_KEPT):
                drafts = await draft_all(
                    model,
                    missing[begin : begin + ASKED_BEFORE_KEPT],
                    hold_back_tokens=HOLD_BACK_TOKENS,
                    at_once=at_once,
                    sampling=sampling,
                    done=lambda: progress.advance(task),
                )
                self._keep(drafts)

    def cases(self, questions: Sequence[Question], *, declines: str | None) -> list[Case]:
        drafts = [Draft(question, *self._known[question.text]) for question in questions]
        return [Case.of(draft, declines) for draft in drafts]

    def _keep(self, drafts: Sequence[Draft]) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            for draft in drafts:
                self._known[draft.question.text] = draft.answer, draft.signals
                line = {"text": draft.question.text, "answer": draft.answer}
                file.write(json.dumps(line | {"signals": draft.signals.recorded()}) + "\n")

"""Questions that a small model was asked, with its answers and doubts: what routing is measured on.

Drafts are kept by checkpoint and question, so that another run only asks what is new.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.progress import Progress

from tinybrain.chat import LocalModel, Sampling
from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.collecting import GREEDY, Draft, draft_all
from tinybrain.routing.calibration.draft_file import DraftFile
from tinybrain.routing.calibration.outcomes import Outcome
from tinybrain.routing.calibration.questions import Question
from tinybrain.training.beyond import beyond_reply
from tinybrain.training.knowledge import Knowledge, all_facts, own_facts
from tinybrain.training.questions import build_questions

HOLD_BACK_TOKENS = 8
TRAINED_WITH = 1
"""The seed of what was withheld from the model that ships."""

FACTS = ("fact", "sum")


def declining() -> str:
    """How the shipped model begins to decline."""
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


class Drafts:
    """The drafts of some questions: those that were kept, and those to be made.

    `fresh` forgets what was kept.
    """

    def __init__(self, file: DraftFile, questions: Sequence[Question], *, fresh: bool) -> None:
        if fresh:
            file.path.unlink(missing_ok=True)
        self._file = file
        self._questions = questions
        self._made = file.read(questions)

    @property
    def missing(self) -> list[Question]:
        return [question for question in self._questions if question.text not in self._made]

    async def ask(self, model: LocalModel, *, at_once: int, sampling: Sampling = GREEDY) -> None:
        """Ask what is missing."""
        missing = self.missing
        with Progress(disable=not missing) as progress:
            task = progress.add_task("asking", total=len(missing))

            def keep(draft: Draft) -> None:
                self._made[draft.question.text] = draft
                self._file.append(draft)
                progress.advance(task)

            await draft_all(
                model,
                missing,
                hold_back_tokens=HOLD_BACK_TOKENS,
                at_once=at_once,
                sampling=sampling,
                done=keep,
            )

    def cases(self, *, declines: str | None) -> list[Case]:
        return [Case.of(self._made[question.text], declines) for question in self._questions]

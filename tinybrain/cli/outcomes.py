"""From a file of questions to labelled outcomes: what `tinybrain calibrate` learns from.

Drafts and verdicts are kept as they come, so that a call that broke off goes on where it was.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.progress import Progress

from tinybrain.chat import Message
from tinybrain.cli.upstream import open_upstream
from tinybrain.config import Settings
from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.assembly import identity_of, rules_of
from tinybrain.routing.calibration.collecting import Draft, draft_all
from tinybrain.routing.calibration.draft_file import DraftFile
from tinybrain.routing.calibration.judging import (
    Judge,
    Judging,
    VerdictFile,
    judging_in_words,
    judging_order,
    label,
    needs_judging,
    reached,
)
from tinybrain.routing.calibration.outcomes import FEWEST, Outcome
from tinybrain.routing.calibration.questions import Question, Split, read_questions
from tinybrain.routing.calibration.router import MAX_CALIBRATED
from tinybrain.routing.calibration.target import Target
from tinybrain.routing.gate import UNCALIBRATED_HOLD_BACK
from tinybrain.routing.small_model import open_small_model
from tinybrain.usdc import Usdc


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the caller of the command asks for."""

    questions: Path
    out: Path
    report: Path | None
    target: Target
    declines: str | None
    every: int
    at_once: int
    budget: Usdc
    seed: int


def hold_back_tokens(settings: Settings) -> int:
    """How many tokens the gate will judge."""
    return settings.hold_back_tokens or UNCALIBRATED_HOLD_BACK


def gated_questions(settings: Settings, wishes: Wishes) -> list[Question]:
    """The questions that reach the gate: those that the rules decide say nothing about it.

    Raises:
        ConfigError: The file cannot be read, or too few are left to calibrate with.
    """
    rules = rules_of(settings)
    asked = {question.text: question for question in read_questions(wishes.questions)}
    chosen = [*asked.values()][:: wishes.every]
    questions = [q for q in chosen if rules.decide([Message("user", q.text)]).verdict is None]
    calibration = sum(question.split == "calibration" for question in questions)
    typer.echo(
        f"{calibration:,} questions to calibrate with, {len(questions) - calibration:,} to measure "
        f"with; {len(chosen) - len(questions):,} are decided by rules and left out."
    )
    if calibration > MAX_CALIBRATED:
        raise ConfigError(
            f"{calibration:,} questions to calibrate with are too many: ask at most "
            f"{MAX_CALIBRATED:,} of them, with --every."
        )
    if calibration < FEWEST:
        raise ConfigError(
            f"{wishes.questions} has {calibration} questions to calibrate with, after --every, "
            f"rules and repetitions. At least {FEWEST} are needed: known ones, unknown ones, and "
            "small talk."
        )
    return questions


def ask(settings: Settings, questions: Sequence[Question], *, at_once: int) -> list[Draft]:
    """The small model's drafts, in the order of their questions; made now or by an earlier call.

    Raises:
        ConfigError: The checkpoint, or the file with the drafts, cannot be used.
        LocalModelError: The small model failed.
    """
    file = DraftFile(
        _home(settings),
        checkpoint=identity_of(settings),
        precision=settings.precision,
        hold_back_tokens=hold_back_tokens(settings),
    )
    drafts = file.read(questions)
    if drafts:
        typer.echo(f"{len(drafts):,} drafts of an earlier call are used again: {file.path}.")
    missing = [question for question in questions if question.text not in drafts]
    made = asyncio.run(_ask(settings, missing, file, at_once=at_once)) if missing else []
    drafts |= {draft.question.text: draft for draft in made}
    return [drafts[question.text] for question in questions]


async def _ask(
    settings: Settings, questions: Sequence[Question], file: DraftFile, *, at_once: int
) -> list[Draft]:
    with Progress() as progress:
        task = progress.add_task("asking", total=len(questions))

        def keep(draft: Draft) -> None:
            file.append(draft)
            progress.advance(task)

        async with open_small_model(settings, slots=at_once) as model:
            return await draft_all(
                model,
                questions,
                hold_back_tokens=hold_back_tokens(settings),
                at_once=at_once,
                done=keep,
            )


def judge(settings: Settings, wishes: Wishes, drafts: Sequence[Draft]) -> Judging:
    """What the larger model says of drafts that nobody has given accepted answers for."""
    order = judging_order(drafts, seed=wishes.seed)
    waiting = [draft for draft in order if needs_judging(draft, declines=wishes.declines)]
    file = VerdictFile(_home(settings))
    if not waiting or not wishes.budget:
        return Judging(file.read())
    return asyncio.run(_judge(settings, wishes, waiting, file))


async def _judge(
    settings: Settings, wishes: Wishes, waiting: Sequence[Draft], file: VerdictFile
) -> Judging:
    async with open_upstream(settings) as upstream:
        judge = Judge(upstream, budget=wishes.budget, most=settings.max_cost_per_call, file=file)
        with Progress() as progress:
            task = progress.add_task("judging", total=len(waiting))
            judging = await judge.judge_all(waiting, done=lambda: progress.advance(task))
    typer.echo(judging_in_words(judging, most=settings.max_cost_per_call))
    return judging


def label_all(
    wishes: Wishes, drafts: Sequence[Draft], judging: Judging
) -> tuple[list[Outcome], list[Outcome]]:
    """The outcomes to calibrate with, and those to measure with.

    Where judging ended early, declined drafts that it would not have come to are left out as well:
    a sample with all of them would have too many.
    """
    order = judging_order(drafts, seed=wishes.seed)
    sample = {draft.question.text for draft in reached(order, judging, declines=wishes.declines)}
    found: dict[Split, list[Outcome]] = {"calibration": [], "test": []}
    for draft in drafts:
        if draft.question.accepted is None and draft.question.text not in sample:
            continue
        outcome = label(draft, judging.verdicts, declines=wishes.declines)
        if outcome is not None:
            found[draft.question.split].append(outcome)
    if left_out := len(drafts) - sum(map(len, found.values())):
        typer.echo(
            f"{left_out:,} questions are left out: they have no accepted answers, and their "
            "drafts were not judged, or come after the first that was not. Let the larger model "
            "judge them with --budget."
        )
    return found["calibration"], found["test"]


def _home(settings: Settings) -> Path:
    return settings.home / "calibration"

"""`tinybrain calibrate`: asks the small model questions, writes its router and the report.

Drafts and verdicts are kept as they come, so that a call that broke off goes on where it was.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import typer
from pydantic import ValidationError
from rich.progress import Progress

from tinybrain.chat import Message
from tinybrain.cli.service import open_upstream
from tinybrain.config import Settings
from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.assembly import ROUTER_FILE, checkpoint_of, rules_of, target_of
from tinybrain.routing.calibration.collecting import Draft, draft_all
from tinybrain.routing.calibration.draft_file import DraftFile
from tinybrain.routing.calibration.fitting import FEWEST, fit_router
from tinybrain.routing.calibration.held_out import Fit
from tinybrain.routing.calibration.judging import (
    Judge,
    Judging,
    Key,
    VerdictFile,
    judging_in_words,
    label,
    needs_judging,
)
from tinybrain.routing.calibration.measuring import Prices, calibrate
from tinybrain.routing.calibration.outcomes import Outcome
from tinybrain.routing.calibration.questions import Question, Split, read_questions
from tinybrain.routing.calibration.report_figures import draw, require_matplotlib
from tinybrain.routing.calibration.report_markdown import FIGURES_FILE, in_words, markdown
from tinybrain.routing.calibration.router import Router
from tinybrain.routing.calibration.target import Target
from tinybrain.routing.gate import UNCALIBRATED_HOLD_BACK
from tinybrain.usdc import Usdc

DEFAULT_TARGET = Target(max_local_error=0.05)


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


def run_calibration(settings: Settings, wishes: Wishes) -> None:
    """Ask, judge where that is needed, fit, measure, write and tell.

    Raises:
        ConfigError: There are too few questions or outcomes, the target cannot be reached, or a
            file or a setting is missing.
        LocalModelError: The small model failed; what it answered before is kept.
    """
    if wishes.report is not None:
        require_matplotlib()
    questions = gated_questions(settings, wishes)
    drafts = ask(settings, questions, at_once=wishes.at_once)
    judging = judge(settings, wishes, drafts)
    calibration, test = label_all(wishes, drafts, judging.verdicts)
    typer.echo("Fitting and measuring.")
    router = calibrate(
        calibration,
        test,
        fit=_fit(settings, wishes),
        prices=Prices(answer=settings.price, upstream=settings.max_cost_per_call),
        seed=wishes.seed,
    )
    wishes.out.parent.mkdir(parents=True, exist_ok=True)
    router.write(wishes.out)
    _tell(settings, wishes, router)


def choose_target(
    settings: Settings, *, escalation_rate: float | None, max_local_error: float | None
) -> Target:
    """The target that is asked for, else the one that is set, else a local error of 5 %.

    Raises:
        ConfigError: Both are asked for, or one is no share.
    """
    if escalation_rate is None and max_local_error is None:
        return target_of(settings) or DEFAULT_TARGET
    try:
        return Target(escalation_rate=escalation_rate, max_local_error=max_local_error)
    except ValidationError:
        raise ConfigError(
            "Give one of --target-escalation-rate and --max-local-error, above 0 and below 1: one "
            "threshold cannot follow both."
        ) from None


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
    if calibration < FEWEST:
        raise ConfigError(
            f"{wishes.questions} has {calibration} questions to calibrate with, after --every, "
            f"rules and repetitions. At least {FEWEST} are needed: known ones, unknown ones, and "
            "small talk."
        )
    return questions


def ask(settings: Settings, questions: Sequence[Question], *, at_once: int) -> list[Draft]:
    """The small model's drafts, in the order of their questions; made now or by an earlier call."""
    from tinybrain.engine.loading import load_tinychat  # noqa: PLC0415  # torch takes seconds

    model = load_tinychat(settings, slots=at_once)
    try:
        file = DraftFile(
            _home(settings),
            checkpoint=model.checkpoint_hash,
            precision=settings.precision,
            hold_back_tokens=_hold_back(settings),
        )
        drafts = file.read(questions)
        if drafts:
            typer.echo(f"{len(drafts):,} drafts of an earlier call are used again: {file.path}.")
        missing = [question for question in questions if question.text not in drafts]
        with Progress() as progress:
            task = progress.add_task("asking", total=len(questions), completed=len(drafts))

            def keep(draft: Draft) -> None:
                file.append(draft)
                progress.advance(task)

            made = asyncio.run(
                draft_all(
                    model,
                    missing,
                    hold_back_tokens=_hold_back(settings),
                    at_once=at_once,
                    done=keep,
                )
            )
    finally:
        model.close()
    drafts |= {draft.question.text: draft for draft in made}
    return [drafts[question.text] for question in questions]


def judge(settings: Settings, wishes: Wishes, drafts: Sequence[Draft]) -> Judging:
    """What the larger model says of drafts that nobody has given accepted answers for."""
    waiting = [draft for draft in drafts if needs_judging(draft, declines=wishes.declines)]
    file = VerdictFile(_home(settings))
    if not waiting or not wishes.budget:
        return Judging(file.read())
    random.Random(wishes.seed).shuffle(waiting)  # noqa: S311  # the budget may end anywhere
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
    wishes: Wishes, drafts: Sequence[Draft], verdicts: Mapping[Key, bool | None]
) -> tuple[list[Outcome], list[Outcome]]:
    """The outcomes to calibrate with, and those to measure with."""
    found: dict[Split, list[Outcome]] = {"calibration": [], "test": []}
    for draft in drafts:
        outcome = label(draft, verdicts, declines=wishes.declines)
        if outcome is not None:
            found[draft.question.split].append(outcome)
    if left_out := len(drafts) - sum(map(len, found.values())):
        typer.echo(
            f"{left_out:,} questions are left out: they have no accepted answers, and their "
            "drafts were not judged. Let the larger model judge them with --budget."
        )
    return found["calibration"], found["test"]


def _fit(settings: Settings, wishes: Wishes) -> Fit:
    return partial(
        fit_router,
        checkpoint=checkpoint_of(settings).digest(),
        made=datetime.now(UTC).date(),
        hold_back_tokens=_hold_back(settings),
        target=wishes.target,
        declines=wishes.declines,
        seed=wishes.seed,
    )


def _tell(settings: Settings, wishes: Wishes, router: Router) -> None:
    report = router.report
    if report is None:
        return
    typer.echo(in_words(report))
    if wishes.report is not None:
        wishes.report.mkdir(parents=True, exist_ok=True)
        draw(report, wishes.report / FIGURES_FILE)
        (wishes.report / "calibration.md").write_text(markdown(report), encoding="utf-8")
        text = report.model_dump_json(indent=1)
        (wishes.report / "report.json").write_text(text + "\n", encoding="utf-8")
        typer.echo(f"The report is {wishes.report / 'calibration.md'}.")
    beside = checkpoint_of(settings).weights.with_name(ROUTER_FILE)
    if wishes.out.absolute() != beside:
        typer.echo(
            f"The router is {wishes.out}. It is used once it is {beside}, or TINYBRAIN_ROUTER "
            "names it."
        )


def _hold_back(settings: Settings) -> int:
    return settings.hold_back_tokens or UNCALIBRATED_HOLD_BACK


def _home(settings: Settings) -> Path:
    return settings.home / "calibration"

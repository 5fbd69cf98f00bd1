"""`tinybrain calibrate`: from a file of questions to a router and its report."""

from datetime import UTC, datetime
from functools import partial

import typer
from pydantic import ValidationError

from tinybrain.cli.outcomes import (
    Wishes,
    ask,
    gated_questions,
    hold_back_tokens,
    judge,
    label_all,
)
from tinybrain.config import Settings
from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.assembly import identity_of, router_place, target_of
from tinybrain.routing.calibration.fitting import fit_router
from tinybrain.routing.calibration.held_out import Fit
from tinybrain.routing.calibration.measuring import Prices, calibrate
from tinybrain.routing.calibration.report import Report
from tinybrain.routing.calibration.report_figures import draw, require_matplotlib
from tinybrain.routing.calibration.report_markdown import FIGURES_FILE, in_words, markdown
from tinybrain.routing.calibration.target import Target

DEFAULT_TARGET = Target(max_local_error=0.05)


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
    calibration, test = label_all(wishes, drafts, judging)
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
    if router.report is not None:
        _write_report(wishes, router.report)
    beside = router_place(settings)
    if beside is None:
        typer.echo(f"The router is {wishes.out}. It is used once TINYBRAIN_ROUTER names it.")
    elif wishes.out.absolute() != beside:
        typer.echo(
            f"The router is {wishes.out}. It is used once it is {beside}, or TINYBRAIN_ROUTER "
            "names it."
        )


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


def _fit(settings: Settings, wishes: Wishes) -> Fit:
    return partial(
        fit_router,
        checkpoint=identity_of(settings),
        made=datetime.now(UTC).date(),
        hold_back_tokens=hold_back_tokens(settings),
        target=wishes.target,
        declines=wishes.declines,
        seed=wishes.seed,
    )


def _write_report(wishes: Wishes, report: Report) -> None:
    typer.echo(in_words(report))
    if (folder := wishes.report) is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    draw(report, folder / FIGURES_FILE)
    (folder / "calibration.md").write_text(markdown(report), encoding="utf-8")
    (folder / "report.json").write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    typer.echo(f"The report is {folder / 'calibration.md'}.")

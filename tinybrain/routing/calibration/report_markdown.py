"""The report in words and tables."""

from collections.abc import Iterable, Sequence

from tinybrain.routing.calibration.report import QUESTIONS, Estimate, Report
from tinybrain.usdc import format_usdc

FIGURES_FILE = "calibration.png"
CROSS_FITTING = (
    "by cross-fitting (P(wrong) of each is of a fit without it; the threshold was chosen on "
    "two thirds of them)"
)


def in_words(report: Report) -> str:
    """The threshold, and what is to be expected of it."""
    gate = report.gate
    error, low, high = gate.local_error
    on = "of the test" if report.measured_on == "test" else CROSS_FITTING
    return (
        f"An answer is kept if P(wrong) is at most {report.threshold:.3f}, so that "
        f"{report.target}. Of {QUESTIONS:,} questions like these {_of(gate.escalated)} are "
        f"escalated: {_of(gate.at_prefill)} on the prompt alone, {_of(gate.declined)} because "
        "TinyChat declines them itself, the rest because it doubts its first words. Of the "
        f"answers kept {error:.1%} are wrong (95% interval {low:.1%} to {high:.1%}). Measured on "
        f"{report.n:,} questions {on}; calibrated on {report.calibrated_on:,}."
    )


def markdown(report: Report) -> str:
    """The whole report; the figures are beside it."""
    return f"""\
# Calibration of checkpoint {report.checkpoint}

{report.made}. {in_words(report)}

![Reliability, risk and coverage, AUROC]({FIGURES_FILE})

## Telling wrong answers from right ones
{report.wrong:.1%} of the answers are wrong or declined. AUROC with 95 % intervals; what is declined
counts as the deepest doubt, except where it is left out. Within a family no difference between
families can help. AURC is the mean error over all shares kept: less is better.

{_rankings(report)}

P(wrong) of families that the fit has not seen: AUROC {_estimate(report.families_left_out)}, over
{report.families} families; the interval is for other questions of these, not for other families.
Expected calibration error of what was not declined: {report.ece:.3f}.

## What can be asked for
What the gate escalates of the calibration's own questions so that at most this share of the answers
kept is wrong (95 % confidence), and what an ideal one would have to.

{_feasibility(report)}

## Costs of {QUESTIONS:,} questions
An answer sells for {format_usdc(report.price)}; an escalated one costs at most
{format_usdc(report.upstream_cost)} (`TINYBRAIN_MAX_COST_PER_CALL`). What the larger model answers
wrong is not known.

{_costs(report)}
"""


def _rankings(report: Report) -> str:
    rankings = {"P(wrong)": report.p_wrong, **report.baselines}
    return _table(
        ("score", "AUROC", "without declined ones", "within families", "AURC"),
        [
            (
                name,
                _estimate(found.pooled),
                _estimate(found.answered),
                _estimate(found.within),
                f"{found.aurc:.3f}",
            )
            for name, found in rankings.items()
        ],
    )


def _feasibility(report: Report) -> str:
    return _table(
        ("error allowed", "escalated", "least possible"),
        [
            (
                f"{row.max_local_error:.1%}",
                "cannot be shown" if row.escalated is None else f"{row.escalated:.1%}",
                f"{row.least_escalation:.1%}",
            )
            for row in report.feasibility
        ],
    )


def _costs(report: Report) -> str:
    return _table(
        ("policy", "escalated", "wrong from TinyChat", "revenue", "cost", "profit"),
        [
            (
                row.policy,
                f"{row.escalated:,}",
                f"{row.wrong:,}",
                *map(format_usdc, (row.revenue, row.cost, row.profit)),
            )
            for row in report.costs
        ],
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return "unknown"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _of(share: float) -> str:
    return f"{round(QUESTIONS * share):,}"

"""The report as a picture of three panels. Needs matplotlib, which is imported when it is drawn."""

from pathlib import Path
from typing import TYPE_CHECKING

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOTS_PER_INCH = 110


def require_matplotlib() -> None:
    """Check that figures can be drawn.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401, PLC0415  # an extra, and slow to import
    except ImportError as error:
        raise ConfigError(
            "The report's figures need matplotlib: pip install 'tinybrain[calibrate]', or leave "
            "out --report."
        ) from error


def draw(report: Report, path: Path) -> None:
    """Write the reliability diagram, the risk-coverage curve and the AUROCs as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # see above
    from matplotlib.figure import Figure  # noqa: PLC0415  # likewise

    figure = Figure(figsize=(15, 4.6), layout="constrained")
    FigureCanvasAgg(figure)  # which needs no screen
    reliability, risk, ranking = figure.subplots(1, 3)
    _reliability(reliability, report)
    _risk_coverage(risk, report)
    _auroc(ranking, report)
    figure.suptitle(f"Checkpoint {report.checkpoint}, {report.n:,} questions, {report.made}")
    figure.savefig(path, dpi=DOTS_PER_INCH, format="png")


def _reliability(axes: "Axes", report: Report) -> None:
    predicted, observed, n = zip(*report.reliability, strict=True)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    axes.plot(predicted, observed, marker="o")
    for x, y, count in zip(predicted, observed, n, strict=True):
        axes.annotate(str(count), (x, y), textcoords="offset points", xytext=(5, -11), fontsize=7)
    axes.set(title=f"Reliability (ECE {report.ece:.3f})", xlabel="P(wrong)", ylabel="share wrong")


def _risk_coverage(axes: "Axes", report: Report) -> None:
    coverage, risk = zip(*report.risk_coverage, strict=True)
    error, low, high = report.gate.local_error
    kept = 1 - report.gate.escalated
    axes.plot(coverage, risk)
    axes.axhline(report.wrong, color="grey", linestyle=":", label="random")
    axes.errorbar([kept], [error], [[error - low], [high - error]], fmt="o", label="this gate")
    axes.set(
        title=f"Risk and coverage (AURC {report.p_wrong.aurc:.3f})",
        xlabel="share kept",
        ylabel="share of the kept that is wrong",
    )
    axes.legend()


def _auroc(axes: "Axes", report: Report) -> None:
    found = {
        "P(wrong)": report.p_wrong.pooled,
        "P(wrong), family left out": report.families_left_out,
        **{name: ranking.pooled for name, ranking in report.baselines.items()},
    }
    for name, estimate in reversed(found.items()):
        if estimate is not None:
            value, low, high = estimate
            axes.barh(name, value, xerr=[[max(0, value - low)], [max(0, high - value)]], color="C0")
    axes.set(title="AUROC of “the answer is wrong”", xlim=(0.4, 1))

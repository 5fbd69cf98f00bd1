"""Labels of this service's own questions, as outcomes to calibrate on."""

from collections.abc import Sequence

from tinybrain.payments.records import Label
from tinybrain.routing.calibration.outcomes import Outcome
from tinybrain.routing.signals import Signals


def representative(labels: Sequence[Label]) -> list[Outcome]:
    """Outcomes in which every judged question is as likely as it was asked, by 1 / probability.

    Of as many as the weights are worth (Kish's effective number), so that bounds which count
    outcomes stay honest: drawn at equal steps along the summed weights, always the same ones.
    Labels of one probability are all taken, once.
    """
    weights = [1 / label.probability for label in labels]
    worth = int(sum(weights) ** 2 / sum(w * w for w in weights) + 1e-6) if weights else 0
    step = sum(weights) / worth if worth else 0.0
    drawn: list[Outcome] = []
    passed = 0.0
    for label, weight in zip(labels, weights, strict=True):
        passed += weight
        while len(drawn) < worth and (len(drawn) + 0.5) * step <= passed:
            drawn.append(_outcome(label))
    return drawn


def _outcome(label: Label) -> Outcome:
    return Outcome(
        family="",
        kind=label.source,
        right=label.is_right,
        declined=label.is_declined,
        signals=Signals.read(label.signals),
    )

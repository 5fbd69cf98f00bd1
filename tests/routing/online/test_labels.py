"""Labels that were chosen with different probabilities weigh as what they stand for."""

import pytest

from tinybrain.payments.records import Label
from tinybrain.routing.online.labels import representative

SIGNALS = {"min_logprob": -0.5, "mean_logprob": -0.1, "tokens": 8}


def labels(*groups):
    """So many labels, right or wrong, of a probability."""
    return [
        Label(
            checkpoint="c",
            source="audit",
            signals=SIGNALS,
            is_declined=False,
            is_right=right,
            probability=probability,
        )
        for count, right, probability in groups
        for _ in range(count)
    ]


def test_labels_of_one_probability_are_all_taken_once():
    assert [o.right for o in representative(labels((3, True, 0.03), (2, False, 0.03)))] == [
        *([True] * 3),
        *([False] * 2),
    ]


def test_a_rarely_chosen_label_stands_for_more():
    drawn = representative(labels((300, True, 0.01), (100, False, 0.03)))
    wrong = sum(not o.right for o in drawn) / len(drawn)
    assert wrong == pytest.approx(100 / 3 / (300 + 100 / 3), abs=0.01)


def test_unequal_weights_are_worth_fewer_outcomes():
    assert len(representative(labels((100, True, 0.001), (100, False, 0.05)))) < 110


def test_what_was_measured_and_said_goes_over():
    (drawn,) = representative(labels((1, True, 0.03)))
    assert (drawn.kind, drawn.signals.min_logprob, drawn.signals.tokens) == ("audit", -0.5, 8)
    assert representative([]) == []

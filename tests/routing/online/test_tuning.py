"""The gate that follows from the ledger: at its target, and not moved by too little."""

from dataclasses import replace

import pytest
from days import decide, doubtful, harder
from worlds import declining_world, outcome, router, world

from tinybrain.errors import ConfigError
from tinybrain.payments.records import Label, Spending
from tinybrain.routing.calibration.gates import calibrated_gate, expected
from tinybrain.routing.calibration.target import Target
from tinybrain.routing.online.drift import LIMIT
from tinybrain.routing.online.tuning import BOLDEST, Tuner
from tinybrain.routing.signals import Signals

RATE, ERROR = Target(escalation_rate=0.5), Target(max_local_error=0.2)


@pytest.fixture(scope="module")
def made():
    return router(world(1200))


def tuner(made, target):
    return Tuner.of(calibrated_gate(made, target), made, target, budget=1_000_000)


def passes(gate, signals):
    return gate.judge_prompt(signals).passes and gate.judge_opening(signals).passes


def labelled(outcomes, probability=0.03):
    return [
        Label(
            checkpoint="c",
            source="audit",
            signals=o.signals.recorded(),
            is_declined=False,
            is_right=o.right,
            probability=probability,
        )
        for o in outcomes
    ]


@pytest.mark.parametrize("target", [RATE, ERROR])
def test_with_nothing_to_learn_from_the_gate_is_the_one_of_the_start(made, target):
    found = tuner(made, target)
    assert found.gate([], []) == found.start


def test_a_drifting_escalation_rate_is_brought_back_to_its_target(made):
    found = tuner(made, RATE)
    before = decide(found.start, harder(400))
    assert found.service(before).escalated > 0.6
    gate = found.gate(before, [])
    after = decide(gate, harder(2000, seed=1))
    assert found.service(after).escalated == pytest.approx(0.5, abs=0.05)


def test_the_rate_comes_back_whatever_gate_decided_before(made):
    """Recomputed from what was measured: the tracking cannot swing or run away."""
    found = tuner(made, RATE)
    first = found.gate(decide(found.start, harder(400)), [])
    assert found.gate(decide(first, harder(400)), []) == first


def test_declined_questions_count_as_escalated(made):
    found = tuner(made, RATE)
    judged = decide(found.start, world(400, seed=5))
    declined = [replace(each, reason="declined") for each in judged[:100]]
    gate = found.gate(declined + judged[100:], [])
    kept = [passes(gate, o.signals) for o in world(400, seed=5)[100:]]
    assert sum(kept) / 400 == pytest.approx(0.5, abs=0.02)


def test_continued_answers_count_as_escalated_and_move_no_drift(made):
    found = tuner(made, RATE)
    judged = decide(found.start, world(400, seed=5))
    sure = sorted(judged, key=lambda each: each.reason != "none")
    continued = [replace(each, reason="later_doubt") for each in sure[:100]]
    gate = found.gate(continued + sure[100:], [])
    kept = [passes(gate, Signals.read(each.signals)) for each in sure[100:]]
    assert sum(kept) / 400 == pytest.approx(0.5, abs=0.02)
    before, after = found.service(judged), found.service(continued + sure[100:])
    assert after.escalated - before.escalated == pytest.approx(0.25)
    assert after.drift == pytest.approx(before.drift)


@pytest.mark.parametrize(("count", "moves"), [(199, False), (200, True)])
def test_199_judged_answers_do_not_move_the_rates_threshold_and_200_may(made, count, moves):
    found = tuner(made, RATE)
    gate = found.gate(decide(found.start, harder(count)), [])
    assert (gate != found.start) is moves


@pytest.mark.parametrize(("count", "moves"), [(199, False), (200, True)])
def test_199_labels_move_nothing_and_200_may(made, count, moves):
    found = tuner(made, ERROR)
    gate = found.gate([], labelled(doubtful(count)))
    assert (gate != found.start) is moves


def test_200_labels_that_are_worth_fewer_move_nothing(made):
    found = tuner(made, ERROR)
    labels = labelled(doubtful(200))
    labels[0] = replace(labels[0], probability=0.001)
    assert found.gate([], labels) == found.start


def test_labels_that_are_nearly_all_right_calibrate_nothing(made):
    found = tuner(made, ERROR)
    right = [o for o in world(800) if o.right]
    assert found.gate([], labelled(right[:300])) == found.start


def test_recalibrated_p_wrong_is_right_on_average_and_keeps_the_error(made):
    found = tuner(made, ERROR)
    gate = found.gate([], labelled(doubtful(1000)))
    another = doubtful(1000, seed=9)
    p_wrong = [gate.opening.estimate(o.signals) for o in another]
    assert sum(p_wrong) / 1000 == pytest.approx(0.5, abs=0.05)
    assert expected(found.start, another).escalated > expected(gate, another).escalated
    assert expected(gate, another).local_error < 0.2


def test_labels_on_which_the_target_cannot_be_reached_are_said_to_be(made):
    blind = [outcome(0.5, right=n % 2 == 0) for n in range(400)]
    with pytest.raises(ConfigError, match="cannot be reached"):
        tuner(made, ERROR).gate([], labelled(blind))


def test_a_gate_that_would_keep_nothing_is_refused(made):
    found = tuner(made, RATE)
    judged = [replace(each, reason="declined") for each in decide(found.start, world(300))]
    with pytest.raises(ConfigError, match="escalates every one"):
        found.gate(judged, [])


@pytest.mark.parametrize("reason", ["declined", "out_of_scope"])
def test_what_is_escalated_anyway_does_not_open_the_gate_for_the_rest(made, reason):
    found = tuner(made, RATE)
    judged = decide(found.start, world(400, seed=5))
    anyway = [replace(each, reason=reason) for each in judged[:199]]
    rest = [replace(each, reason="none") for each in judged[199:]]
    gate = found.gate(anyway + rest, [])
    openings = [o for o in made.outcomes if gate.judge_prompt(o.signals).passes]
    released = sum(gate.judge_opening(o.signals).passes for o in openings) / len(openings)
    assert released == pytest.approx(BOLDEST, abs=0.01)


def test_a_gate_that_released_more_at_the_start_may_do_so_again(made):
    found = tuner(made, Target(escalation_rate=0.12))
    gate = found.gate(decide(found.start, made.outcomes), [])
    escalated = expected(gate, made.outcomes).escalated
    assert escalated == pytest.approx(expected(found.start, made.outcomes).escalated, abs=0.02)


def test_what_was_declined_in_calibration_is_compared_with_what_is_declined_in_service():
    found = tuner(router(declining_world(1200)), Target(escalation_rate=0.7))
    another = declining_world(600, seed=5)
    judged = [
        replace(each, reason="declined") if o.declined else each
        for each, o in zip(decide(found.start, another), another, strict=True)
    ]
    assert found.service(judged).drift < LIMIT


def test_other_questions_are_told_as_drift(made):
    found = tuner(made, RATE)
    assert found.service(decide(found.start, world(600, seed=5))).drift < LIMIT
    assert found.service(decide(found.start, doubtful(600))).drift > LIMIT
    assert found.service(decide(found.start, doubtful(199))) == (199, None, None)


def day(*, doubts, cost=1_000, others=0):
    return Spending(
        total=doubts * cost + others,
        audits=0,
        doubted=doubts * cost,
        others=others,
        doubts=doubts,
        judged=4_000,
        seconds=86_400.0,
    )


def test_what_the_budget_cannot_pay_for_is_kept_but_what_is_most_in_doubt(made):
    found = tuner(made, RATE)
    judged = decide(found.start, world(2000, seed=5))
    paced = found.paced(found.start, judged, day(doubts=2_000, others=400_000))
    admitted = [Signals.read(each.signals) for each in judged if each.reason != "out_of_scope"]
    doubted = [signals for signals in admitted if not paced.judge_opening(signals).passes]
    # $1 less $0.40 for other reasons: 600 of the 4,000 a day
    assert len(doubted) / len(judged) == pytest.approx(600 / 4_000, abs=0.01)
    assert paced.later.max_p_wrong >= paced.opening.max_p_wrong


def test_a_budget_that_suffices_changes_nothing(made):
    found = tuner(made, RATE)
    judged = decide(found.start, world(2000, seed=5))
    assert found.paced(found.start, judged, day(doubts=2_000, cost=400)) is found.start


def test_a_budget_too_small_for_anything_does_not_let_everything_through(made):
    found = tuner(made, RATE)
    judged = decide(found.start, world(2000, seed=5))
    paced = found.paced(found.start, judged, day(doubts=10, others=2_000_000))
    rates = expected(paced, made.outcomes)
    dropped = (rates.escalated - rates.at_prefill) / (1 - rates.at_prefill)
    assert dropped == pytest.approx(1 - BOLDEST, abs=0.01)


def test_fewer_than_two_hundred_judged_answers_are_not_paced(made):
    found = tuner(made, RATE)
    judged = decide(found.start, world(199, seed=5))
    assert found.paced(found.start, judged, day(doubts=2_000)) is found.start


def test_what_was_decided_under_a_budget_leads_to_the_same_threshold(made):
    """The pacing cannot swing: it is of what was measured, not of who was bought."""
    found = tuner(made, RATE)
    first = found.paced(found.start, decide(found.start, world(2000, seed=5)), day(doubts=2_000))
    again = decide(first, world(2000, seed=5))
    bought = sum(each.reason == "uncertainty" for each in again)
    assert found.paced(found.start, again, day(doubts=2 * bought)) == first


def test_a_recalibrated_gate_is_paced_by_its_own_estimate(made):
    found = tuner(made, RATE)
    judged = decide(found.start, world(2000, seed=5))
    gate = found.gate(judged, labelled(doubtful(1000)))
    paced = found.paced(gate, judged, day(doubts=2_000, others=400_000))
    admitted = [Signals.read(each.signals) for each in judged if each.reason != "out_of_scope"]
    dropped = sum(not paced.judge_opening(signals).passes for signals in admitted)
    assert paced.opening.estimate == gate.opening.estimate != made.opening.p_wrong
    assert dropped / len(judged) == pytest.approx(600 / 4_000, abs=0.01)


def test_a_budget_that_would_keep_every_calibration_question_is_left_to_the_caps(made):
    found = tuner(made, RATE)
    judged = decide(found.start, world(2000, seed=5))
    broke = day(doubts=10, others=2_000_000)
    paced = found.paced(found.start, judged, broke)
    kept = [o for o in made.outcomes if paced.judge_opening(o.signals).passes]
    assert replace(found, outcomes=kept).paced(found.start, judged, broke) is found.start

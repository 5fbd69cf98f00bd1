"""The gate in force follows the book, and what changes is told."""

import asyncio
import logging
from dataclasses import replace

import prometheus_client
import pytest
from books import NOTHING, MemoryBook
from days import decide, doubtful, harder
from worlds import router, world

from tinybrain.payments.records import Judged, Label
from tinybrain.routing.calibration.gates import calibrated_gate
from tinybrain.routing.calibration.target import Target
from tinybrain.routing.online.follower import Follower
from tinybrain.routing.online.tuning import Tuner
from tinybrain.telemetry.metrics import Metrics
from tinybrain.telemetry.prometheus import PrometheusMeters

BUDGET = 1_000_000


@pytest.fixture(scope="module")
def made():
    return router(world(1200))


class Service:
    """A follower with its book, the gate it adopted last, and its metrics."""

    def __init__(self, made, target=None, book=None):
        target = target or Target(escalation_rate=0.5)
        self.book = book or MemoryBook()
        self.gate = self.start = calibrated_gate(made, target)
        self.registry = prometheus_client.CollectorRegistry()
        self.follower = Follower(
            Tuner.of(self.start, made, target, budget=BUDGET),
            book=self.book,
            adopt=lambda gate: setattr(self, "gate", gate),
            metrics=Metrics(PrometheusMeters(self.registry)),
            period_s=0.01,
        )

    def ask(self, outcomes):
        """Questions that the gate in force judges."""
        self.book.decided += decide(self.gate, outcomes)

    def metric(self, name, **labels):
        return self.registry.get_sample_value(f"tinybrain_{name}", labels)


async def until(condition):
    """Wait for what a task in the background brings about."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # as a caller sees it
            await asyncio.sleep(0.01)


async def test_a_rate_that_drifts_comes_back_to_its_target_day_by_day(made):
    service = Service(made)
    rates = []
    for day in range(4):
        service.ask(harder(2000, seed=day))
        await service.follower.look()
        rates.append(service.follower.standing["escalation_rate"])
    assert rates[0] > 0.6
    assert rates[1:] == pytest.approx([0.5] * 3, abs=0.03)


async def test_two_replicas_and_one_that_restarted_come_to_the_same_gate(made):
    one = Service(made)
    one.ask(doubtful(500))
    two, restarted = Service(made, book=one.book), Service(made, book=one.book)
    for service in (one, two, restarted):
        await service.follower.look()
    assert one.gate.opening.max_p_wrong == two.gate.opening.max_p_wrong
    assert two.gate == restarted.gate != one.start


async def test_what_is_measured_is_told(made):
    service = Service(made)
    service.ask(doubtful(500))
    service.book.spent = replace(NOTHING, total=5_000, audits=3_000)
    label = Label(
        checkpoint=made.checkpoint,
        source="audit",
        signals={},
        is_declined=False,
        is_right=False,
        probability=0.03,
    )
    service.book.kept = [label, label, replace(label, source="escalated", is_right=True)]
    await service.follower.look()
    told = service.follower.standing
    assert told["labels"] == {
        "audit": {"right": 0, "wrong": 2},
        "escalated": {"right": 1, "wrong": 0},
    }
    assert (told["judged"], told["target"], told["audit_spend"]) == (
        500,
        {"escalation_rate": 0.5},
        3_000,
    )
    assert service.metric("routing_labels", source="audit", verdict="wrong") == 2
    assert service.metric("routing_target", kind="escalation_rate") == 0.5
    assert service.metric("routing_threshold") == pytest.approx(told["threshold"], abs=1e-4)
    assert service.metric("routing_drift") == pytest.approx(told["drift"], abs=1e-4)
    assert service.metric("routing_escalation_rate") == told["escalation_rate"]
    assert service.metric("audit_spend_usdc_atomic") == 3_000
    assert told["budget"] == {"per_day": BUDGET, "spent": 5_000, "sets_the_threshold": False}
    assert service.metric("routing_paced") == 0


async def test_a_threshold_that_the_budget_sets_is_warned_of_once_and_told(made, caplog):
    service = Service(made)
    service.ask(harder(1000))
    await service.follower.look()
    on_target = service.gate
    dear = replace(NOTHING, total=2_000_000, doubted=2_000_000, doubts=500, judged=1000)
    service.book.spent = replace(dear, seconds=86_400.0)
    for _ in range(2):
        await service.follower.look()
    assert service.gate.opening.max_p_wrong > on_target.opening.max_p_wrong + 0.01
    assert service.follower.standing["budget"]["sets_the_threshold"] is True
    assert service.metric("routing_paced") == 1
    assert sum("$1.00 a day" in text for text in caplog.messages) == 1
    service.book.spent = NOTHING
    await service.follower.look()
    assert service.gate == on_target != service.start
    assert service.metric("routing_paced") == 0


async def test_a_threshold_that_moves_is_logged_with_both_values_once(made, caplog):
    caplog.set_level(logging.INFO)
    service = Service(made)
    service.ask(doubtful(500))
    for _ in range(2):
        await service.follower.look()
    before, now = service.start.opening.max_p_wrong, service.gate.opening.max_p_wrong
    moved = [record.message for record in caplog.records if "moved" in record.message]
    assert moved == [f"The gate's threshold on P(wrong) moved from {before:.3f} to {now:.3f}."]


async def test_drift_is_warned_of_once_until_it_has_gone(made, caplog):
    service = Service(made)
    alarms = []
    for outcomes in (doubtful(2000), doubtful(2000), world(2000, seed=5), doubtful(2000)):
        service.ask(outcomes)
        await service.follower.look()
        alarms.append(sum("no longer like those" in text for text in caplog.messages))
    assert alarms == [1, 1, 1, 2]


async def test_a_gate_that_would_not_work_is_not_adopted_and_said_once(made, caplog):
    service = Service(made)
    service.ask(world(300))
    service.book.decided = [replace(each, reason="declined") for each in service.book.decided]
    for _ in range(2):
        await service.follower.look()
    assert service.gate == service.start
    assert sum("stays as it is" in text for text in caplog.messages) == 1


async def test_a_book_that_cannot_be_read_changes_nothing_and_is_asked_again(made, caplog):
    service = Service(made)
    work = asyncio.create_task(service.follower.run())
    service.book.decided = [Judged({"of another version": 1.0}, "none")] * 300
    await until(lambda: "there is no signal" in caplog.text)
    service.book.fails = True
    await until(lambda: "locked" in caplog.text)
    assert service.gate == service.start
    service.book.fails, service.book.decided = False, []
    service.ask(doubtful(500))
    await until(lambda: service.gate != service.start)
    work.cancel()


async def test_a_fault_that_nobody_foresaw_is_logged_and_the_gate_is_followed_again(made, caplog):
    service = Service(made)
    service.book.decided = [None] * 300
    work = asyncio.create_task(service.follower.run())
    await until(lambda: "AttributeError" in caplog.text)
    service.book.decided = []
    service.ask(doubtful(500))
    await until(lambda: service.gate != service.start)
    work.cancel()

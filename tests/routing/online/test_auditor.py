"""Answers are labelled in the background, by chance, within bounds, and never in anyone's way."""

import asyncio
import random
import threading

import pytest
from books import MemoryBook

from tinybrain.chat import Finished, Message, Prefilled, Sampling, Text, Token
from tinybrain.errors import BudgetExceeded, Busy, UpstreamError
from tinybrain.payments.records import Label
from tinybrain.routing.online.agreement import agrees
from tinybrain.routing.online.auditor import QUEUE, Answered, Auditor, Subject
from tinybrain.routing.signals import Signals

JUDGED = Signals.of([Token("Paris", -0.2, 0.5, 0.7)], Prefilled(3.0, 4, user_perplexity=2.0))
ASKED = Sampling(temperature=0.7, max_tokens=900, logprobs=True, top_logprobs=3, stop=("\n",))


class Model:
    """Says a sentence, or fails, or hangs; as small model and as larger one."""

    name = "model"

    def __init__(self, says="Paris.", *, reason="stop", fails=None, hangs=False):
        self.says, self.reason, self.fails, self.hangs = says, reason, fails, hangs
        self.calls = []
        self.at_work = 0

    async def generate(self, messages, sampling, *, answer_id=None):
        self.calls.append((messages, sampling, answer_id))
        self.at_work += 1
        try:
            if self.hangs:
                await asyncio.sleep(60)
            if self.fails:
                raise self.fails
            if answer_id is None:
                yield Prefilled(9.0, 4)
                for word in self.says.split():
                    yield Token(word + " ", -0.7, 1.0, 0.1)
            else:
                yield Text(self.says)
            yield Finished(self.reason, 4, 1)
        finally:
            self.at_work -= 1


class World:
    """An auditor at work that chooses every answer, unless told otherwise."""

    def __init__(self, local=None, upstream=None, **options):
        self.local, self.upstream = local or Model(), upstream or Model()
        self.book, self.ended = MemoryBook(), []
        self.auditor = Auditor(
            local=self.local,
            upstream=self.upstream,
            book=self.book,
            subject=Subject(checkpoint="here", hold_back_tokens=2, declines="I pass"),
            ended=lambda *what: self.ended.append(what),
            **{"share": 0.05, "draw": lambda: 0.0} | options,
        )

    def offer(self, source="audit", text="Paris.", answer_id="ans_7"):
        self.auditor.offer(
            Answered(
                answer_id=answer_id,
                source=source,
                messages=[Message("user", "What is the capital of France?")],
                text=text,
                signals=JUDGED,
                sampling=ASKED,
                local_sampling=ASKED,
            )
        )

    async def label(self, *sources, **changes):
        for source in sources or ("audit",):
            self.offer(source, **changes)
        work = asyncio.create_task(self.auditor.run())
        async with asyncio.timeout(5):
            await self.auditor.settled()
        work.cancel()


async def test_an_answer_that_was_given_is_compared_with_a_bought_one():
    world = World()
    await world.label()
    assert world.book.kept == [
        Label(
            checkpoint="here",
            source="audit",
            signals=JUDGED.recorded(),
            is_declined=False,
            is_right=True,
            probability=0.05,
        )
    ]
    assert world.upstream.calls[0][1:] == (ASKED, "aud_7")
    assert world.ended == [("audit", "right")]


async def test_a_bought_answer_is_compared_with_a_draft_made_as_the_callers():
    world = World(local=Model("It is Lyon I think"))
    await world.label("escalated")
    (label,) = world.book.kept
    assert (label.source, label.is_right) == ("escalated", False)
    assert label.signals["min_logprob"] == -0.7
    assert label.signals["tokens"] == 2
    (_, sampling, _) = world.local.calls[0]
    assert (sampling.temperature, sampling.stop) == (ASKED.temperature, ASKED.stop)
    assert (sampling.max_tokens, sampling.logprobs, sampling.top_logprobs) == (256, False, 0)
    assert world.upstream.calls == []


async def test_a_draft_that_declines_is_no_right_answer_whatever_was_bought():
    world = World(local=Model("I pass on that"))
    await world.label("escalated", text="I don't know.")
    (label,) = world.book.kept
    assert (label.is_declined, label.is_right) == (True, False)


@pytest.mark.parametrize("source", ["audit", "escalated"])
async def test_comparing_does_not_hold_up_the_streams_of_its_process(source, monkeypatch):
    def slow(*texts):
        threads.append(threading.current_thread())
        return agrees(*texts)

    threads = []
    monkeypatch.setattr("tinybrain.routing.online.auditor.agrees", slow)
    await World().label(source)
    assert threads
    assert threading.current_thread() not in threads


@pytest.mark.parametrize("bought", [Model("I don't know."), Model("Par", reason="length")])
async def test_what_cannot_be_compared_is_no_label(bought):
    world = World(upstream=bought)
    await world.label()
    assert (world.book.kept, world.ended) == ([], [("audit", "undecided")])


async def test_answers_are_chosen_by_chance_alone():
    world = World(draw=random.Random(4).random)
    for n in range(4000):
        world.offer(source="audit" if n % 2 else "escalated", answer_id=f"ans_{n}")
    chosen = len(world.ended) + QUEUE
    assert chosen == pytest.approx(200, abs=40)
    dropped = sum(source == "audit" for source, _ in world.ended) / len(world.ended)
    assert dropped == pytest.approx(0.5, abs=0.15)


async def test_a_share_of_nothing_labels_nothing():
    world = World(share=0.0)
    world.offer()
    assert (world.ended, world.auditor._queue.qsize()) == ([], 0)


async def test_what_does_not_fit_into_the_queue_is_dropped_at_once():
    world = World()
    for _ in range(QUEUE + 1):
        world.offer()
    assert world.ended == [("audit", "dropped")]


FAULTS = [UpstreamError("dead"), Busy("full"), RuntimeError("a bug")]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("source", ["audit", "escalated"])
async def test_a_failure_is_no_label_and_the_next_answer_is_looked_at(source, fault):
    world = World(local=Model(fails=fault), upstream=Model(fails=fault))
    await world.label(source, source)
    assert (world.book.kept, world.ended) == ([], [(source, "failed")] * 2)


async def test_a_model_that_hangs_is_given_up():
    world = World(upstream=Model(hangs=True), timeout_s=0.01)
    await world.label()
    assert world.ended == [("audit", "failed")]
    assert world.upstream.at_work == 0


async def test_a_locked_ledger_loses_the_label_and_no_more():
    world = World()
    world.book.fails = True
    await world.label()
    world.book.fails = False
    await world.label()
    assert world.ended == [("audit", "failed"), ("audit", "right")]


async def test_where_the_budget_ends_both_pause_until_an_audit_was_bought_again(monkeypatch):
    world = World(upstream=Model(fails=BudgetExceeded("enough")), pause_s=600)
    await world.label()
    world.offer("escalated")
    world.offer("audit")
    assert (world.ended, world.auditor._queue.qsize()) == ([("audit", "budget")], 0)
    loop = asyncio.get_running_loop()
    now = loop.time
    monkeypatch.setattr(loop, "time", lambda: now() + 600)  # the pause is over
    world.upstream.fails = UpstreamError("dead")
    await world.label("escalated", "audit", "escalated")
    assert world.ended[1:] == [("audit", "failed")]
    world.upstream.fails = None
    await world.label("audit")
    await world.label("escalated")
    assert world.ended[2:] == [("audit", "right"), ("escalated", "right")]


async def test_what_waited_while_an_audit_was_refused_is_dropped():
    world = World(upstream=Model(fails=BudgetExceeded("enough")))
    await world.label("audit", "escalated", "audit")
    dropped = [("escalated", "dropped"), ("audit", "dropped")]
    assert world.ended == [("audit", "budget"), *dropped]
    assert len(world.upstream.calls) == 1


async def test_audits_are_counted_where_there_is_a_most():
    world = World(most_audits=2)
    await world.label("audit", "audit", "escalated")
    await world.label("audit")
    assert [how for _, how in world.ended] == ["right"] * 3 + ["budget"]
    assert len(world.upstream.calls) == 2


async def test_one_answer_is_labelled_at_a_time():
    world = World(upstream=Model(hangs=True))
    world.offer()
    world.offer()
    work = asyncio.create_task(world.auditor.run())
    await asyncio.sleep(0.01)
    assert world.upstream.at_work == 1
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert world.upstream.at_work == 0

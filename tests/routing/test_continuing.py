"""Doubt in the middle of TinyChat's answer: the larger model continues it, nothing is restarted."""

import asyncio
import math
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.routing.scripted import HANG, HARD, PLAIN, PREFILLED, SELF, UNSURE, World, tokens
from tinybrain.chat import (
    Finished,
    Message,
    Prefilled,
    Sampling,
    Text,
    Thought,
    Token,
    TokenLogprob,
)
from tinybrain.errors import BudgetExceeded, LocalModelError, UpstreamError
from tinybrain.routing.continuation import CONTINUE
from tinybrain.routing.events import Completed, Continued, Decision, Delta, ReasoningDelta
from tinybrain.routing.gate import Limit
from tinybrain.usdc import Usdc

# With windows of three tokens, more is likely wrong than right where the mean probability is low.
LATER = Limit(estimate=lambda s: 1 - math.exp(s.mean_logprob), max_p_wrong=0.5)
SHOWN = "One two three four"
SURE_WORDS = tokens("One", " two", " three", " four")
DOUBTFUL = tokens(" xx", " yy", " zz", probability=0.1)
END = Finished("stop", 4, 8)
LATE = [PREFILLED, *SURE_WORDS, *DOUBTFUL, *tokens(" end"), END]
BOUGHT = [Text("five"), Text(" six."), Finished("length", 90, 3, "", Usdc(900), "0xa")]


def world(*upstream, local=LATE, **options):
    return World([local], upstream, later=LATER, **options)


def text(events):
    return "".join(event.text for event in events if isinstance(event, Delta))


def kinds(events):
    return [type(event) for event in events if not isinstance(event, Delta)]


def who_went_on(events):
    return [(e.answered_by, e.fallback) for e in events if isinstance(e, Continued)]


async def test_the_larger_model_continues_from_the_last_word_that_was_not_in_doubt():
    events = await world(BOUGHT).ask()
    assert text(events) == SHOWN + " five six."
    assert kinds(events) == [Prefilled, Decision, Continued, Completed]
    decided = next(event for event in events if isinstance(event, Decision))
    assert (decided.answered_by, decided.reason) == ("tinychat", "none")


async def test_what_was_in_doubt_is_told_and_never_shown():
    events = await world(BOUGHT).ask()
    (told,) = (event for event in events if isinstance(event, Continued))
    assert (told.answered_by, told.model, told.reason) == ("upstream", "blockrun", "later_doubt")
    assert told.confidence == pytest.approx(0.1)
    assert (told.signals.tokens, told.signals.perplexity) == (3, 12.5)
    assert not {"xx", "yy", "zz"} & set(text(events).split())


async def test_cost_and_tokens_are_of_both_models_and_the_prompt_is_counted_once():
    assert (await world(BOUGHT).ask())[-1] == Completed("length", 4, 4 + 3, Usdc(900), "0xa")


async def test_the_larger_model_is_told_what_was_shown_and_how_much_is_left():
    asked = world(BOUGHT)
    await asked.ask()
    turns = [*PLAIN, Message("assistant", SHOWN), Message("user", CONTINUE)]
    assert asked.upstream.calls == [(turns, Sampling(max_tokens=9 - 4), "a1")]


async def test_what_it_says_again_is_not_shown_twice():
    echo = [Text("One two"), Text(" three four"), Text(" five."), Finished("stop", 9, 5)]
    assert text(await world(echo).ask()) == SHOWN + " five."


async def test_its_reasoning_is_shown_after_who_goes_on_is_known():
    events = await world([Thought("hm"), *BOUGHT]).ask()
    after = events[next(i for i, e in enumerate(events) if isinstance(e, Continued)) :]
    assert after[1:3] == [ReasoningDelta("hm"), Delta(" five")]


async def test_only_words_that_are_whole_are_shown_before_it():
    cut = [PREFILLED, *tokens("One", " two", " three", " fo"), *tokens("ur", probability=0.1)]
    split = world(BOUGHT, local=[*cut, *DOUBTFUL, END])
    assert text(await split.ask()) == "One two three five six."
    assert split.upstream.calls[0][0][-2] == Message("assistant", "One two three")


async def test_one_doubtful_word_among_sure_ones_changes_nothing():
    blip = [*SURE_WORDS, *tokens(" hm", probability=0.2), *tokens(" five", " six", " seven")]
    events = await world(local=[PREFILLED, *blip, END]).ask()
    assert text(events) == SHOWN + " hm five six seven"
    assert kinds(events) == [Prefilled, Decision, Completed]


@pytest.mark.parametrize("left", [1, 2])
async def test_an_answer_that_ends_before_a_window_is_full_is_shown_as_it_is(left):
    script = [PREFILLED, *SURE_WORDS, *DOUBTFUL[:left], END]
    assert kinds(await world(local=script).ask()) == [Prefilled, Decision, Completed]


async def test_sure_words_are_shown_as_they_come():
    waiting = world(local=[PREFILLED, *SURE_WORDS, *tokens(" five"), HANG])
    async with aclosing(waiting.start()) as events:
        seen = [await anext(events) for _ in range(5)]
    assert text(seen) == SHOWN


async def test_logprobs_are_of_tinychats_part_alone():
    told = TokenLogprob(b" four", -0.1)
    first = tokens("One", " two", " three")
    second = [Token(" four", -0.1, 0.1, 0.9, (told,))]
    events = await world(BOUGHT, local=[PREFILLED, *first, *second, *DOUBTFUL, END]).ask()
    said = {delta.text: delta.logprobs for delta in events if isinstance(delta, Delta)}
    assert said == {"One two": (), " three": (), " four": (told,), " five": (), " six.": ()}


# --- who is never continued


@pytest.mark.parametrize(
    ("messages", "options"), [(PLAIN, {"policy": "local"}), (SELF, {})], ids=["policy", "rule"]
)
async def test_an_answer_that_must_stay_local_is_never_continued(messages, options):
    alone = world(BOUGHT)
    assert text(await alone.ask(messages, **options)) == SHOWN + " xx yy zz end"
    assert alone.upstream.calls == []


async def test_without_a_limit_for_it_later_doubt_changes_nothing():
    alone = World([LATE], [BOUGHT])
    assert text(await alone.ask()) == SHOWN + " xx yy zz end"
    assert alone.upstream.calls == []


async def test_tinychat_standing_in_is_not_continued_by_the_one_it_stands_in_for():
    stand_in = World([LATE], [[UpstreamError("x")]], later=LATER)
    assert text(await stand_in.ask(HARD)) == SHOWN + " xx yy zz end"
    assert len(stand_in.upstream.calls) == 1


async def test_doubt_at_the_opening_is_escalated_not_continued():
    events = await world(BOUGHT, local=UNSURE).ask()
    assert kinds(events) == [Prefilled, Decision, Completed]
    assert text(events) == "five six."


# --- failures


BEFORE_ITS_FIRST_WORD = [
    pytest.param([UpstreamError("x")], id="at once"),
    pytest.param([BudgetExceeded("x")], id="over budget"),
    pytest.param([ValueError("x")], id="foreign error"),
    pytest.param([], id="nothing"),
    pytest.param([HANG], id="too slow"),
    pytest.param([Text("three four"), UpstreamError("x")], id="in an echo"),
    pytest.param([Text("three four"), Finished("stop", 9, 2)], id="an echo alone"),
]


@pytest.mark.parametrize("script", BEFORE_ITS_FIRST_WORD)
async def test_tinychat_goes_on_with_its_own_draft_if_the_larger_model_cannot_begin(script):
    events = await world(script, timeout=0.05).ask()
    assert text(events) == SHOWN + " xx yy zz end"
    assert who_went_on(events) == [("tinychat", True)]
    assert events[-1] == Completed("stop", 4, 8)


async def test_what_was_paid_for_nothing_new_is_a_cost_all_the_same():
    echo = [Text("three four"), Finished("stop", 9, 2, "", Usdc(900), "0xa")]
    assert (await world(echo).ask())[-1] == Completed("stop", 4, 8, Usdc(900), "0xa")


async def test_what_was_paid_for_one_that_begins_anew_is_a_cost_all_the_same():
    anew = [
        Text("One two three four, no: five."),
        Text(" So."),
        Finished("stop", 9, 7, "", Usdc(9)),
    ]
    script = [PREFILLED, *SURE_WORDS, *tokens(" five", " six"), *DOUBTFUL, END]
    assert (await world(anew, local=script).ask())[-1].cost == 9


async def test_the_end_of_one_that_begins_anew_is_not_waited_for_forever(monkeypatch):
    monkeypatch.setattr("tinybrain.routing.handover.REST_S", 0.05)
    script = [PREFILLED, *SURE_WORDS, *tokens(" five", " six"), *DOUBTFUL, END]
    events = await world([Text("One two three four, no: five."), HANG], local=script).ask()
    assert text(events) == SHOWN + " five six xx yy zz"
    assert events[-1].cost == 0


async def test_one_that_begins_the_sentence_anew_is_no_continuation():
    anew = [Text("One two three four, no: five."), Finished("stop", 9, 7)]
    script = [PREFILLED, *SURE_WORDS, *tokens(" five", " six"), *DOUBTFUL, END]
    events = await world(anew, local=script).ask()
    assert text(events) == SHOWN + " five six xx yy zz"
    assert who_went_on(events) == [("tinychat", True)]


async def test_reasoning_without_a_word_leaves_the_answer_to_tinychat():
    events = await world([Thought("hm"), UpstreamError("x")]).ask()
    assert text(events) == SHOWN + " xx yy zz end"
    assert who_went_on(events) == [("upstream", False), ("tinychat", True)]


async def test_the_larger_model_is_asked_once_however_often_doubt_returns():
    script = [*LATE[:-1], *DOUBTFUL, *DOUBTFUL, END]
    failing = world([UpstreamError("x")], local=script)
    await failing.ask()
    assert len(failing.upstream.calls) == 1


@pytest.mark.parametrize("error", [UpstreamError("x"), ValueError("x"), None])
async def test_after_its_first_word_a_failure_ends_the_stream_and_nothing_is_restarted(error):
    cut = world([Text("five"), Text(" six"), *([error] if error else [])])
    await cut.fail(UpstreamError)
    assert text(cut.events) == SHOWN + " five six"


async def test_tinychat_failing_while_it_goes_on_is_tinychats_error():
    broken = [PREFILLED, *SURE_WORDS, *DOUBTFUL, OSError("died")]
    await world([UpstreamError("x")], local=broken).fail(LocalModelError)


# --- who leaves


@pytest.mark.parametrize(
    ("script", "open_models"),
    [
        pytest.param([HANG], 2, id="while it is asked"),
        pytest.param([Thought("hm"), HANG], 2, id="while it reasons"),
        pytest.param([Text("four"), HANG], 2, id="while it repeats"),
        pytest.param([Text("five six"), HANG], 1, id="while it streams"),
    ],
)
async def test_who_leaves_closes_what_is_open(script, open_models):
    left = world(script)
    task = asyncio.create_task(left.ask())
    await asyncio.sleep(0.05)
    assert left.local.open + left.upstream.open == open_models
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left.local.open == left.upstream.open == 0


async def test_tinychat_is_closed_when_the_first_word_of_the_larger_model_is_seen():
    asked = world(BOUGHT)
    async with aclosing(asked.start()) as events:
        async for event in events:
            if event == Delta(" five"):
                assert (asked.local.open, asked.upstream.open) == (0, 1)
                break
    assert asked.local.open == asked.upstream.open == 0


# --- whatever happens


PROBABILITY = st.sampled_from([0.99, 0.4, 0.1])


@given(
    said=st.lists(st.tuples(st.text("ab .", max_size=3), PROBABILITY), max_size=15),
    bought=st.lists(st.text("xyz ", min_size=1, max_size=4), max_size=4),
    fails_after=st.none() | st.integers(0, 4),
)
async def test_what_is_shown_begins_with_tinychats_words_and_is_never_taken_back(
    said, bought, fails_after
):
    draft = [token for word, p in said for token in tokens(word, probability=p)]
    local = [PREFILLED, *SURE_WORDS, *draft, END]
    upstream = [*map(Text, bought), Finished("stop", 9, 9)]
    if fails_after is not None:
        upstream.insert(fails_after, UpstreamError("x"))
    asked = world(upstream, local=local)
    try:
        events = await asked.ask()
    except UpstreamError:
        events = asked.events
    whole = SHOWN + "".join(word for word, _ in said)
    by_larger_model = ("upstream", False) in who_went_on(events)
    begun = asked.upstream.calls[0][0][-2].content if by_larger_model else whole
    assert whole.startswith(begun)
    assert text(events).startswith(begun)
    assert set(text(events)[len(begun) :]) <= set("xyz ")

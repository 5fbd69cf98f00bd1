"""Every way an answer can take, with scripted models at the protocols' seam.

How a larger model continues one that TinyChat began is in `test_continuing.py`.
"""

import asyncio
import math
from contextlib import aclosing

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.routing.scripted import (
    BOUGHT,
    BOUGHT_ANSWER,
    HANG,
    HARD,
    PLAIN,
    PREFILLED,
    SELF,
    SURE,
    UNSURE,
    Scripted,
    World,
    decision,
    gate,
    local_script,
    tokens,
)
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
from tinybrain.errors import BudgetExceeded, Busy, InvalidRequest, LocalModelError, UpstreamError
from tinybrain.routing.cascade import Cascade
from tinybrain.routing.events import Completed, Decision, Delta
from tinybrain.routing.rules import Rules
from tinybrain.usdc import Usdc


async def test_what_the_gate_judged_comes_with_the_decision():
    (found,) = (event for event in await World([SURE]).ask() if isinstance(event, Decision))
    assert math.exp(found.signals.min_logprob) == pytest.approx(found.confidence)
    assert found.signals.tokens == 3


async def test_logprobs_come_with_the_text_they_are_of_held_back_or_not():
    told = [TokenLogprob(text.encode(), -0.1) for text in "abcd"]
    script = [PREFILLED, *(Token(t.raw.decode(), -0.1, 0.1, 0.9, (t,)) for t in told[:3])]
    script.append(Finished("stop", 4, 4, "d", logprobs=(told[3],)))
    deltas = [
        event for event in await World([script], hold_back=2).ask() if isinstance(event, Delta)
    ]
    assert deltas == [Delta("ab", tuple(told[:2])), Delta("c", (told[2],)), Delta("d", (told[3],))]


async def test_a_sure_answer_is_held_back_then_released_and_streamed_on():
    assert await World([SURE]).ask() == [
        PREFILLED,
        decision("tinychat", perplexity=12.5, confidence=pytest.approx(0.99)),
        Delta("abc"),
        Delta("d"),
        Delta("e"),
        Completed("stop", 4, 5),
    ]


async def test_an_answer_shorter_than_the_window_is_judged_whole():
    assert (await World([local_script("a")]).ask())[2:] == [Delta("a"), Completed("stop", 4, 1)]
    unsure = World([local_script("a", probability=0.2)], [BOUGHT])
    assert (await unsure.ask())[1].reason == "uncertainty"


async def test_an_unsure_draft_is_dropped_and_the_upstream_answers():
    assert await World([UNSURE], [BOUGHT]).ask() == [
        PREFILLED,
        decision("upstream", "uncertainty", perplexity=12.5, confidence=pytest.approx(0.2)),
        *BOUGHT_ANSWER,
    ]


async def test_an_answer_that_the_small_model_declines_is_bought_however_sure_it_is():
    declined = local_script("I", " pass", ".", probability=0.99)
    assert await World([declined], [BOUGHT]).ask() == [
        PREFILLED,
        decision("upstream", "declined", perplexity=12.5, confidence=0.0),
        *BOUGHT_ANSWER,
    ]


async def test_a_phrase_longer_than_what_is_held_back_declines_all_the_same():
    declined = local_script("I", " pa", "ss", " on that.")
    assert (await World([declined], [BOUGHT], hold_back=1).ask())[1].reason == "declined"


@pytest.mark.parametrize("texts", [("I", " pa", "rted."), ("I", " pa")])
async def test_what_begins_like_declining_and_is_none_is_shown_whole(texts):
    events = await World([local_script(*texts)], hold_back=1).ask()
    assert events[1].signals.tokens == 1
    assert "".join(event.text for event in events if isinstance(event, Delta)) == "".join(texts)


async def test_one_unsure_token_in_the_window_is_enough_and_one_after_it_is_not():
    doubt = tokens("?", probability=0.1)
    end = [Finished("stop", 4, 4)]
    inside = [PREFILLED, *tokens("a", "b"), *doubt, *tokens("c"), *end]
    after = [PREFILLED, *tokens("a", "b", "c"), *doubt, *end]
    assert (await World([inside], [BOUGHT]).ask())[1].answered_by == "upstream"
    assert (await World([after]).ask())[1].answered_by == "tinychat"


async def test_what_is_clearly_out_of_scope_is_escalated_before_the_first_token():
    prefilled = Prefilled(1500.0, 4)
    world = World([[prefilled, HANG]], [BOUGHT])
    reason = {"perplexity": 1500.0, "confidence": pytest.approx(0.25)}
    assert await world.ask() == [
        prefilled,
        decision("upstream", "out_of_scope", **reason),
        *BOUGHT_ANSWER,
    ]


async def test_questions_about_tinychat_are_in_scope_whatever_their_wording():
    events = await World([[Prefilled(1500.0, 4), *SURE[1:]]]).ask(SELF)
    assert events[1].answered_by == "tinychat"


async def test_the_draft_is_stopped_at_the_window_not_at_its_end():
    world = World([[PREFILLED, *tokens("a", "b", "c", probability=0.1), HANG]], [BOUGHT])
    assert (await asyncio.wait_for(world.ask(), 5))[2:] == BOUGHT_ANSWER


@pytest.mark.parametrize(
    ("text", "reason", "rule"),
    [("Think hard", "keyword", "keyword"), ("Translate cat", "complexity", "translation")],
)
async def test_a_rule_escalates_without_asking_tinychat(text, reason, rule):
    world = World([], [BOUGHT])
    events = await world.ask([Message("user", text)])
    assert events == [decision("upstream", reason, rule=rule), *BOUGHT_ANSWER]
    assert world.local.calls == []


async def test_questions_about_tinychat_are_not_gated():
    events = await World([UNSURE]).ask(SELF)
    assert events[:3] == [
        PREFILLED,
        decision("tinychat", rule="self_referential", perplexity=12.5),
        Delta("a"),
    ]


async def test_a_prior_leaves_the_decision_to_the_gate():
    question = [Message("user", "What is the capital of Japan?")]
    assert (await World([SURE]).ask(question))[1].answered_by == "tinychat"
    assert (await World([UNSURE], [BOUGHT]).ask(question))[1].reason == "uncertainty"


LOCAL_FAILURES = [
    pytest.param([LocalModelError("x")], id="at once"),
    pytest.param([Busy("x")], id="busy"),
    pytest.param([InvalidRequest("x")], id="does not fit the context"),
    pytest.param([ConnectionResetError("actor died")], id="foreign error"),
    pytest.param([PREFILLED, *tokens("a"), ConnectionResetError("died")], id="in the window"),
    pytest.param([PREFILLED, *tokens("a")], id="ends without an end"),
    pytest.param([PREFILLED, Finished("stop", 4, 0)], id="empty answer"),
    pytest.param(local_script(" ", "", "\n", " "), id="blank answer"),
    pytest.param([*tokens("a", "b", "c")], id="no prefill"),
    pytest.param([], id="nothing"),
]


@pytest.mark.parametrize("script", LOCAL_FAILURES)
async def test_tinychat_failing_before_release_lets_the_upstream_answer(script):
    events = await World([script], [BOUGHT]).ask()
    assert [event for event in events if event != PREFILLED][1:] == BOUGHT_ANSWER
    decided = next(event for event in events if isinstance(event, Decision))
    assert (decided.answered_by, decided.reason, decided.fallback) == ("upstream", "failure", False)


@pytest.mark.parametrize("script", [[Busy("x")], [PREFILLED, *tokens("", ""), OSError("died")]])
async def test_tinychat_failing_on_itself_lets_the_upstream_answer(script):
    assert (await World([script], [BOUGHT]).ask(SELF))[-4:] == BOUGHT_ANSWER


@pytest.mark.parametrize("policy", ["auto", "local"])
@pytest.mark.parametrize("error", [LocalModelError("x"), Busy("x"), OSError("died"), None])
async def test_tinychat_failing_after_release_is_neither_restarted_nor_replaced(policy, error):
    cut = [PREFILLED, *tokens("a", "b", "c"), *([error] if error else [])]
    world = World([cut, SURE], [BOUGHT])
    await world.fail(LocalModelError, policy=policy)
    assert "".join(e.text for e in world.events if isinstance(e, Delta)) == "abc"
    assert world.upstream.calls == []


UPSTREAM_FAILURES = [
    pytest.param([UpstreamError("x")], id="at once"),
    pytest.param([BudgetExceeded("x")], id="over budget"),
    pytest.param([ValueError("x")], id="foreign error"),
    pytest.param([], id="nothing"),
    pytest.param([Finished("stop", 4, 0)], id="empty answer"),
    pytest.param([HANG], id="too slow"),
]


@pytest.mark.parametrize("script", UPSTREAM_FAILURES)
async def test_tinychat_stands_in_for_an_upstream_that_cannot_begin(script):
    world = World([UNSURE, UNSURE], [script], timeout=0.05)
    assert await world.ask() == [
        PREFILLED,
        decision(
            "tinychat",
            "uncertainty",
            perplexity=12.5,
            confidence=pytest.approx(0.2),
            fallback=True,
        ),
        *(Delta(text) for text in "abcde"),
        Completed("stop", 4, 5),
    ]


async def test_what_was_paid_for_an_empty_answer_is_a_cost_all_the_same():
    empty = [Finished("stop", 4, 0, "", Usdc(900), "0xa")]
    assert (await World([UNSURE, UNSURE], [empty]).ask())[-1].cost == 900


async def test_tinychat_stands_in_for_an_upstream_that_a_rule_chose():
    events = await World([UNSURE], [[UpstreamError("x")]]).ask(HARD)
    assert events[:2] == [
        PREFILLED,
        decision("tinychat", "keyword", rule="keyword", perplexity=12.5, fallback=True),
    ]


@pytest.mark.parametrize("script", UPSTREAM_FAILURES)
@pytest.mark.parametrize("messages", [PLAIN, HARD])
async def test_both_failing_is_the_upstreams_error_and_nothing_is_shown(messages, script):
    world = World([[OSError("died")], SURE], [script], timeout=0.05)
    await world.fail(UpstreamError, messages)
    assert world.events == []
    assert len(world.local.calls) == 1


async def test_the_reason_of_the_upstream_survives_when_both_fail():
    world = World([[OSError("died")]], [[BudgetExceeded("x")]])
    assert isinstance(await world.fail(UpstreamError, HARD), BudgetExceeded)


async def test_a_fallback_that_breaks_off_is_tinychats_error():
    world = World([[PREFILLED, *tokens("a"), OSError("died")]], [[UpstreamError("x")]])
    await world.fail(LocalModelError, HARD)


@pytest.mark.parametrize("policy", ["auto", "upstream"])
@pytest.mark.parametrize(
    "script",
    [
        pytest.param([Text("a"), UpstreamError("x")], id="error after text"),
        pytest.param([Thought("a"), ValueError("x")], id="error after thought"),
        pytest.param([Thought("a"), Finished("length", 4, 1)], id="thoughts only"),
        pytest.param([Text(" "), Finished("stop", 4, 1)], id="blank answer"),
        pytest.param([Text("a")], id="no end"),
    ],
)
async def test_an_upstream_failing_midway_is_not_replaced(policy, script):
    world = World([SURE], [script])
    await world.fail(UpstreamError, HARD, policy=policy)
    assert world.local.calls == []


async def test_the_timeout_is_for_the_first_event_only():
    slow = [Text("a"), 0.2, Text("b"), Finished("stop", 4, 2)]
    events = await World([], [slow], timeout=0.1).ask(policy="upstream")
    assert events[1:] == [Delta("a"), Delta("b"), Completed("stop", 4, 2)]


async def test_policy_local_knows_no_rules_no_gate_and_no_window():
    world = World([UNSURE])
    assert await world.ask(HARD, policy="local") == [
        PREFILLED,
        decision("tinychat", perplexity=12.5),
        *(Delta(text) for text in "abcde"),
        Completed("stop", 4, 5),
    ]


@pytest.mark.parametrize(
    ("error", "raised"),
    [(Busy("x"), Busy), (InvalidRequest("x"), InvalidRequest), (OSError("x"), LocalModelError)],
)
async def test_policy_local_does_not_escalate_a_failure(error, raised):
    world = World([[error]], [BOUGHT])
    await world.fail(raised, policy="local")
    assert world.upstream.calls == []


async def test_policy_upstream_never_asks_tinychat():
    world = World([SURE], [BOUGHT])
    assert await world.ask(SELF, policy="upstream") == [decision("upstream"), *BOUGHT_ANSWER]
    failing = World([SURE], [[UpstreamError("x")]])
    await failing.fail(UpstreamError, policy="upstream")
    assert world.local.calls == failing.local.calls == []


async def test_each_model_gets_the_conversation_and_its_own_sampling():
    world = World([UNSURE], [BOUGHT])
    await world.ask(local_sampling=Sampling(max_tokens=5))
    assert world.local.calls == [(PLAIN, Sampling(max_tokens=5), None)]
    assert world.upstream.calls == [(PLAIN, Sampling(max_tokens=9), "a1")]


@pytest.mark.parametrize(
    ("local", "upstream", "seen"),
    [
        pytest.param([[PREFILLED, HANG]], [], 1, id="while held back"),
        pytest.param([[HANG]], [], 0, id="before the prefill"),
        pytest.param([[*SURE[:4], HANG]], [], 3, id="while tinychat streams"),
        pytest.param([UNSURE], [[HANG]], 1, id="while the upstream is asked"),
        pytest.param([UNSURE], [[Text("a"), HANG]], 3, id="while the upstream streams"),
        pytest.param([UNSURE, [HANG]], [[UpstreamError("x")]], 1, id="while falling back"),
    ],
)
async def test_a_caller_who_leaves_while_waiting_closes_the_open_model(local, upstream, seen):
    world = World(local, upstream)
    task = asyncio.create_task(world.ask())
    await asyncio.sleep(0.05)
    assert len(world.events) == seen
    assert world.local.open + world.upstream.open == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.local.open == world.upstream.open == 0


@pytest.mark.parametrize(
    ("local", "upstream", "steps"),
    [([SURE], [], 1), ([SURE], [], 3), ([UNSURE], [BOUGHT], 2), ([UNSURE], [BOUGHT], 3)],
)
async def test_closing_between_events_closes_the_open_model_at_once(local, upstream, steps):
    world = World(local, upstream)
    async with aclosing(world.start()) as events:
        for _ in range(steps):
            await anext(events)
        assert world.local.open + world.upstream.open == 1
    assert world.local.open == world.upstream.open == 0


async def test_a_model_without_a_generator_to_close_will_do():
    class Plain:
        name = "tinychat"

        def generate(self, messages, sampling):
            steps = iter(SURE)

            class Events:
                def __aiter__(self):
                    return self

                async def __anext__(self):
                    try:
                        return next(steps)
                    except StopIteration:
                        raise StopAsyncIteration from None

            return Events()

    cascade = Cascade(Plain(), Scripted("p"), rules=Rules(), gate=gate(3))
    events = [e async for e in cascade.answer(PLAIN, Sampling(), answer_id="a1")]
    assert events[-1] == Completed("stop", 4, 5)


@given(
    texts=st.lists(st.text("ab \u00e9", max_size=3), min_size=1, max_size=12),
    tail=st.text("z ", max_size=2),
    hold_back=st.integers(1, 8),
    policy=st.sampled_from(["auto", "local"]),
)
async def test_no_text_is_lost_doubled_or_reordered(texts, tail, hold_back, policy):
    whole = "".join(texts) + tail
    assume(whole.strip())
    script = [PREFILLED, *tokens(*texts), Finished("stop", 4, len(texts), tail)]
    events = await World([script], hold_back=hold_back).ask(policy=policy)
    shown = [event.text for event in events if isinstance(event, Delta)]
    assert all(shown)
    assert "".join(shown) == whole
    kinds = [type(event) for event in events if not isinstance(event, Delta)]
    assert kinds == [Prefilled, Decision, Completed]

"""One answer of two models."""

import pytest

from tinybrain.errors import UpstreamError
from tinybrain.routing.events import Completed, Continued, Decision, Delta, ReasoningDelta
from tinybrain.routing.handover import handed_over
from tinybrain.usdc import Usdc

DECIDED = Decision(answered_by="upstream", model="larger")
TOLD = Continued(answered_by="upstream", model="larger", reason="later_doubt", confidence=0.1)
END = Completed("stop", 90, 3, Usdc(900), "0xa")


async def together(*events, shown="The sky is", prompt_tokens=4):
    async def second():
        for event in events:
            yield event

    answer = handed_over(
        second(), shown=shown, prompt_tokens=prompt_tokens, shown_tokens=3, told=TOLD
    )
    return [event async for event in answer]


async def test_the_second_model_is_told_right_before_the_first_that_is_seen_of_it():
    assert await together(DECIDED, Delta("The sky is"), Delta(" blue"), END) == [
        TOLD,
        Delta(" blue"),
        Completed("stop", 4, 6, Usdc(900), "0xa"),
    ]


async def test_its_reasoning_is_seen():
    events = await together(DECIDED, ReasoningDelta("hm"), Delta("blue"), END)
    assert events[:3] == [TOLD, ReasoningDelta("hm"), Delta(" blue")]


async def test_the_prompt_is_as_the_second_counted_it_where_the_first_tells_no_count():
    assert (await together(DECIDED, Delta(" blue"), END, prompt_tokens=0))[-1].prompt_tokens == 90


async def test_what_only_looked_like_an_echo_is_shown_at_the_end():
    assert (await together(DECIDED, Delta("the"), END))[1] == Delta(" the")


@pytest.mark.parametrize("said", ["The sky is", "...", " "])
async def test_nothing_new_is_a_failure(said):
    with pytest.raises(UpstreamError, match="larger had nothing to add"):
        await together(DECIDED, Delta(said), END)


async def test_to_begin_anew_is_a_failure():
    with pytest.raises(UpstreamError, match="larger began anew"):
        await together(DECIDED, Delta("The sky over us was red."), END, shown="The sky over us is")

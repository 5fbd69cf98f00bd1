"""A real small model behind an API: llama.cpp serving SmolLM2, asked as TinyChat would be."""

import math
import sys
from functools import partial

import pytest

from tinybrain.chat import Finished, Message, Prefilled, Sampling, Token
from tinybrain.cli.doctor import _small_model
from tinybrain.config import load_settings
from tinybrain.devnet.processes import ChildProcess, answers, claim_port
from tinybrain.devnet.smollm2 import NAME
from tinybrain.errors import InvalidRequest
from tinybrain.routing.calibration.assembly import identity_of
from tinybrain.routing.calibration.collecting import draft_all
from tinybrain.routing.calibration.questions import Question
from tinybrain.routing.small_model import open_small_model

QUESTION = [Message("user", "What is the capital of France?")]
GREEDY = Sampling(6, temperature=0, logprobs=True, top_logprobs=5)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    port = claim_port(0, what="a test", option="")
    url = f"http://127.0.0.1:{port}"
    process = ChildProcess(
        "The small model",
        [sys.executable, "-m", "tinybrain.devnet.small_model", str(port)],
        log=tmp_path_factory.mktemp("small") / "log",
        ready=partial(answers, f"{url}/health"),
    )
    process.wait_until_ready(timeout_s=150)
    yield load_settings(small_model_url=f"{url}/v1", small_model_name=NAME)
    process.stop()


@pytest.fixture
async def model(settings):
    async with open_small_model(settings) as model:
        yield model


async def ask(model, sampling, messages=QUESTION):
    return [event async for event in model.generate(messages, sampling)]


async def test_its_greedy_tokens_are_the_likeliest_and_make_up_the_text(model):
    prefilled, *tokens, end = await ask(model, GREEDY)
    assert prefilled == Prefilled(None, 0)
    assert isinstance(end, Finished)
    assert end.prompt_tokens > 10
    told = [logprob for token in tokens for logprob in token.logprobs]
    assert b"".join(token.raw for token in told).decode() == "".join(t.text for t in tokens)
    for token in told:
        assert token.top[0] == (token.raw, token.logprob)
        assert len(token.top) == 5


async def test_its_margins_are_those_of_its_two_likeliest_tokens(model):
    tokens = [event for event in await ask(model, GREEDY) if isinstance(event, Token)]
    for token in tokens:
        first, second = (math.exp(logprob) for _, logprob in token.logprobs[0].top[:2])
        assert token.margin == pytest.approx(first - second)
        assert token.entropy is None


async def test_its_log_probs_are_those_before_the_temperature(model):
    cold, hot = [
        (await ask(model, Sampling(1, temperature, seed=1, logprobs=True, top_logprobs=1)))[1]
        for temperature in (0, 1.9)
    ]
    ((cold_raw, cold_logprob),) = cold.logprobs[0].top
    ((hot_raw, hot_logprob),) = hot.logprobs[0].top
    assert cold_raw == hot_raw
    assert cold_logprob == pytest.approx(hot_logprob, abs=0.01)  # its prompt cache moves last bits


async def test_a_seed_is_followed(model):
    sampling = Sampling(4, temperature=1.5, seed=7)
    assert await ask(model, sampling) == await ask(model, sampling)


async def test_a_conversation_too_long_for_it_is_the_callers_fault(model):
    with pytest.raises(InvalidRequest):
        await ask(model, GREEDY, [Message("user", "word " * 6000)])


async def test_calibration_can_ask_it(model):
    questions = [Question(text=text) for text in ("Capital of Peru?", "Hi")]
    drafts = await draft_all(
        model, questions, hold_back_tokens=4, at_once=2, sampling=Sampling(4, temperature=0)
    )
    for draft in drafts:
        assert draft.signals.tokens == 4
        assert draft.signals.min_logprob < 0
        assert draft.signals.min_margin is not None
        assert draft.signals.mean_entropy is None


async def test_doctor_finds_it_telling_log_probs(settings):
    found = await _small_model(settings)
    assert (found.ok, identity_of(settings) in found.text) == (True, True)
    assert identity_of(settings).startswith(f"{NAME}@")

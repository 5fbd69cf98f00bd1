import sys
from functools import partial

import httpx
import pytest
from caller import Caller, Way, first_token_at
from eth_account import Account
from latency import Sample, markdown, overhead, payment_steps
from overhead import PAYING, STREAMED, WHOLE, tables

from tinybrain.devnet.processes import ChildProcess, answers, claim_port


def streamed(number, first_token, **steps):
    return Sample(number, total=first_token + 10, first_token=first_token, **steps)


@pytest.fixture
def mock_model(request, tmp_path):
    script = request.config.rootpath / "benchmarks" / "mock_model.py"
    port = claim_port(0, what="a test", option="")
    process = ChildProcess(
        "The mock model",
        [sys.executable, script, str(port)],
        log=tmp_path / "mock_model.log",
        ready=partial(answers, f"http://127.0.0.1:{port}/health"),
    )
    process.wait_until_ready(timeout_s=30)
    yield f"http://127.0.0.1:{port}"
    process.stop()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_caller_times_the_whole_answer_and_the_first_token_of_a_stream(mock_model, stream):
    caller = Caller(Way("direct", mock_model, stream))
    sample = await caller.ask(3)
    await caller.aclose()
    assert sample.round == 3
    assert (sample.first_token is not None) == stream
    assert 0 < sample.felt <= sample.total
    assert sample.challenge is sample.signing is sample.settled is None


async def test_a_refusal_is_no_sample(mock_model):
    caller = Caller(Way("direct", f"{mock_model}/elsewhere", stream=True))
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        await caller.ask(0)
    await caller.aclose()


def test_an_error_inside_a_stream_is_no_sample():
    lines = [(0.0, 'data: {"error": {"message": "the model failed"}}')]
    with pytest.raises(RuntimeError, match="the model failed"):
        first_token_at(lines, stream=True)


def test_overhead_is_the_median_of_what_each_round_added():
    direct = [streamed(0, 2), streamed(0, 4), streamed(1, 6), streamed(2, 10)]
    ours = [streamed(0, 13), streamed(1, 9), streamed(2, 30)]
    row = overhead(ours, direct)
    assert row["added"] == 10  # of 10, 3 and 20
    assert row["added, middle half"] == "6.5 to 15.0"
    assert row["times direct"] == 3.0  # of 13/3, 1.5 and 3
    assert row["first token P50"] == 13


def test_a_busy_round_slows_both_sides_and_adds_nothing():
    calm, busy = streamed(0, 5), streamed(1, 500)
    assert overhead([calm, busy], [calm, busy])["added"] == 0


def test_a_way_that_missed_a_round_cannot_be_compared():
    with pytest.raises(ValueError, match="longer"):
        overhead([streamed(0, 5)], [streamed(0, 5), streamed(1, 5)])


def test_a_whole_answer_is_felt_when_it_is_complete():
    row = overhead([Sample(0, total=50)], [Sample(0, total=20)])
    assert row["added"] == 30
    assert "first token P50" not in row


def test_a_paying_caller_waits_for_the_challenge_the_signature_and_the_answer():
    row = payment_steps([streamed(0, 40, challenge=5.0, signing=3.0, settled=90.0)])
    assert row["with the answer P50"] == 48
    assert row["settled after P95"] == 90


def test_tables_compare_streams_with_streams_and_whole_answers_with_whole_ones():
    payer = Account.create()
    samples = {
        Way("direct", "", stream=True): [streamed(0, 10)],
        Way("x402", "", stream=True, payer=payer): [streamed(0, 30)],
        Way("direct", "", stream=False): [Sample(0, total=100)],
        Way("x402", "", stream=False, payer=payer): [Sample(0, total=150)],
    }
    reported = tables(samples)
    assert [row["added"] for row in reported[STREAMED]] == [0, 20]
    assert [row["added"] for row in reported[WHOLE]] == [0, 50]
    assert [row["answer"] for row in reported[PAYING]] == ["streamed", "whole"]


def test_a_table_names_its_columns_once():
    assert markdown([{"way": "direct", "n": 1}, {"way": "x402", "n": 2}]) == (
        "| way | n |\n| --- | --- |\n| direct | 1 |\n| x402 | 2 |"
    )

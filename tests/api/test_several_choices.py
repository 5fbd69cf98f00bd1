"""Several choices of one answer: one payment of their price for all, and all of them or none."""

import threading

import httpx
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.api.callers import challenge
from tests.api.conftest import ScriptedModel
from tinybrain.errors import LocalModelError

pytestmark = pytest.mark.chain
TWO = {
    "messages": [{"role": "user", "content": "Hello, who are you?"}],
    "model": "tinychat",
    "max_tokens": 16,
    "n": 2,
}
VARIED = TWO | {
    "messages": [{"role": "user", "content": "Spell the word pistol"}],
    "temperature": 1.5,
    "seed": 4,
}
HARD = TWO | {"model": "tinybrain", "messages": [{"role": "user", "content": "think hard: why?"}]}
BROKEN = LocalModelError("It broke.")


class Uneven(ScriptedModel):
    """Plays another script for each choice."""

    def __init__(self, *scripts):
        super().__init__()
        self._players = [ScriptedModel(*script) for script in scripts]
        self._left = list(self._players)

    def generate(self, messages, sampling):
        return self._left.pop(0).generate(messages, sampling)

    @property
    def all_closed(self):
        return all(player.closed.is_set() for player in self._players)


@pytest.fixture
def ask(caller):
    """One answer, paid for what it costs; `service` may be any."""

    def send(service, body, **options):
        headers = options.pop("headers", None) or caller.headers(service, body=body)
        return caller.ask(service, body, headers=headers, **options)

    return send


@pytest.fixture
def stream(caller):
    def send(service, body, **options):
        headers = options.pop("headers", None) or caller.headers(service, body=body)
        return caller.stream(service, body, headers=headers, **options)

    return send


def said(answer):
    choices = answer.json()["choices"]
    assert [choice["index"] for choice in choices] == list(range(len(choices)))
    return [choice["message"]["content"] for choice in choices]


def joined(chunks, index):
    deltas = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
    return "".join(choice["delta"].get("content", "") for choice in deltas)


# --- what they are


def test_two_choices_are_answered_and_paid_for_together(service, caller, ask):
    answer = ask(service, VARIED | {"logprobs": True})
    whole = ChatCompletion.model_validate(answer.json(), strict=True)
    assert len(set(said(answer))) == 2
    for choice in whole.choices:
        assert "".join(t.token for t in choice.logprobs.content) == choice.message.content
    told = answer.json()["x_tinybrain"]
    tokens = [choice["completion_tokens"] for choice in told["choices"]]
    assert whole.usage.completion_tokens == sum(tokens)
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + sum(tokens)
    assert told["payment"]["amount"] == told["price_atomic"] == 20_000
    assert caller.balance() == 980_000


def test_a_choice_with_a_seed_is_what_its_seed_gives_alone(service, ask):
    alone = [said(ask(service, VARIED | {"n": 1, "seed": seed}))[0] for seed in (4, 5, 6)]
    assert said(ask(service, VARIED | {"n": 3})) == alone
    assert len(set(alone)) > 1


def test_at_temperature_zero_all_choices_are_the_same(service, ask):
    first, second = said(ask(service, VARIED | {"temperature": 0}))
    assert first == second


def test_the_other_formats_have_one_answer_for_one_price(service, caller):
    for path in ("/chat/completions", "/api/chat"):
        headers = caller.headers(service, path=path, body=TWO)
        assert caller.ask(service, TWO, path=path, headers=headers).status_code == 200
        answer = httpx.post(service.url + path, json=TWO)
        assert challenge(answer)["accepts"][0]["amount"] == "10000"


# --- what they cost


def test_the_terms_name_the_price_of_all_choices(service):
    answer = httpx.post(service.url + "/v1/chat/completions", json=TWO | {"n": 8})
    assert challenge(answer)["accepts"][0]["amount"] == "80000"
    assert "with 8 choices by tinychat costs $0.08" in answer.json()["error"]


@pytest.mark.parametrize(("paid", "asked"), [(1, 3), (3, 1)])
def test_a_payment_for_another_number_of_choices_is_refused(service, caller, ask, paid, asked):
    headers = caller.headers(service, body=TWO | {"n": paid})
    answer = ask(service, TWO | {"n": asked}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (402, "payment_invalid")
    assert f"not {asked}0000" in answer.json()["error"]["message"]
    assert service.rows("payments", f"payer = '{caller.address.lower()}'") == []


def test_a_tab_that_pays_for_two_more_does_not_pay_for_three(service, caller):
    tab = caller.open_tab(service, "0.10").json()
    headers = {"X-SESSION-TOKEN": tab["token"]}
    assert caller.ask(service, TWO | {"n": 8}, headers=headers).status_code == 200
    answer = caller.ask(service, TWO | {"n": 3}, headers=headers)
    assert answer.json()["error"]["code"] == "tab_exhausted"
    (row,) = service.rows("tabs", f"id = '{tab['id']}'")
    assert (row["spent"], row["held"], row["balance"]) == (80_000, 0, 20_000)


def test_every_bought_choice_is_a_purchase_and_all_are_told(service, caller, ask, devnet, usdc):
    before = usdc(devnet.wallets.provider.address)
    told = ask(service, HARD).json()["x_tinybrain"]
    assert (told["answered_by"], told["cost_atomic"]) == ("upstream", 2_000)
    assert (told["profit_atomic"], told["cost_transaction"]) == (18_000, None)
    kept = httpx.get(f"{service.url}/v1/receipts/{told['receipt']}").json()
    assert (kept["charged"], kept["cost"], kept["choices"]) == (20_000, 2_000, told["choices"])
    assert {purchase["transaction"] for purchase in kept["purchases"]} == {
        choice["cost_transaction"] for choice in told["choices"]
    }
    assert usdc(devnet.wallets.provider.address) == before + 2_000
    assert caller.balance() == 980_000


def test_what_is_bought_for_all_choices_leaves_the_margin_of_their_price(open_service, ask):
    with open_service(price="0.0012") as service:
        told = ask(service, HARD).json()["x_tinybrain"]
    assert sorted(choice["answered_by"] for choice in told["choices"]) == ["tinychat", "upstream"]
    assert (told["answered_by"], told["fallback"]) == ("mixed", True)
    assert (told["price_atomic"], told["cost_atomic"]) == (2_400, 1_000)


def test_a_choice_may_be_bought_where_another_is_not(open_service, ask):
    with open_service(Uneven(["Well."], [BROKEN])) as service:
        answer = ask(service, TWO | {"model": "tinybrain"}).json()
        told = answer["x_tinybrain"]
        assert service.run(service.gateway.receipts.statistics(since_ms=0))["answered_by"] == {
            "mixed": 1
        }
    assert (answer["model"], told["escalation_reason"]) == ("tinybrain", "failure")
    assert [choice["model"] for choice in told["choices"]] == ["tinychat", "blockrun"]


# --- in a stream


def test_chunks_come_as_the_choices_speak_and_end_with_one_done(open_service, caller, stream):
    usage = {"stream_options": {"include_usage": True}}
    with open_service(Uneven(["a ", "b ", "c "], ["x ", "y "])) as service:
        *chunks, done = stream(service, TWO | usage)
    assert done == "[DONE]"
    *told, last = [ChatCompletionChunk.model_validate(chunk) for chunk in chunks]
    assert len({(chunk.id, chunk.created) for chunk in told}) == 1
    words = [(c.index, c.delta.content) for chunk in told for c in chunk.choices if c.delta.content]
    assert words == [(0, "a "), (1, "x "), (0, "b "), (1, "y "), (0, "c ")]
    ended = [(c.index, c.finish_reason) for chunk in told for c in chunk.choices if c.finish_reason]
    assert ended == [(0, "stop"), (1, "stop")]
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (5, 5)
    assert caller.balance() == 980_000


def test_a_stream_asked_for_again_has_the_same_choices(service, caller, stream):
    headers = caller.headers(service, body=VARIED)
    first, again = [stream(service, VARIED, headers=headers) for _ in range(2)]
    for index in range(2):
        assert joined(first[:-1], index) == joined(again[:-1], index) != ""
    assert again[-2]["x_tinybrain"] == first[-2]["x_tinybrain"]
    service.settled(first[-2]["x_tinybrain"]["receipt"])
    assert caller.balance() == 980_000


def test_who_leaves_after_the_first_word_finds_all_choices_finished(open_service, caller, stream):
    go_on = threading.Event()
    with open_service(Uneven(["a ", go_on, "b"], ["x ", go_on, "y"])) as service:
        headers = caller.headers(service, body=TWO)
        url, asked = f"{service.url}/v1/chat/completions", TWO | {"stream": True}
        with httpx.stream("POST", url, json=asked, headers=headers, timeout=30) as response:
            next(line for line in response.iter_lines() if '"a "' in line)
        go_on.set()
        service.wait_until(lambda: service.outcome() == ("completed", "settled"))
        again = stream(service, TWO, headers=headers)
        assert [joined(again[:-1], index) for index in range(2)] == ["a b", "x y"]
    assert caller.balance() == 980_000


# --- all or none


def test_if_one_choice_fails_none_is_charged_and_the_other_is_given_up(open_service, caller, ask):
    model = Uneven(["Well.", threading.Event()], ["I ", BROKEN])
    with open_service(model) as service:
        answer = ask(service, TWO)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "local_model_failed")
        assert "Well" not in answer.text
        assert service.outcome() == ("failed", "released")
        assert model.all_closed
    assert caller.balance() == 1_000_000


def test_a_stream_in_which_one_choice_fails_ends_with_an_error(open_service, caller, stream):
    with open_service(Uneven(["Well."], ["I ", BROKEN])) as service:
        *chunks, error = stream(service, TWO)
        assert joined(chunks, 0) == "Well."
        assert not [c for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
        assert error["error"]["code"] == "local_model_failed"
        assert service.outcome() == ("failed", "released")
    assert caller.balance() == 1_000_000


def test_if_one_choice_stalls_all_are_given_up(open_service, caller, ask):
    model = Uneven(["Well."], ["I ", threading.Event()])
    with open_service(model, answer_timeout_s=1) as service:
        answer = ask(service, TWO)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "timeout")
        assert service.outcome() == ("failed", "released")
        assert model.all_closed
    assert caller.balance() == 1_000_000

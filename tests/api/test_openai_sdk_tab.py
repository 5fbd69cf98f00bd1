"""The unmodified OpenAI SDK, with a tab's token as its API key."""

import httpx
import openai
import pytest

pytestmark = pytest.mark.chain
HELLO = {
    "model": "tinybrain",
    "messages": [{"role": "user", "content": "Hello, who are you?"}],
    "max_tokens": 16,
}


class LosesAnswers(httpx.BaseTransport):
    """A network that drops the first answers, after the server has sent them whole."""

    def __init__(self, lost):
        self._lost = lost
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request):
        response = self._inner.handle_request(request)
        if self._lost:
            self._lost -= 1
            response.read()
            response.close()
            raise httpx.ReadError("the answer was lost", request=request)
        return response

    def close(self):
        self._inner.close()


@pytest.fixture
def sdk(service):
    """Makes clients; all are closed."""
    clients = []

    def build(token, **options):
        clients.append(openai.OpenAI(base_url=f"{service.url}/v1", api_key=token, **options))
        return clients[-1].chat.completions

    yield build
    for client in clients:
        client.close()


@pytest.fixture
def tab(service, caller):
    return caller.open_tab(service, "0.10").json()


def at_tab(service, method, tab):
    headers = {"Authorization": f"Bearer {tab['token']}"}
    url = f"{service.url}/v1/tabs/{tab['id']}"
    return httpx.request(method, url, headers=headers, timeout=30).json()


def test_it_asks_whole_and_streaming_and_gets_the_rest_back(service, caller, sdk, tab):
    whole = sdk(tab["token"]).create(**HELLO)
    assert "TinyChat" in whole.choices[0].message.content
    chunks = list(sdk(tab["token"]).create(**HELLO, stream=True))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == whole.choices[0].message.content
    assert at_tab(service, "GET", tab)["spent"] == "0.02"
    assert at_tab(service, "DELETE", tab)["refunded"] == "0.08"
    assert caller.balance() == 980_000


def test_it_reads_several_choices_whole_and_from_interleaved_chunks(service, sdk, tab):
    asked = HELLO | {"model": "tinychat", "n": 3, "seed": 1, "temperature": 1}
    whole = sdk(tab["token"]).create(**asked)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    chunks = list(sdk(tab["token"]).create(**asked, stream=True))
    pieces = [choice for chunk in chunks for choice in chunk.choices]
    spoken = [piece.index for piece in pieces if piece.delta.content]
    assert spoken != sorted(spoken)
    for choice in whole.choices:
        own = [piece for piece in pieces if piece.index == choice.index]
        assert "".join(piece.delta.content or "" for piece in own) == choice.message.content
        assert [piece.finish_reason for piece in own][-1] == choice.finish_reason
        assert len([piece for piece in own if piece.finish_reason]) == 1
    assert at_tab(service, "GET", tab)["spent"] == "0.06"


def test_a_wrong_or_closed_tab_is_an_authentication_error(service, sdk, tab):
    with pytest.raises(openai.AuthenticationError, match="no such tab"):
        sdk("tab_guess").create(**HELLO)
    at_tab(service, "DELETE", tab)
    with pytest.raises(openai.AuthenticationError, match="closed"):
        sdk(tab["token"]).create(**HELLO)


def test_an_exhausted_tab_says_what_is_left_and_what_an_answer_costs(service, sdk, tab):
    for _ in range(10):
        sdk(tab["token"]).create(**HELLO | {"max_tokens": 1})
    with pytest.raises(openai.APIStatusError, match=r"\$0.00 left.*costs \$0.01") as caught:
        sdk(tab["token"]).create(**HELLO)
    assert caught.value.status_code == 402


def test_an_answer_lost_on_the_way_is_sent_again_under_its_key_and_charged_once(service, sdk, tab):
    completions = sdk(tab["token"], http_client=httpx.Client(transport=LosesAnswers(2)))
    answer = completions.create(**HELLO, extra_headers={"Idempotency-Key": "my question"})
    assert "TinyChat" in answer.choices[0].message.content
    assert at_tab(service, "GET", tab)["spent"] == "0.01"


@pytest.mark.parametrize("stream", [False, True])
def test_an_automatic_retry_is_charged_once(service, sdk, tab, stream):
    completions = sdk(tab["token"], http_client=httpx.Client(transport=LosesAnswers(1)))
    answer = completions.create(**HELLO, stream=stream)
    if stream:
        list(answer)
    assert at_tab(service, "GET", tab)["spent"] == "0.01"


def test_the_same_question_asked_twice_on_purpose_is_charged_twice(service, sdk, tab):
    for _ in range(2):
        sdk(tab["token"]).create(**HELLO)
    assert at_tab(service, "GET", tab)["spent"] == "0.02"

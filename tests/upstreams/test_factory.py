"""Settings choose the upstream, and BlockRun's ways are configured, not coded."""

import httpx
import pytest
from starlette.responses import JSONResponse

from tinybrain.chat import Message, Sampling
from tinybrain.config import load_settings
from tinybrain.errors import ConfigError, UpstreamError
from tinybrain.upstreams import build_upstream
from tinybrain.upstreams.factory import build_small_model, small_model_identity


@pytest.fixture
async def sent(provider):
    """Build the upstream of some settings, ask it once, and give it with what arrived."""

    async def reply(request):
        return JSONResponse({"error": "not paid"}, status_code=402)

    provider.reply = reply
    async with httpx.AsyncClient() as client:

        async def sent(**settings):
            upstream = build_upstream(load_settings(upstream_url=provider.url, **settings), client)
            with pytest.raises(UpstreamError, match="402"):
                async for _ in upstream.generate(
                    [Message("user", "Hi")], Sampling(max_tokens=4096), answer_id="a1"
                ):
                    pass
            return upstream, *provider.requests[0][:2]

        yield sent


async def test_without_an_api_key_the_upstream_is_blockrun(sent):
    upstream, body, headers = await sent()
    assert (upstream.name, upstream.model) == ("blockrun", "deepseek/deepseek-reasoner")
    assert body["temperature"] == 0.8
    assert body["max_tokens"] == 1024
    assert "under 2000 characters" in body["messages"][0]["content"]
    assert "stream_options" not in body
    assert "authorization" not in headers


async def test_with_an_api_key_the_upstream_is_whoever_serves_the_url(sent):
    upstream, body, headers = await sent(upstream_api_key="sk-1", upstream_model="big")
    assert (upstream.name, upstream.model) == ("127.0.0.1", "big")
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert headers["authorization"] == "Bearer sk-1"


def small(url="https://api.example:8443/v1", name="org/small-1.5b"):
    return load_settings(small_model_url=url, small_model_name=name)


async def test_a_small_model_behind_an_api_is_told_callers_by_its_name(client):
    assert build_small_model(small(), client).name == "org/small-1.5b"


@pytest.mark.parametrize("make", [lambda s: build_small_model(s, None), small_model_identity])
def test_where_no_small_model_is_set_it_says_what_to_set(make):
    with pytest.raises(ConfigError, match="TINYBRAIN_SMALL_MODEL_NAME"):
        make(load_settings())


@pytest.mark.parametrize(
    ("url", "name", "identity"),
    [
        ("http://intern:8080/v1", "org/small-1.5b", "org/small-1.5b@f822946bc19c"),
        ("http://[::1]:80/v1", "a model+", "a_model_@6fd7e97a0c8e"),
        ("http://h", "x" * 300, "x" * 187 + "@4f8d848825a1"),
    ],
)
def test_its_identity_is_its_name_and_a_hash_in_what_a_router_can_hold(url, name, identity):
    assert small_model_identity(small(url, name)) == identity


def test_its_identity_differs_with_port_scheme_and_path_but_not_with_the_password():
    told = small_model_identity(small("https://h:1/v1"))
    urls = ["https://h:2/v1", "http://h:1/v1", "https://h:1/v2"]
    assert told not in [small_model_identity(small(url)) for url in urls]
    assert told == small_model_identity(small("https://user:pw@h:1/v1/"))

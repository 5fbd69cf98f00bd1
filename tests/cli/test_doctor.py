"""`tinybrain doctor`: names what is missing, shows no secrets, leaves nothing behind."""

import json

import pytest
import yaml
from eth_account import Account
from providers import answering, serving
from starlette.responses import JSONResponse
from typer.testing import CliRunner

from tinybrain.cli import app
from tinybrain.cli.doctor import (
    _facilitator,
    _gas,
    _kernels,
    _ledger,
    _router,
    _settings,
    _small_model,
    _tabs,
    _upstream,
)
from tinybrain.config import load_settings
from tinybrain.devnet.token import give_ether
from tinybrain.engine import native
from tinybrain.errors import ConfigError, LocalModelError
from tinybrain.payments.database import Database
from tinybrain.routing.calibration.assembly import checkpoint_of, open_router

WALLET = Account.create()
OWN = {
    "pay_to": WALLET.address,
    "treasury_private_key": WALLET.key.to_0x_hex(),
    "network": "eip155:84532",
    "facilitator": "own",
    "gas_private_key": WALLET.key.to_0x_hex(),
}
DEAD = "http://user:hunter2@127.0.0.1:9/secret-path"


async def test_a_missing_ledger_is_announced_and_not_created(tmp_path):
    found = await _ledger(load_settings(home=tmp_path))
    assert (found.ok, "will be created" in found.text) == (None, True)
    assert list(tmp_path.iterdir()) == []


async def test_missing_kernels_are_a_warning_with_the_next_step(monkeypatch):
    monkeypatch.setattr(native, "library", lambda: None)
    monkeypatch.setattr(native, "_compiled", lambda: None)
    slow = await _kernels(load_settings())
    assert (slow.ok, "C compiler" in slow.text) == (None, True)
    monkeypatch.setattr(native, "library", object)
    assert (await _kernels(load_settings())).ok


async def test_the_router_is_told_in_words_with_what_to_expect_of_it():
    found = await _router(load_settings(max_local_error=0.1))
    checkpoint = checkpoint_of(load_settings()).digest()
    assert found.ok
    for told in (f"for checkpoint {checkpoint}", "P(wrong)", "at most 10.0%", "escalated"):
        assert told in found.text


async def test_a_router_of_another_checkpoint_is_a_fault(tmp_path):
    shipped = open_router(load_settings())
    shipped.model_copy(update={"checkpoint": "0" * 16, "report": None}).write(
        tmp_path / "router.json"
    )
    with pytest.raises(ConfigError, match=f"not of {checkpoint_of(load_settings()).digest()}"):
        await _router(load_settings(router=tmp_path / "router.json"))


async def test_a_checkpoint_without_a_router_is_a_warning_with_the_next_step(bare_checkpoint):
    found = await _router(load_settings(checkpoint=bare_checkpoint))
    assert (found.ok, "0.88" in found.text, "Calibrate it" in found.text) == (None, True, True)


@pytest.fixture
def small_model():
    """Settings of a small model whose API tells these log-probabilities of a token's choices."""

    def build(provider, *choices):
        told = [{"token": "Rome", "logprob": value} for value in choices]
        tokens = [told[0] | {"top_logprobs": told}] if told else None
        choice = {"message": {"content": "Rome"}, "logprobs": {"content": tokens}}
        body = {"choices": [choice | {"finish_reason": "stop"}]}
        provider.reply = answering(JSONResponse(body))
        return load_settings(small_model_url=provider.url, small_model_name="small")

    with serving() as provider:
        yield lambda *choices: build(provider, *choices)


@pytest.mark.parametrize(
    ("choices", "ok", "told"),
    [
        ((-0.5, -2.0), True, "with log-probabilities"),
        ((-0.5,), None, "margins"),
        ((0.0, -9999.0), False, "before it"),
    ],
)
async def test_a_small_model_behind_an_api_is_asked_what_it_tells(small_model, choices, ok, told):
    found = await _small_model(small_model(*choices))
    assert (found.ok, told in found.text) == (ok, True)
    assert "small@" in found.text


async def test_a_small_model_without_log_probs_is_a_fault_with_the_next_step(small_model):
    with pytest.raises(LocalModelError, match="switch these on"):
        await _small_model(small_model())


@pytest.mark.parametrize("online", [False, True])
def test_a_small_model_behind_an_api_is_not_asked_unless_online(tmp_path, monkeypatch, online):
    monkeypatch.setenv("SMALL_MODEL_URL", DEAD)
    monkeypatch.setenv("SMALL_MODEL_NAME", "small")
    monkeypatch.setenv("TINYBRAIN_RPC_URL", DEAD)
    monkeypatch.setenv("TINYBRAIN_UPSTREAM_URL", DEAD)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["doctor", "--json", *["--online"] * online])
    told = {finding["group"]: finding for finding in json.loads(result.stdout)}
    assert "small@" in told["Model"]["text"]
    assert told["Router"]["ok"] is None
    assert "Kernels" not in told
    assert ("Small model" in told) == online
    if online:
        assert (told["Small model"]["ok"], "ConnectError" in result.stdout) == (False, True)
        assert "secret-path" not in result.stdout


async def test_a_ledger_is_named_without_its_password(tmp_path, monkeypatch):
    async def opened(url):
        return await Database.open(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}")

    monkeypatch.setattr("tinybrain.cli.doctor.open_existing", opened)  # there is no server here
    url = "postgresql://tiny:hunter2@db.example/ledger?password=hunter2"
    found = await _ledger(load_settings(ledger_url=url))
    assert (found.ok, found.text) == (True, "postgresql://tiny:***@db.example/ledger")


@pytest.mark.parametrize("check", [_facilitator, _upstream])
async def test_of_a_url_its_host_alone_is_shown(check):
    found = await check(load_settings(**OWN | {"facilitator": DEAD, "upstream_url": DEAD}))
    assert (found.ok, "127.0.0.1:9 " in found.text) == (False, True)
    assert "hunter2" not in found.text
    assert "secret-path" not in found.text


@pytest.mark.chain
async def test_gas_is_counted_in_settlements_and_little_of_it_is_a_warning(chain):
    async def look(**changes):
        return await _gas(load_settings(**OWN | {"rpc_url": chain.url} | changes))

    none = await look()
    give_ether(chain.web3, WALLET.address)
    enough, little = await look(), await look(low_gas_settlements=1_000_000)
    assert (none.ok, enough.ok, little.ok) == (False, True, None)
    assert "settlements" in little.text


@pytest.mark.parametrize(
    ("changes", "ok"), [({}, True), ({"refunds": False}, None), ({"pay_to": "0x" + "1" * 40}, None)]
)
async def test_tabs_are_sold_where_they_can_be_refunded(changes, ok):
    assert (await _tabs(load_settings(**OWN | changes))).ok is ok


def test_what_the_service_refuses_at_its_start_is_a_fault():
    (fine,) = _settings(load_settings(**OWN | {"flow": "upfront"}))
    (fault,) = _settings(load_settings(**OWN | {"flow": "upfront", "refunds": False}))
    assert (fine.ok, fault.ok) == (True, False)
    assert "TINYBRAIN_REFUNDS" in fault.text


def test_where_there_is_only_a_devnet_it_says_so(tmp_path):
    config = {"applications": [{"args": OWN | {"home": str(tmp_path)}}]}
    (tmp_path / "devnet").mkdir()
    (tmp_path / "devnet" / "serve_config.yaml").write_text(yaml.safe_dump(config))
    result = CliRunner().invoke(app, ["doctor", "--json", "--home", str(tmp_path)])
    told = {finding["group"]: finding for finding in json.loads(result.stdout)}
    assert result.exit_code == 0, result.output
    assert told["Settings"]["ok"] is None
    assert f"the devnet in {tmp_path}" in told["Settings"]["text"]
    assert told["Tabs"]["ok"] is True
    assert WALLET.key.to_0x_hex() not in result.output

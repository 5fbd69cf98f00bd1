"""`tinybrain doctor`: names what is missing, shows no secrets, leaves nothing behind."""

import json
import shutil

import pytest
import yaml
from eth_account import Account
from typer.testing import CliRunner

from tinybrain.cli import app
from tinybrain.cli.doctor import (
    _facilitator,
    _gas,
    _kernels,
    _ledger,
    _router,
    _settings,
    _tabs,
    _upstream,
)
from tinybrain.config import load_settings
from tinybrain.devnet.token import give_ether
from tinybrain.engine import native
from tinybrain.errors import ConfigError
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
    assert found.ok
    for told in ("for checkpoint 8acf6c0b71b72cf2", "P(wrong)", "at most 10.0%", "escalated"):
        assert told in found.text


async def test_a_router_of_another_checkpoint_is_a_fault(tmp_path):
    shipped = open_router(load_settings())
    shipped.model_copy(update={"checkpoint": "0" * 16}).write(tmp_path / "router.json")
    with pytest.raises(ConfigError, match="not of 8acf6c0b71b72cf2"):
        await _router(load_settings(router=tmp_path / "router.json"))


async def test_a_checkpoint_without_a_router_is_a_warning_with_the_next_step(tmp_path):
    files = checkpoint_of(load_settings())
    for path in (files.weights, files.config, files.tokenizer):
        shutil.copy(path, tmp_path)
    found = await _router(load_settings(checkpoint=tmp_path))
    assert (found.ok, "0.88" in found.text, "Calibrate it" in found.text) == (None, True, True)


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

"""Which service a command asks about: one's own, else the devnet's."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from tinybrain.cli import app
from tinybrain.cli.service import service_settings
from tinybrain.devnet.wallets import DevnetWallets
from tinybrain.errors import ConfigError

OWN = "0x" + "a" * 40
DEVNETS = "0x" + "d" * 40


@pytest.fixture
def home(tmp_path):
    """A folder in which a devnet was started once."""
    arguments = {
        "home": str(tmp_path),
        "pay_to": DEVNETS,
        "network": "eip155:84532",
        "rpc_url": "http://127.0.0.1:9545",
        "facilitator": "own",
    }
    config = {"applications": [{"name": "tinybrain", "args": arguments}]}
    (tmp_path / "devnet").mkdir()
    (tmp_path / "devnet" / "serve_config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


@pytest.fixture
def run(home):
    """Runs a command beside the devnet."""

    def invoke(*arguments, **environment):
        return CliRunner().invoke(app, [*arguments, "--home", str(home)], env=environment)

    return invoke


def test_without_settings_of_ones_own_the_devnets_are_taken(home):
    settings = service_settings(home)
    assert (settings.pay_to, settings.rpc) == (DEVNETS, "http://127.0.0.1:9545")


@pytest.mark.parametrize(
    ("name", "value"), [("TREASURY_ADDRESS", OWN), ("DATABASE_URL", "postgresql://host/ledger")]
)
def test_settings_of_ones_own_win(home, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    settings = service_settings(home)
    assert value in (settings.pay_to, settings.ledger_url)
    assert settings.rpc != "http://127.0.0.1:9545"


def test_a_home_that_is_named_wins_over_the_environments(home, monkeypatch, tmp_path):
    monkeypatch.setenv("TINYBRAIN_HOME", str(tmp_path / "other"))
    assert service_settings().pay_to is None
    assert service_settings(home).pay_to == DEVNETS


def test_without_a_devnet_the_settings_stay_as_they_are(tmp_path):
    assert service_settings(tmp_path).pay_to is None


def test_a_setting_that_cannot_be_read_is_said(home, monkeypatch):
    monkeypatch.setenv("TINYBRAIN_PRICE", "cheap")
    with pytest.raises(ConfigError, match="cheap"):
        service_settings(home)


def test_ledger_and_audit_look_where_they_are_told(run, home):
    for command in (("ledger", "balances"), ("ledger", "list", "payments"), ("audit",)):
        assert f"There is no ledger at {home}" in run(*command).stderr


@pytest.mark.chain
def test_the_wallets_are_looked_up_on_the_devnets_own_chain(run, home, chain):
    config = home / "devnet" / "serve_config.yaml"
    config.write_text(config.read_text().replace("http://127.0.0.1:9545", chain.url))
    wallets = DevnetWallets.load_or_create(home / "devnet" / "wallets.json")
    rows = json.loads(run("wallet", "--json", TREASURY_ADDRESS=OWN).stdout)
    assert rows[0]["address"] == wallets.caller.address
    assert {row["usdc"] for row in rows} == {0}

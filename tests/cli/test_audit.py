"""`tinybrain audit` on a real ledger and a real chain."""

import asyncio
import json

import pytest
from typer.testing import CliRunner

from tests.payments.audit.business import USDC, Business
from tinybrain.cli import app
from tinybrain.payments.chain import Chain
from tinybrain.payments.database import Database
from tinybrain.payments.rpc import Rpc

pytestmark = pytest.mark.chain


@pytest.fixture
def business(chain, tmp_path):
    """A business that sold one answer; `url` is its ledger's."""

    async def live():
        database, rpc = await Database.open(url), Rpc(chain.url)
        business = Business(database, chain, Chain(rpc, USDC.address))
        await business.open()
        await business.sale()
        await rpc.aclose()
        await database.close()
        return business

    url = f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}"
    business = asyncio.run(live())
    business.url = url
    return business


@pytest.fixture
def run(business, chain):
    def invoke(*arguments, rpc_url=chain.url):
        environment = {
            "TINYBRAIN_LEDGER_URL": business.url,
            "TINYBRAIN_NETWORK": "eip155:84532",
            "TINYBRAIN_RPC_URL": rpc_url,
            "TINYBRAIN_PAY_TO": business.treasury.address,
            "TINYBRAIN_TREASURY_PRIVATE_KEY": business.treasury.key.hex(),
        }
        return CliRunner().invoke(app, ["audit", *arguments], env=environment)

    return invoke


def test_a_clean_audit_exits_with_0(run, business):
    result = run()
    assert result.exit_code == 0, result.output
    assert "Ledger and chain agree." in result.stdout
    assert "$5.01" in result.stdout


def test_a_difference_exits_with_1_until_the_owner_notes_it(run, business):
    transaction = business.withdraw()
    result = run()
    assert result.exit_code == 1
    assert f"--adopt {transaction}" in result.stdout
    noted = run("--adopt", transaction)
    assert (noted.exit_code, "$0.25" in noted.stdout) == (0, True)
    assert run().exit_code == 0


def test_machines_get_one_json_document(run, business):
    transaction = business.withdraw()
    report = json.loads(run("--json").stdout)
    assert report["clean"] is False
    assert {found["subject"] for found in report["differences"]} == {
        f"transaction {transaction}",
        f"wallet {business.address}",
    }
    assert report["wallets"][0]["on_chain"] == 4_760_000


def test_what_could_not_be_compared_exits_with_2(run, business):
    result = run(rpc_url="http://127.0.0.1:9")
    assert result.exit_code == 2
    assert "TINYBRAIN_RPC_URL" in result.stderr


def test_a_transaction_that_is_none_is_not_noted(run, business):
    result = run("--adopt", "0x12")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no transaction" in result.stderr

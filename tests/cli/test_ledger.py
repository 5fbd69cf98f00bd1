"""`tinybrain ledger` on a real ledger."""

import asyncio
import csv
import io
import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tinybrain.cli import app
from tinybrain.cli.ledger import cell
from tinybrain.payments.database import Database
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.records import AnswerRecord, Charge, NewAnswer, NewPayment

ANSWER = f"ans_{1:032x}"
PAYER = "0x" + "b" * 40
HEADER = "id,claimed_ms,updated_ms,purpose,flow,state,amount"
DANGEROUS = "=HYPERLINK(1)\x1b[2J[red]"


async def _fill(url):
    database = await Database.open(url)
    ledger = Ledger(database)
    payment = NewPayment(
        network="eip155:84532",
        asset="0x" + "a" * 40,
        payer=PAYER,
        nonce="0x" + "1" * 64,
        pay_to="0x" + "c" * 40,
        amount=10_000,
        valid_before=2_000_000_000,
        request_hash="0" * 64,
        payload={"signature": "0xsecret"},
        requirements={},
    )
    await ledger.begin(NewAnswer(ANSWER, "x402", "auto", 10_000), payment)
    await ledger.finish(ANSWER, AnswerRecord("completed"), charge=Charge.YES)
    await ledger.take([1])
    await ledger.uncollectable(1, DANGEROUS)
    await database.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}"
    asyncio.run(_fill(url))
    return url


@pytest.fixture
def run(url):
    def invoke(*arguments, ledger_url=url):
        environment = {"TINYBRAIN_LEDGER_URL": ledger_url}
        return CliRunner().invoke(app, ["ledger", *arguments], env=environment)

    return invoke


def test_a_list_is_in_dollars_for_people(run):
    result = run("list", "payments", "--state", "debt", "--payer", PAYER.upper().replace("X", "x"))
    assert result.exit_code == 0
    assert "$0.01" in result.stdout
    assert "0xbbbb…bbbb" in result.stdout


def test_a_list_as_json_has_atomic_integers(run):
    (row,) = json.loads(run("list", "payments", "--json").stdout)
    assert (row["amount"], row["state"], row["payer"]) == (10_000, "debt", PAYER)
    assert "secret" not in str(row)


@pytest.mark.parametrize(
    ("option", "value", "count"),
    [
        ("--since", "2026-01-01", 1),
        ("--since", "2100-01-01T00:00:00+01:00", 0),
        ("--until", "2026-01-01", 0),
        ("--answer", ANSWER, 1),
    ],
)
def test_a_list_is_filtered(run, option, value, count):
    assert len(json.loads(run("list", "payments", option, value, "--json").stdout)) == count


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("list", "money"), "payments, refunds"),
        (("list", "payments", "--state", "setled"), "settled"),
        (("list", "payments", "--payer", "bob"), "no address"),
        (("list", "payments", "--since", "yesterday"), "no time"),
        (("export", "payments", "--csv", "/nowhere/x.csv"), "cannot be written"),
        (("show", "ans_x"), "no answer"),
    ],
)
def test_what_cannot_be_understood_is_said_in_one_line(run, arguments, told):
    result = run(*arguments)
    assert result.exit_code == 1
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_csv_has_atomic_integers_and_no_formulas(run, tmp_path):
    target = tmp_path / "payments.csv"
    assert run("export", "payments", "--csv", str(target)).exit_code == 0
    with target.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["amount"], row["payer"]) == ("10000", PAYER)
    assert row["note"] == f"'{DANGEROUS}"
    assert "secret" not in target.read_text()


def test_a_csv_of_nothing_has_its_header(run):
    rows = list(csv.reader(io.StringIO(run("export", "refunds").stdout)))
    assert len(rows) == 1
    assert ",".join(rows[0]).startswith(HEADER)


def test_the_balances_are_even(run):
    accounts = json.loads(run("balances", "--json").stdout)
    assert [(account["account"], account["balance"]) for account in accounts] == [
        (f"payer:{PAYER}", 10_000),
        ("revenue", -10_000),
    ]
    last = run("balances").stdout.splitlines()[-1]
    assert last.split() == ["all", "accounts", "$0.01", "$0.01", "$0.00"]


def test_an_answer_is_shown_with_its_payment_and_its_entries(run):
    shown = run("show", ANSWER).stdout
    assert "payment state" in shown
    assert "debt" in shown
    assert PAYER in shown
    told = json.loads(run("show", ANSWER, "--json").stdout)
    assert (told["charged"], [entry["kind"] for entry in told["entries"]]) == (10_000, ["sale"])


def test_nothing_that_others_wrote_is_obeyed_by_the_terminal():
    shown = cell("note", DANGEROUS)
    assert "\x1b" not in shown.plain
    assert "[red]" in shown.plain
    assert shown.spans == []


def test_a_missing_ledger_is_not_created(run, tmp_path):
    path = tmp_path / "none.db"
    result = run("balances", ledger_url=f"sqlite+aiosqlite:///{path}")
    assert (result.exit_code, path.exists()) == (1, False)
    assert "There is no ledger" in result.stderr


def test_it_runs_as_a_command(url, tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "tinybrain", "ledger", "export", "answers"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "TINYBRAIN_LEDGER_URL": url},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ANSWER in result.stdout

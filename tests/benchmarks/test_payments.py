import json

import admitting
import pytest
import soaking
from latency import markdown
from payments import ADMITTING, SETTLING, SOAK, STEPS, Size, measure
from soaking import Sample

pytestmark = pytest.mark.chain
SMALL = Size(admitting=1, settling=1, payments=10, soak=16)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A run as small as it can be, of everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admitting, "WARM_UP", 1)
        patch.setattr(admitting, "REPEATS", 1)
        return measure(tmp_path_factory.mktemp("payments"), SMALL)


def test_every_table_can_be_printed_and_written(tables):
    assert list(tables) == [ADMITTING, STEPS, SETTLING, SOAK]
    for rows in tables.values():
        assert {tuple(row) for row in rows} == {tuple(rows[0])}
        assert markdown(rows)
    assert json.loads(json.dumps(tables)) == tables


def test_own_verification_and_the_sdks_are_compared_on_the_same_ledger(tables):
    on_sqlite = [row for row in tables[ADMITTING] if row["ledger"] == "SQLite"]
    assert [row["verified by"] for row in on_sqlite] == ["own", "x402 SDK"]


def test_batches_are_full_and_cost_less_gas(tables):
    one_payer, many_payers, alone, _ = tables[SETTLING]
    assert [row["a transaction"] for row in tables[SETTLING]] == [10, 10, 1, 1]
    assert one_payer["gas a payment"] <= 50_000
    assert many_payers["gas a payment"] < alone["gas a payment"]
    assert alone["gas a payment"] == pytest.approx(85_740, rel=0.01)


def test_a_soak_accounts_for_every_answer(tables):
    (row,) = tables[SOAK]
    assert (row["answers"], row["x402"], row["tab"], row["audit"]) == (16, 8, 8, "clean")


def test_memory_that_grows_with_the_answers_is_told_from_memory_that_does_not():
    flat = [Sample(answered, 100.0) for answered in range(0, 1001, 100)]
    grown = [Sample(answered, 100 + answered / 500) for answered in range(0, 1001, 100)]
    assert soaking.memory(flat, 1000)["more for 1,000"] == 0
    assert soaking.memory(grown, 1000) == {
        "MiB at the start": 100.0,
        "after half": 101.0,
        "at the end": 102.0,
        "more for 1,000": 2.0,
    }

"""However many ask at once, no more is spent than the caps and the margin leave."""

import asyncio

import pytest

from tests.payments.agent.buying import REFUSAL, ask
from tinybrain.devnet.upstream import PRICE
from tinybrain.errors import BudgetExceeded
from tinybrain.payments.database import Database

pytestmark = pytest.mark.chain


async def test_a_quote_above_the_cap_of_a_call_is_refused(open_agent, bought, spent):
    async with open_agent(max_cost_per_call="0.000999") as agent:
        with pytest.raises(BudgetExceeded, match="MAX_COST_PER_CALL"):
            await ask(agent)
    assert (await bought(), spent()) == ([], 0)


async def test_the_cap_of_the_day_holds_however_many_ask_at_once(open_agent, bought, spent):
    async with open_agent(max_cost_per_day="0.002") as agent:
        answers = await asyncio.gather(*(ask(agent) for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(answer, BudgetExceeded) for answer in answers) == 4
    assert [purchase.state for purchase in await bought()] == ["paid", "paid"]
    assert spent() == 2 * PRICE


async def test_what_is_reserved_counts_against_the_cap_of_the_day(open_agent, bought, proxy):
    proxy.faults = [REFUSAL]
    async with open_agent(upstream_url=proxy.url, max_cost_per_day="0.001") as agent:
        await ask(agent)
        with pytest.raises(BudgetExceeded):
            await ask(agent)


@pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("cap", ["max_cost_per_hour", "max_cost_per_day", "max_cost_per_provider"])
async def test_ten_replicas_asking_at_once_do_not_overspend_by_one_unit(
    open_agent, bought, spent, database_url, cap
):
    databases = await asyncio.gather(*(Database.open(database_url) for _ in range(10)))
    agents = [open_agent(database, **{cap: "0.003999"}) for database in databases]
    answers = await asyncio.gather(*map(ask, agents), return_exceptions=True)
    for opened in (*agents, *databases):
        await (opened.aclose() if opened in agents else opened.close())
    refused = [answer for answer in answers if isinstance(answer, BudgetExceeded)]
    assert len(refused) == 7
    assert all(cap.upper() in error.message for error in refused)
    assert [purchase.state for purchase in await bought()] == ["paid"] * 3
    assert spent() == 3 * PRICE


async def test_a_quote_that_leaves_no_margin_is_refused(
    open_agent, ledger, new_answer, bought, spent
):
    await ledger.begin(new_answer(1))
    async with open_agent(min_margin="0.009001") as agent:
        with pytest.raises(BudgetExceeded, match="MIN_MARGIN"):
            await ask(agent, new_answer(1).id)
    async with open_agent(min_margin="0.009") as agent:
        assert (await ask(agent, new_answer(1).id)).status_code == 200
    assert (len(await bought()), spent()) == (1, PRICE)

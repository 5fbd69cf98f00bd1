"""`tinybrain doctor`: could the service start with these settings? Pays, signs, creates nothing.

Without --online nothing outside this machine is asked. URLs are shown without what may be secret.
"""

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
from rich.console import Console
from sqlalchemy import make_url

from tinybrain.api.assembly import require_sellable
from tinybrain.chat import Message, Sampling, Token
from tinybrain.cli.service import find_settings, open_chain, open_rpc
from tinybrain.config import Settings
from tinybrain.errors import ConfigError, TinyBrainError
from tinybrain.payments.books import open_existing
from tinybrain.payments.payer import address_of
from tinybrain.payments.refunding import can_refund
from tinybrain.payments.wallet import SETTLEMENT_GAS
from tinybrain.routing.calibration.assembly import (
    identity_of,
    open_gate,
    open_router,
    target_of,
)
from tinybrain.routing.calibration.gates import expected
from tinybrain.routing.small_model import open_small_model
from tinybrain.usdc import format_usdc

SQLITE = "sqlite+aiosqlite:///"
TIMEOUT_S = 10


class Finding(NamedTuple):
    """One line of the report. `ok` None is a warning."""

    group: str
    ok: bool | None
    text: str


Check = Callable[[Settings], Awaitable[Finding]]


async def examine(home: Path | None, *, online: bool, as_json: bool) -> int:
    """Print what was found; returns the exit code, 1 if anything fails."""
    findings = [finding async for finding in _findings(home, online=online)]
    if as_json:
        rows = [finding._asdict() for finding in findings]
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        console = Console()
        for group, ok, text in findings:
            mark = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[yellow]![/]"}[ok]
            console.print(f"{mark} [bold]{group}[/]  ", end="")
            console.print(text, markup=False)
    return int(any(finding.ok is False for finding in findings))


async def _findings(home: Path | None, *, online: bool) -> AsyncIterator[Finding]:
    try:
        settings, is_devnet = find_settings(home)
    except ConfigError as error:
        for fault in _faults(error):
            yield fault
        return
    for finding in [_devnet(settings)] if is_devnet else _settings(settings):
        yield finding
    is_remote = settings.small_model_url is not None
    checks: list[tuple[str, Check]] = [
        *([("Model", _remote_model)] if is_remote else [("Model", _model), ("Kernels", _kernels)]),
        ("Router", _router),
        ("Ledger", _ledger),
        ("Tabs", _tabs),
    ]
    if online:
        checks += [("Small model", _small_model)] if is_remote else []
        checks += [("Chain", _chain), ("Gas", _gas), ("Treasury", _treasury)]
        checks += [("Facilitator", _facilitator), ("Upstream", _upstream)]
    for group, check in checks:
        try:
            yield await check(settings)
        except TinyBrainError as error:
            yield Finding(group, False, error.message)


def _devnet(settings: Settings) -> Finding:
    return Finding(
        "Settings",
        None,
        f"none of your own: looking at the devnet in {settings.home}. For a real network copy "
        "env.example to .env and fill it in.",
    )


def _settings(settings: Settings) -> list[Finding]:
    try:
        settings.require_serving()
        require_sellable(settings.model_copy(update={"refunds": can_refund(settings)}))
    except ConfigError as error:
        return _faults(error)
    return [Finding("Settings", True, "everything needed to serve is set")]


def _faults(error: ConfigError) -> list[Finding]:
    return [Finding("Settings", False, line) for line in error.message.splitlines()]


async def _model(settings: Settings) -> Finding:
    from tinybrain.engine.loading import load_tinychat  # noqa: PLC0415  # torch takes seconds

    model = load_tinychat(settings, slots=1)
    try:
        return Finding(
            "Model",
            True,
            f"{model.name}, nanochat {model.variant}, {model.parameters / 1e6:.1f}M parameters on "
            f"{model.device} in {model.precision}, "
            f"checkpoint {model.checkpoint_hash}",
        )
    finally:
        model.close()


async def _remote_model(settings: Settings) -> Finding:
    return Finding("Model", True, f"{identity_of(settings)}, behind an API: ask it with --online")


async def _small_model(settings: Settings) -> Finding:
    """Ask it for a few tokens that nobody can be certain of."""
    asked = [Message("user", "Think of any town, and name it.")]
    async with open_small_model(settings) as model:
        events = [event async for event in model.generate(asked, Sampling(8, temperature=0))]
    tokens = [event for event in events if isinstance(event, Token)]
    told = f"{identity_of(settings)} answers"
    if not tokens:
        return Finding("Small model", False, f"{told} nothing.")
    if all(token.logprob == 0 for token in tokens):
        return Finding(
            "Small model",
            False,
            f"{told}, and is certain of every word: its log-probabilities are those after the "
            "temperature. Let its server tell those before it (at temperature 1).",
        )
    if any(token.margin is None for token in tokens):
        return Finding(
            "Small model",
            None,
            f"{told} with log-probabilities, but without two top_logprobs: margins are unknown. "
            "Let its server tell them.",
        )
    return Finding("Small model", True, f"{told} with log-probabilities")


async def _kernels(settings: Settings) -> Finding:
    from tinybrain.engine.native import what_is_missing  # noqa: PLC0415  # torch takes seconds

    if (missing := what_is_missing()) and settings.device in ("auto", "cpu"):
        return Finding(
            "Kernels", None, f"TinyChat computes with torch's, which are slower. {missing}"
        )
    return Finding("Kernels", True, "TinyChat's own are there")


async def _router(settings: Settings) -> Finding:
    router, gate = open_router(settings), open_gate(settings)
    if router is None:
        return Finding(
            "Router",
            None,
            "this small model has no calibration: an answer is kept if its least certain token had "
            f"a probability of {1 - gate.opening.max_p_wrong:.2f}. Calibrate it, and set "
            "TINYBRAIN_MAX_LOCAL_ERROR or TINYBRAIN_TARGET_ESCALATION_RATE.",
        )
    router.require(identity_of(settings))
    n, escalated, at_prefill, local_error = expected(gate, router.outcomes)
    return Finding(
        "Router",
        True,
        f"of {router.made}, for checkpoint {router.checkpoint}: an answer is kept if P(wrong) is "
        f"at most {gate.opening.max_p_wrong:.3f}, so that "
        f"{target_of(settings) or router.target}. Of its {n} calibration questions "
        f"{escalated:.1%} are escalated ({at_prefill:.1%} before the first token), and "
        f"{local_error:.1%} of the answers kept are wrong",
    )


async def _ledger(settings: Settings) -> Finding:
    if missing := _missing_file(settings.ledger):
        return Finding("Ledger", None, f"{missing} will be created at the first start")
    database = await open_existing(settings.ledger)
    await database.close()
    # The driver reads a password from the query too.
    url = make_url(settings.ledger).set(query={})
    return Finding("Ledger", True, url.render_as_string(hide_password=True))


def _missing_file(ledger: str) -> Path | None:
    path = Path(ledger.removeprefix(SQLITE))
    return path if ledger.startswith(SQLITE) and not path.exists() else None


async def _tabs(settings: Settings) -> Finding:
    if can_refund(settings):
        return Finding("Tabs", True, "prepaid tabs and upfront payments can be refunded")
    why = (
        "TINYBRAIN_REFUNDS is false"
        if settings.refunds is False
        else "TINYBRAIN_TREASURY_PRIVATE_KEY is not the key of TINYBRAIN_PAY_TO, so nothing could "
        "be refunded"
    )
    return Finding("Tabs", None, f"not sold: {why}")


async def _chain(settings: Settings) -> Finding:
    async with open_chain(settings) as chain:
        found, wanted = await chain.chain_id(), int(settings.network.partition(":")[2])
    if found != wanted:
        return Finding(
            "Chain", False, f"TINYBRAIN_RPC_URL serves chain {found}, not {settings.network}."
        )
    return Finding("Chain", True, f"{settings.network} answers")


async def _gas(settings: Settings) -> Finding:
    if "own" not in settings.facilitators or settings.gas_private_key is None:
        return Finding("Gas", True, "the facilitator pays it")
    address = address_of(settings.gas_private_key.get_secret_value())
    async with open_rpc(settings) as rpc:
        held = int(await rpc.call("eth_getBalance", address, "latest"), 16)
        price = int(await rpc.call("eth_gasPrice"), 16)
    left = held // max(1, SETTLEMENT_GAS * price)
    told = f"{address} holds {held / 1e18:.6f}, which pays for {left} settlements"
    if left < settings.low_gas_settlements:
        return Finding("Gas", None if left else False, f"{told}. Send it some native coin.")
    return Finding("Gas", True, told)


async def _treasury(settings: Settings) -> Finding:
    if settings.treasury_private_key is None:
        return Finding("Treasury", None, "no key: answers are bought with an API key")
    address = address_of(settings.treasury_private_key.get_secret_value())
    async with open_chain(settings) as chain:
        held = await chain.balance(address)
    if held < settings.max_cost_per_call:
        return Finding(
            "Treasury",
            False,
            f"{address} holds {format_usdc(held)}, less than one answer may cost "
            f"({format_usdc(settings.max_cost_per_call)}). Send it some USDC.",
        )
    return Finding("Treasury", True, f"{address} holds {format_usdc(held)}")


async def _facilitator(settings: Settings) -> Finding:
    for url in settings.facilitators:
        if url.startswith("http"):
            finding = await _reachable("Facilitator", f"{url.rstrip('/')}/supported")
            if not finding.ok:
                return finding
    names = [_host(name) or name for name in settings.facilitators]  # "own" has no host
    return Finding("Facilitator", True, ", then ".join(names) or "none")


async def _upstream(settings: Settings) -> Finding:
    return await _reachable("Upstream", f"{settings.upstream_url}/models")


async def _reachable(group: str, url: str) -> Finding:
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            response = await client.get(url)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Finding(group, False, f"{_host(url)} cannot be reached ({type(error).__name__}).")
    fine = response.is_success or None  # a server that answers otherwise may still sell
    return Finding(group, fine, f"{_host(url)} answers {response.status_code}")


def _host(url: str) -> str:
    """What may be shown of a URL: its path and user may be secrets."""
    return urlsplit(url).netloc.rpartition("@")[2]

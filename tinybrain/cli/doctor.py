"""`tinybrain doctor`: could the service start with these settings? Pays nothing, signs nothing.

Without --online nothing outside this machine is asked.
"""

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import httpx
from rich.console import Console

from tinybrain.cli.service import open_chain
from tinybrain.config import Settings, load_settings
from tinybrain.errors import ConfigError, TinyBrainError
from tinybrain.payments.database import Database
from tinybrain.payments.payer import address_of
from tinybrain.payments.refunding import can_refund
from tinybrain.usdc import format_usdc

LEAST_GAS_WEI = 10**14  # about forty settlements at 0.01 gwei
TIMEOUT_S = 10


class Finding(NamedTuple):
    """One line of the report. `ok` None is a warning."""

    group: str
    ok: bool | None
    text: str


Check = Callable[[Settings], Awaitable[Finding]]


async def examine(*, online: bool, as_json: bool) -> int:
    """Print what was found; returns the exit code, 1 if anything fails."""
    findings = [finding async for finding in _findings(online=online)]
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


async def _findings(*, online: bool) -> AsyncIterator[Finding]:
    try:
        settings = load_settings()
    except ConfigError as error:
        for line in error.message.splitlines():
            yield Finding("Settings", False, line)
        return
    try:
        settings.require_serving()
        yield Finding("Settings", True, "everything needed to serve is set")
    except ConfigError as error:
        for line in error.message.splitlines():
            yield Finding("Settings", False, line)
    checks: list[tuple[str, Check]] = [
        ("Model", _model),
        ("Ledger", _ledger),
        ("Tabs", _refunds),
    ]
    if online:
        checks += [("Chain", _chain), ("Gas", _gas), ("Treasury", _treasury)]
        checks += [("Facilitator", _facilitator), ("Upstream", _upstream)]
    for group, check in checks:
        try:
            yield await check(settings)
        except TinyBrainError as error:
            yield Finding(group, False, error.message)


async def _model(settings: Settings) -> Finding:
    from tinybrain.engine.tinychat import load_tinychat  # noqa: PLC0415  # torch takes seconds

    model = load_tinychat(
        checkpoint=settings.checkpoint,
        nanochat_base_dir=settings.nanochat_base_dir,
        source=settings.checkpoint_source,
        step=settings.checkpoint_step,
        device=settings.device,
        slots=1,
    )
    try:
        return Finding(
            "Model",
            True,
            f"{model.name}, {model.parameters / 1e6:.1f}M parameters on {model.device}, "
            f"checkpoint {model.checkpoint_hash}",
        )
    finally:
        model.close()


async def _ledger(settings: Settings) -> Finding:
    database = await Database.open(settings.ledger)
    await database.close()
    return Finding("Ledger", True, settings.ledger)


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
    async with open_chain(settings) as chain:
        held = await chain.native_balance(address)
    if held < LEAST_GAS_WEI:
        return Finding("Gas", False, f"{address} holds {held} wei. Send it some native coin.")
    return Finding("Gas", True, f"{address} holds {held / 1e18:.6f}")


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
    urls = [name for name in settings.facilitators if name.startswith("http")]
    for url in urls:
        finding = await _reachable("Facilitator", f"{url.rstrip('/')}/supported")
        if not finding.ok:
            return finding
    return Finding("Facilitator", True, ", then ".join(settings.facilitators) or "none")


async def _refunds(settings: Settings) -> Finding:
    if can_refund(settings):
        return Finding("Tabs", True, "prepaid tabs and upfront payments can be refunded")
    return Finding(
        "Tabs",
        None,
        "not sold: TINYBRAIN_TREASURY_PRIVATE_KEY is not the key of TINYBRAIN_PAY_TO, so nothing "
        "could be refunded",
    )


async def _upstream(settings: Settings) -> Finding:
    return await _reachable("Upstream", f"{settings.upstream_url}/models")


async def _reachable(group: str, url: str) -> Finding:
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            response = await client.get(url)
    except httpx.HTTPError as error:
        return Finding(group, False, f"{url} cannot be reached ({type(error).__name__}).")
    fine = response.is_success or None  # a server that answers otherwise may still sell
    return Finding(group, fine, f"{url} answers {response.status_code}")

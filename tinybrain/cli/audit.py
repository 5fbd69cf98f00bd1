"""`tinybrain audit`: ledger and chain compared. Signs nothing; writes only with --adopt."""

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinybrain.cli.ledger import cell, console, opened, write_json
from tinybrain.cli.service import open_chain, service_settings
from tinybrain.config import Settings
from tinybrain.errors import TinyBrainError
from tinybrain.payments.audit import Finding, Report, Token, adopt, audit
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.payer import address_of
from tinybrain.usdc import format_usdc

CLEAN, DIFFERENT, NOT_CHECKED = 0, 1, 2


async def run_audit(home: Path | None, *, as_json: bool) -> int:
    """Print what an audit finds; returns the exit code."""
    try:
        settings = service_settings(home)
        async with opened(settings) as database, open_chain(settings) as chain:
            report = await audit(database, chain, _token(settings), _wallets(settings))
    except TinyBrainError as error:
        return _not_checked(error)
    if as_json:
        write_json(report.to_json())
    else:
        _print(report, console())
    return CLEAN if report.clean else DIFFERENT


async def adopt_transfer(home: Path | None, transaction: str, *, as_json: bool) -> int:
    """Note a transaction as the owner's own; returns the exit code."""
    try:
        settings = service_settings(home)
        async with opened(settings) as database, open_chain(settings) as chain:
            made = await adopt(database, Ledger(database), chain, _token(settings), transaction)
    except TinyBrainError as error:
        return _not_checked(error)
    if as_json:
        write_json([transfer._asdict() for transfer in made])
    else:
        for transfer in made:
            sys.stdout.write(
                f"Noted as the owner's: {format_usdc(transfer.value)} from {transfer.sender} to "
                f"{transfer.receiver}.\n"
            )
    return CLEAN


def _token(settings: Settings) -> Token:
    return Token(settings.network, settings.token.address.lower())


def _wallets(settings: Settings) -> set[str]:
    """Where the money is that the ledger accounts for."""
    wallets = {settings.pay_to.lower()} if settings.pay_to else set()
    if settings.treasury_private_key is not None:
        wallets.add(address_of(settings.treasury_private_key.get_secret_value()).lower())
    return wallets


def _not_checked(error: TinyBrainError) -> int:
    sys.stderr.write(f"tinybrain: {error.message}\n")
    return NOT_CHECKED


def _print(report: Report, screen: Console) -> None:
    table = Table("wallet", "opening", "by the journal", "on the chain", box=None)
    for wallet in report.wallets:
        amounts = (wallet.opening, wallet.booked, wallet.on_chain)
        table.add_row(wallet.address, *map(format_usdc, amounts))
    screen.print(table)
    for title, style, findings in (
        ("differs", "red", report.differences),
        ("under way", "yellow", report.under_way),
        ("debt", "yellow", report.debts),
    ):
        for finding in findings:
            screen.print(_line(title, style, finding), soft_wrap=True)
    checked = ", ".join(_counted(count, name) for name, count in sorted(report.checked.items()))
    screen.print(f"Compared up to block {report.block}: {checked or 'nothing yet'}.")
    screen.print(
        "[green]Ledger and chain agree.[/]"
        if report.clean
        else f"[red]{_counted(len(report.differences), 'differences')}.[/]"
    )


def _counted(count: int, things: str) -> str:
    return f"{count} {things.removesuffix('s') if count == 1 else things}"


def _line(title: str, style: str, finding: Finding) -> Text:
    told = cell("text", f"{finding.subject} {finding.text}", whole=True)
    return Text.assemble((f"{title}  ", style), told)

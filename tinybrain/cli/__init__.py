"""The `tinybrain` command.

Commands import what they need when they run, so that `--help` answers at once.
"""

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from tinybrain import __version__
from tinybrain.errors import TinyBrainError

app = typer.Typer(
    help="TinyBrain sells chat answers over x402, and buys the ones it does not know.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ledger = typer.Typer(
    help="List, filter and export what the ledger holds; changes nothing.", no_args_is_help=True
)
app.add_typer(ledger, name="ledger")

Url = Annotated[str, typer.Option(envvar="TINYBRAIN_URL", help="Where the service listens.")]
Home = Annotated[
    Path, typer.Option(envvar="TINYBRAIN_HOME", help="Where the devnet keeps its state.")
]
ServiceHome = Annotated[
    Path | None,
    typer.Option(
        "--home",
        envvar="TINYBRAIN_HOME",
        help="Where the service keeps its ledger, or the devnet its state.",
        show_default=".tinybrain",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        envvar="TINYBRAIN_CALLER_KEY",
        help="Private key that pays; without it the devnet caller's wallet pays.",
        show_default=False,
        show_envvar=True,
    ),
]
Model = Annotated[str, typer.Option(help="tinybrain, tinychat, or the larger model's name.")]
MaxPrice = Annotated[str, typer.Option(help="Pay at most this for an answer, in dollars.")]
MaxTokens = Annotated[int, typer.Option(min=1, max=4096, help="Longest answer, in tokens.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]
Kind = Annotated[
    str, typer.Argument(help="payments, refunds, purchases, tabs, entries or answers.")
]
State = Annotated[str | None, typer.Option(help="Only those in this state, such as debt.")]
Payer = Annotated[str | None, typer.Option(help="Only those of this address.")]
AnswerId = Annotated[str | None, typer.Option("--answer", help="Only those of this answer.")]
Since = Annotated[str | None, typer.Option(help="Only from this time on, such as 2026-11-01.")]
Until = Annotated[str | None, typer.Option(help="Only before this time; UTC unless it says else.")]

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_HOME = Path(".tinybrain")


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    url: Url = DEFAULT_URL,
    home: Home = DEFAULT_HOME,
    key: Key = None,
    model: Model = "tinybrain",
    max_price: MaxPrice = "0.05",
    max_tokens: MaxTokens = 512,
    as_json: AsJson = False,  # typer makes it a flag
) -> None:
    """Pay for one answer, print it as it comes, then its receipt."""
    from tinybrain.cli.ask import ask_once

    payer = _payer(url, home, key, model, max_price, max_tokens)
    _run(ask_once(payer, question, as_json=as_json))


@app.command()
def chat(
    url: Url = DEFAULT_URL,
    home: Home = DEFAULT_HOME,
    key: Key = None,
    model: Model = "tinybrain",
    max_price: MaxPrice = "0.05",
    max_tokens: MaxTokens = 512,
) -> None:
    """Talk in turns; every answer is paid for. Ctrl-D or an empty line ends it."""
    from tinybrain.cli.ask import converse

    _run(converse(_payer(url, home, key, model, max_price, max_tokens)))


@app.command()
def wallet(
    home: Home = DEFAULT_HOME,
    key: Key = None,
    rpc_url: Annotated[
        str | None,
        typer.Option(
            envvar="TINYBRAIN_RPC_URL",
            help="The chain's JSON-RPC; without it the devnet's, or the configured network's.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show balances: the devnet's wallets, or the one of a key."""
    from tinybrain.cli.wallet import show_balances

    _run(show_balances(home, key, rpc_url=rpc_url, as_json=as_json))


@app.command()
def doctor(
    online: Annotated[
        bool, typer.Option("--online", help="Ask the chain, facilitator and upstream too.")
    ] = False,
    home: ServiceHome = None,
    as_json: AsJson = False,
) -> None:
    """Check that the service could start with the settings as they are; pays nothing."""
    from tinybrain.cli.doctor import examine

    raise typer.Exit(_run(examine(home, online=online, as_json=as_json)))


@app.command()
def calibrate(
    questions: Annotated[
        Path, typer.Argument(help='One a JSON line: {"text", "accepted", "family", "split"}.')
    ],
    out: Annotated[Path, typer.Option(help="The router to write.")] = Path("router.json"),
    report: Annotated[
        Path | None, typer.Option(help="Folder for the report: Markdown, PNG and JSON.")
    ] = None,
    target_escalation_rate: Annotated[
        float | None, typer.Option(help="The share of questions to escalate.")
    ] = None,
    max_local_error: Annotated[
        float | None,
        typer.Option(help="The most that may be wrong of the answers kept; 0.05 if none is set."),
    ] = None,
    declines: Annotated[
        str | None, typer.Option(help="How the small model begins to say that it does not know.")
    ] = None,
    budget: Annotated[
        str,
        typer.Option(help="Dollars for the larger model to judge what has no accepted answers."),
    ] = "0",
    every: Annotated[int, typer.Option(min=1, help="Ask only each n-th question.")] = 1,
    at_once: Annotated[int, typer.Option(min=1, max=256, help="Questions answered together.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the parts, resamples and random baseline.")] = 0,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Directory of a checkpoint, instead of the one set.")
    ] = None,
    home: ServiceHome = None,
) -> None:
    """Ask the small model questions, and write when to doubt it: its router, and a report."""
    from tinybrain.cli.calibrate import choose_target, run_calibration
    from tinybrain.cli.outcomes import Wishes
    from tinybrain.cli.service import service_settings

    money = _amount(budget, "--budget")

    def work() -> None:
        settings = service_settings(home)
        if checkpoint is not None:
            settings = settings.model_copy(update={"checkpoint": checkpoint})
        target = choose_target(
            settings, escalation_rate=target_escalation_rate, max_local_error=max_local_error
        )
        wishes = Wishes(
            questions=questions,
            out=out,
            report=report,
            target=target,
            declines=declines,
            every=every,
            at_once=at_once,
            budget=money,
            seed=seed,
        )
        run_calibration(settings, wishes)

    _guard(work)


@app.command()
def audit(
    adopt: Annotated[
        str | None,
        typer.Option(help="Note this transaction as the owner's own deposit or withdrawal."),
    ] = None,
    home: ServiceHome = None,
    as_json: AsJson = False,
) -> None:
    """Compare ledger and chain: 0 if they agree, 1 if they differ, 2 if that cannot be told."""
    from tinybrain.cli.audit import adopt_transfer, run_audit

    if adopt:
        work = adopt_transfer(home, adopt, as_json=as_json)
    else:
        work = run_audit(home, as_json=as_json)
    raise typer.Exit(_run(work))


@ledger.command("list")
def ledger_list(
    kind: Kind,
    state: State = None,
    payer: Payer = None,
    answer: AnswerId = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    home: ServiceHome = None,
    as_json: AsJson = False,
) -> None:
    """List the newest rows of a kind."""
    from tinybrain.cli.ledger import list_rows, parse_filters, parse_kind

    def listing() -> Coroutine[Any, Any, None]:
        filters = parse_filters(state=state, payer=payer, answer=answer, since=since, until=until)
        return list_rows(home, parse_kind(kind), filters, limit=limit, as_json=as_json)

    _run(_guard(listing))


@ledger.command("export")
def ledger_export(
    kind: Kind,
    target: Annotated[str, typer.Option("--csv", help="The file, or - for standard output.")] = "-",
    state: State = None,
    payer: Payer = None,
    answer: AnswerId = None,
    since: Since = None,
    until: Until = None,
    home: ServiceHome = None,
) -> None:
    """Write all rows of a kind as CSV, oldest first, with atomic USDC and Unix milliseconds."""
    from tinybrain.cli.ledger import export_rows, parse_filters, parse_kind

    def export() -> Coroutine[Any, Any, None]:
        filters = parse_filters(state=state, payer=payer, answer=answer, since=since, until=until)
        return export_rows(home, parse_kind(kind), filters, target=target)

    _run(_guard(export))


@ledger.command("balances")
def ledger_balances(home: ServiceHome = None, as_json: AsJson = False) -> None:
    """Print the trial balance of the journal."""
    from tinybrain.cli.ledger import print_balances

    _run(print_balances(home, as_json=as_json))


@ledger.command("show")
def ledger_show(
    answer_id: Annotated[str, typer.Argument(help="The answer's id, ans_ and 32 digits.")],
    home: ServiceHome = None,
    as_json: AsJson = False,
) -> None:
    """Print all that is known of one answer."""
    from tinybrain.cli.ledger import show_answer

    _run(show_answer(home, answer_id, as_json=as_json))


@app.command()
def serve(
    config: Annotated[Path, typer.Argument(help="Ray Serve's configuration.")] = Path(
        "serve_config.yaml"
    ),
) -> None:
    """Check the settings, then `serve run` the service without the devnet."""
    from tinybrain.cli.serve import serve_forever

    _guard(lambda: serve_forever(config))


@app.command()
def devnet(
    home: Home = DEFAULT_HOME,
    port: Annotated[int, typer.Option(help="Port of the service.")] = 8000,
    chain_port: Annotated[int, typer.Option(help="Port of anvil.")] = 8545,
    facilitator_port: Annotated[int, typer.Option(help="Port of the facilitator.")] = 4402,
    upstream_port: Annotated[int, typer.Option(help="Port of the larger model.")] = 4403,
) -> None:
    """Start a local chain, a facilitator, a paid larger model and the service."""
    from tinybrain.cli.devnet import start

    raise typer.Exit(
        _guard(
            lambda: start(
                home,
                port=port,
                chain_port=chain_port,
                facilitator_port=facilitator_port,
                upstream_port=upstream_port,
            )
        )
    )


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """TinyBrain sells chat answers over x402, and buys the ones it does not know."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _payer(
    url: str, home: Path, key: str | None, model: str, max_price: str, max_tokens: int
) -> Any:
    from tinybrain.cli.client import Asker
    from tinybrain.cli.wallet import caller_key

    def build() -> Any:
        cap = _amount(max_price, "--max-price")
        return Asker(
            url, key or caller_key(home), model=model, max_price=cap, max_tokens=max_tokens
        )

    return _guard(build)


def _amount(dollars: str, option: str) -> Any:
    from tinybrain.usdc import parse_usdc

    try:
        return parse_usdc(dollars)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return _guard(lambda: asyncio.run(work))


def _guard(work: Any) -> Any:
    """Turn our errors into one clear message and exit code 1."""
    try:
        return work()
    except TinyBrainError as error:
        typer.echo(f"tinybrain: {error.message}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)

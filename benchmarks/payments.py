"""What the money path costs: admitting a payment, settling it, its gas; and a soak of it all.

Everything runs on a local chain with Circle's USDC and on real ledgers. Ways that are compared
take turns within one run, so that a busy machine slows all of them.
"""

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path

import admitting
import settling
import soaking
import uvloop
from latency import Row, markdown
from overhead import load, machine
from paying import LocalChain

CHECKOUT = Path(__file__).parents[1]
ADMITTING = "Admitting a payment, from the decoded header to the claim's commit (ms)"
STEPS = "Its steps, one after the other (ms, P50)"
SETTLING = "Settling payments whose answers are delivered"
SOAK = "A soak of the service without Ray (times in ms)"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: rounds of admitting, rounds and payments of settling, requests."""

    admitting: int
    settling: int
    payments: int
    soak: int


FULL = Size(admitting=40, settling=3, payments=300, soak=1_000)
QUICK = Size(admitting=4, settling=1, payments=100, soak=100)


def measure(home: Path, size: Size) -> dict[str, list[Row]]:
    """Every table, by its heading."""
    with ExitStack() as stack:
        chain = LocalChain(stack, home)
        ledgers = {"SQLite": f"sqlite+aiosqlite:///{home}/admitting.db", **_postgresql(stack)}
        # uvloop is what Ray Serve and uvicorn run the service on.
        ways, steps = uvloop.run(admitting.measure(chain, ledgers, rounds=size.admitting))
        settled = uvloop.run(
            settling.measure(chain, home, rounds=size.settling, count=size.payments)
        )
        soaked = uvloop.run(soaking.soak(chain, home, count=size.soak))
    return {ADMITTING: ways, STEPS: steps, SETTLING: settled, SOAK: soaked}


def _postgresql(stack: ExitStack) -> dict[str, str]:
    """The URL of a PostgreSQL of our own, if the package that the tests take it from is there."""
    sys.path.append(str(CHECKOUT))
    try:
        server = import_module("tests.payments.local_postgres").LocalPostgres()
    except ModuleNotFoundError:
        return {}
    stack.callback(server.remove)
    server.start()
    return {"PostgreSQL": server.url()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few of everything, under a minute")
    parser.add_argument("--soak", type=int, metavar="N", help="paid requests of the soak")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there too")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    if arguments.soak is not None:
        size = replace(size, soak=arguments.soak)
    report: dict[str, object] = {**machine(), **asdict(size), "load before": load()}
    with tempfile.TemporaryDirectory() as home:
        tables = measure(Path(home), size)
    report["load after"] = load()
    print(", ".join(f"{name} {value}" for name, value in report.items()))
    for heading, rows in tables.items():
        print(f"\n{heading}\n\n{markdown(rows)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report | {"tables": tables}, indent=2))


if __name__ == "__main__":
    main()

"""TinyBrain's engine on a CPU, beside its plain reference path and beside transformers.

A random nanochat d20 (561M parameters) is made, and each engine loads it, reads prompts and decodes
in a process of its own, one after the other; every round runs all of them, so that a busy machine
slows all. The memory's bandwidth is measured in the same run.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from exactness import exactness
from generating import COMPILED, OURS, PROMPT, THEIRS
from latency import Row, markdown
from random_nanochat import write_checkpoint

BENCHMARKS = Path(__file__).parent
ENGINES = (*THEIRS, COMPILED, *OURS)
CONVERTED = ("16-bit", "int8")
BATCHES, QUICK_BATCHES = (1, 8, 32), (1, 8)
MOST_COMPILED = 8
"""Each batch size compiles anew, and 32 prompts at once take it minutes to read."""
BANDWIDTH_BYTES = 1 << 30
DEPTH, QUICK_DEPTH = 20, 4
TIMEOUT_S = 2400

Measured = dict[str, Any]


def run(name: str, checkpoint: Path, home: Path, batches: Sequence[int], threads: int) -> Measured:
    """`generating.Figures` of one engine, in a new process."""
    if name == COMPILED:
        batches = [batch for batch in batches if batch <= MOST_COMPILED]
    arguments = [name, str(checkpoint), str(home), ",".join(map(str, batches)), str(threads)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "generating.py"), *arguments],
        env=os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)},
        stdout=subprocess.PIPE,
        timeout=TIMEOUT_S,
        check=True,
    )
    measured: Measured = json.loads(done.stdout)
    return measured


def can_compile() -> bool:
    """Whether torch.compile finds what it needs on a CPU."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return shutil.which(compiler) is not None and headers.exists()


def bandwidth(repeats: int = 7) -> float:
    """Bytes a second that all threads together read from memory."""
    block = torch.ones(BANDWIDTH_BYTES // 4)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        block.sum()
        times.append(time.perf_counter() - start)
    return BANDWIDTH_BYTES / min(times)


def row(name: str, rounds: Sequence[Measured], read_bytes_s: float, batches: Sequence[int]) -> Row:
    """A table's row: medians of the rounds."""

    def of(figure: str) -> float:
        return median(measured[figure] for measured in rounds)

    def step(batch: int) -> float:
        return median(measured["step_s"][str(batch)] for measured in rounds)

    compiled = [m["compile_s"] for m in rounds if m["compile_s"]]
    said: Row = {
        "engine": name,
        "load s": round(of("load_s"), 2),
        "compile s": round(median(compiled), 1) if compiled else "-",
        "first token s": round(of("first_token_s"), 2),
        "prefill tok/s": round(PROMPT / of("first_token_s")),
    }
    turns = [m["second_turn_s"] for m in rounds if m["second_turn_s"]]
    said["second turn"] = f"{median(turns) / of('first_token_s'):.0%}" if turns else "-"
    for batch in batches:
        measured = str(batch) in rounds[0]["step_s"]
        said[f"b{batch} ms"] = round(step(batch) * 1000, 1) if measured else "-"
        said[f"b{batch} tok/s"] = round(batch / step(batch), 1) if measured else "-"
    said["of the roof"] = f"{of('read_bytes') / read_bytes_s / step(1):.0%}"
    said["peak MB"] = round(of("peak_bytes") / 1e6)
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"a small model, two to three minutes; without {COMPILED}, unless --only names it",
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there too")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=ENGINES, metavar="ENGINE")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, metavar="N")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    names = arguments.only or [n for n in ENGINES if not (arguments.quick and n == COMPILED)]
    if COMPILED in names and not can_compile():
        print(f"{COMPILED} is left out: torch.compile needs a C++ compiler and Python's headers.")
        names = [name for name in names if name != COMPILED]
    if not names:
        return
    measured: dict[str, list[Measured]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, home = Path(scratch) / "nanochat", Path(scratch) / "home"
        write_checkpoint(checkpoint, depth=QUICK_DEPTH if arguments.quick else DEPTH)
        first_loads = {
            name: round(run(name, checkpoint, home, (), arguments.threads)["load_s"], 1)
            for name in names
            if name in CONVERTED
        }
        read_bytes_s = bandwidth()
        batches = QUICK_BATCHES if arguments.quick else arguments.batches
        for _ in range(arguments.rounds):
            for name in names:
                measured[name].append(run(name, checkpoint, home, batches, arguments.threads))
    report: dict[str, object] = {
        "CPUs": os.cpu_count(),
        "threads": arguments.threads,
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "memory GB/s": round(read_bytes_s / 1e9, 1),
        "load after": round(os.getloadavg()[0], 1),
        "first load s (converts)": first_loads,
    }
    print(", ".join(f"{name} {value}" for name, value in report.items()))
    rows = [row(name, rounds, read_bytes_s, batches) for name, rounds in measured.items()]
    print(f"\n{markdown(rows)}")
    with torch.inference_mode():
        quality = exactness()
    print(f"\nThe model that ships, against fp32\n\n{markdown(quality)}")
    if arguments.json:
        arguments.json.write_text(
            json.dumps(report | {"engines": measured, "exactness": quality}, indent=2)
        )


if __name__ == "__main__":
    main()

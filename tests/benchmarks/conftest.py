"""Benchmarks are scripts, not a package: their folder is where they find each other."""

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

sys.path += [str(BENCHMARKS), str(Path(__file__).parent)]

"""Tests find the misbehaving provider among those of upstreams."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "upstreams"))

"""Tests find the made-up worlds of the calibration's tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "calibration"))

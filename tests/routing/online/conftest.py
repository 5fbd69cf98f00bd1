"""Tests find the helpers beside them, and the made-up worlds of the calibration's tests."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "calibration")]

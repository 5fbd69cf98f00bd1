"""The figures are drawn without a screen, and say what is missing."""

import sys

import pytest
from worlds import router, world

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.measuring import Prices, calibrate
from tinybrain.routing.calibration.report_figures import draw, require_matplotlib


def test_the_picture_is_a_png(tmp_path):
    prices = Prices(answer=10_000, upstream=1_000)
    report = calibrate(world(600), world(200, seed=9), fit=router, prices=prices, seed=0).report
    draw(report, tmp_path / "figures.png")
    content = (tmp_path / "figures.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 20_000


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'tinybrain\[calibrate\]'"):
        require_matplotlib()

"""router.json: read back as written, refused when damaged, bound to its checkpoint."""

import json

import pytest
from worlds import router, world

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration import router as module
from tinybrain.routing.calibration.measuring import Prices, calibrate
from tinybrain.routing.calibration.router import Router


@pytest.fixture(scope="module")
def made():
    return router()


@pytest.fixture
def path(made, tmp_path):
    made.write(tmp_path / "router.json")
    return tmp_path / "router.json"


def test_what_was_written_is_read(made, path):
    assert Router.read(path) == made


def test_what_is_written_over_is_replaced_as_a_whole(made, path):
    with path.open() as being_read:
        made.model_copy(update={"hold_back_tokens": 9}).write(path)
        assert Router.model_validate_json(being_read.read()) == made
    assert Router.read(path).hold_back_tokens == 9
    assert [file.name for file in path.parent.iterdir()] == ["router.json"]


def test_it_holds_the_two_thirds_it_was_not_fitted_on(made):
    assert len(made.outcomes) == 400
    assert {o.family for o in made.outcomes} == set("abcd")


def test_it_judges_its_checkpoint_and_no_other(made):
    made.require("0123456789abcdef")
    with pytest.raises(ConfigError, match=r"0123456789abcdef, not of fedcba.*TINYBRAIN_ROUTER"):
        made.require("fedcba9876543210")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 1),
        ("checkpoint", ""),
        ("hold_back_tokens", 0),
        ("opening", {"intercept": 0.0, "weights": {"min_logprob": -1.0}}),
        ("opening", {"intercept": 1e9, "weights": {"min_logprob": 1.0}}),
        ("target", {}),
        ("rows", []),
        ("rows", [["a", "", "right", [1.0]]]),
        ("signals", ["mood"] * 9),
        ("surprise", 1),
    ],
)
def test_what_is_no_router_is_refused_by_name(path, field, value):
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ConfigError, match=r"router\.json is no router .* Calibrate again"):
        Router.read(path)


@pytest.mark.parametrize("text", ["", "null", "{", '{"opening": {"intercept": NaN}}'])
def test_what_is_no_json_is_refused(path, text):
    path.write_text(text)
    with pytest.raises(ConfigError, match="no router"):
        Router.read(path)


def test_numbers_that_are_not_finite_are_refused(path):
    path.write_text(path.read_text().replace('"intercept": ', '"intercept": 1e999, "was": ', 1))
    with pytest.raises(ConfigError):
        Router.read(path)


def test_a_file_that_is_too_large_is_not_read(path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    with pytest.raises(ConfigError, match="over 10 bytes"):
        Router.read(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="none"):
        Router.read(tmp_path / "none")


def test_a_report_of_another_checkpoint_is_refused(tmp_path):
    whole = calibrate(world(), [], fit=router, prices=Prices(10_000, 1_000), seed=0)
    whole.write(tmp_path / "router.json")
    text = (tmp_path / "router.json").read_text()
    (tmp_path / "router.json").write_text(text.replace(whole.checkpoint, "f" * 16, 1))
    with pytest.raises(ConfigError, match="its report is of another checkpoint"):
        Router.read(tmp_path / "router.json")

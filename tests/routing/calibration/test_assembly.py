"""From settings to a gate, with the model that ships and with others."""

import pytest
from worlds import router, world

from tinybrain.config import load_settings
from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.assembly import (
    checkpoint_of,
    identity_of,
    open_gate,
    open_router,
    target_of,
)
from tinybrain.routing.gate import Gate


def test_the_shipped_model_ships_with_its_router_and_the_gate_works():
    settings = load_settings()
    open_router(settings).require(checkpoint_of(settings).digest())
    gate = open_gate(settings)
    assert gate.prefill is not None
    assert 0 < gate.opening.max_p_wrong < 1


@pytest.mark.parametrize(
    "asked", [{"target_escalation_rate": 0.3}, {"max_local_error": 0.1}, {"max_local_error": 0.08}]
)
def test_the_shipped_router_follows_other_targets(asked):
    assert open_gate(load_settings(**asked)) != open_gate(load_settings())


def test_a_target_that_the_shipped_model_cannot_reach_is_refused():
    with pytest.raises(ConfigError, match="cannot be reached"):
        open_gate(load_settings(max_local_error=0.0001))


def test_without_a_router_the_least_certain_token_decides(bare_checkpoint):
    settings = load_settings(checkpoint=bare_checkpoint)
    assert open_router(settings) is None
    assert open_gate(settings) == Gate()
    other = load_settings(checkpoint=bare_checkpoint, hold_back_tokens=3)
    assert open_gate(other).hold_back_tokens == 3


@pytest.mark.parametrize("target", ["target_escalation_rate", "max_local_error"])
def test_a_target_without_a_router_is_refused_with_what_to_do(bare_checkpoint, target):
    with pytest.raises(ConfigError, match=r"no calibration.*no router\.json.*Calibrate it"):
        open_gate(load_settings(checkpoint=bare_checkpoint, **{target: 0.2}))


def test_a_router_beside_a_checkpoint_or_named_is_taken(bare_checkpoint, tmp_path):
    made = router(world())
    made.write(tmp_path / "other.json")
    assert open_router(load_settings(router=tmp_path / "other.json")) == made
    made.write(bare_checkpoint / "router.json")
    assert open_router(load_settings(checkpoint=bare_checkpoint)) == made


def test_a_machine_without_the_checkpoint_takes_the_router_that_is_named(tmp_path, caplog):
    assert open_router(load_settings(checkpoint=tmp_path / "elsewhere")) is None
    assert "elsewhere" in caplog.text
    router(world()).write(tmp_path / "named.json")
    settings = load_settings(checkpoint=tmp_path / "elsewhere", router=tmp_path / "named.json")
    assert open_gate(settings).prefill is not None


def test_another_window_than_the_calibrated_one_is_refused():
    assert open_gate(load_settings(hold_back_tokens=8)).hold_back_tokens == 8
    with pytest.raises(ConfigError, match="first 8 tokens"):
        open_gate(load_settings(hold_back_tokens=4))


def test_later_doubt_counts_unless_it_is_switched_off_or_there_is_no_calibration(bare_checkpoint):
    assert open_gate(load_settings()).later is not None
    assert open_gate(load_settings(continue_on_doubt=False)).later is None
    assert open_gate(load_settings(checkpoint=bare_checkpoint)).later is None


def test_no_target_set_is_none():
    assert target_of(load_settings()) is None


REMOTE = {"small_model_url": "https://api.example/v1", "small_model_name": "small"}


def test_the_shipped_models_router_is_not_taken_for_a_small_model_behind_an_api():
    assert open_router(load_settings(**REMOTE)) is None
    assert open_gate(load_settings(**REMOTE)) == Gate()


def test_a_small_model_behind_an_api_has_a_router_of_its_name_and_host(tmp_path):
    settings = load_settings(**REMOTE, router=tmp_path / "router.json")
    made = router(world())
    made.write(tmp_path / "router.json")
    with pytest.raises(ConfigError, match=r"not of small@[0-9a-f]{12}:"):
        open_gate(settings)
    made.model_copy(update={"checkpoint": identity_of(settings)}).write(tmp_path / "router.json")
    assert open_gate(settings).prefill is not None


def test_a_small_model_behind_an_api_is_never_taken_for_the_shipped_checkpoint():
    with pytest.raises(ConfigError, match=r"small@[0-9a-f]{12} is behind an API"):
        checkpoint_of(load_settings(**REMOTE))


def test_tinychats_identity_is_its_hash():
    assert identity_of(load_settings()) == checkpoint_of(load_settings()).digest()

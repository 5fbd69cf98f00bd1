"""Settings: where they come from, and what is said when they are missing or wrong."""

from pathlib import Path

import pytest

from tinybrain.config import Settings, load_settings
from tinybrain.errors import ConfigError

ADDRESS = "0x" + "1" * 40
KEY = "0x" + "2" * 64


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("TINYBRAIN_PAY_TO", ADDRESS, "pay_to", ADDRESS),
        ("TREASURY_ADDRESS", ADDRESS, "pay_to", ADDRESS),
        ("TINYBRAIN_PRICE", "0.02", "price", 20_000),
        ("LARGE_MODEL_URL", "https://example.org/v1/", "upstream_url", "https://example.org/v1"),
        (
            "LARGE_MODEL_BASE_URL",
            "https://example.org/v1",
            "upstream_url",
            "https://example.org/v1",
        ),
        ("LARGE_MODEL_NAME", "big", "upstream_model", "big"),
        ("DEVICE_TYPE", "cpu", "device", "cpu"),
    ],
)
def test_both_our_names_and_the_sources_are_read(monkeypatch, name, value, field, expected):
    monkeypatch.setenv(name, value)
    assert getattr(load_settings(), field) == expected


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("TREASURY_PRIVATE_KEY", "treasury_private_key"),
        ("TINYCHAT_API_KEY", "api_key"),
        ("LARGE_MODEL_API_KEY", "upstream_api_key"),
        ("CDP_API_KEY_ID", "cdp_api_key_id"),
        ("CDP_API_KEY_SECRET", "cdp_api_key_secret"),
    ],
)
def test_secrets_are_read_and_never_shown(monkeypatch, name, field):
    monkeypatch.setenv(name, KEY)
    settings = load_settings()
    assert getattr(settings, field).get_secret_value() == KEY
    assert KEY not in repr(settings)


@pytest.mark.parametrize("name", ["HOME", "PRICE", "NETWORK", "DEVICE", "API_KEY", "home"])
def test_names_that_others_use_are_not_read(monkeypatch, name):
    expected = load_settings()
    monkeypatch.setenv(name, "/somewhere")
    assert load_settings() == expected


def test_our_name_wins_over_the_sources_and_arguments_over_both(monkeypatch):
    monkeypatch.setenv("TREASURY_ADDRESS", "0x" + "a" * 40)
    monkeypatch.setenv("TINYBRAIN_PAY_TO", "0x" + "b" * 40)
    assert load_settings().pay_to == "0x" + "b" * 40
    assert load_settings(pay_to="0x" + "c" * 40).pay_to == "0x" + "c" * 40


def test_a_dotenv_file_is_read(tmp_path):
    (tmp_path / ".env").write_text(f"TREASURY_ADDRESS={ADDRESS}\nHOME=/somewhere\n")
    settings = Settings(_env_file=tmp_path / ".env")
    assert (settings.pay_to, settings.home) == (ADDRESS, Path(".tinybrain"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pay_to", "0x12"),
        ("network", "base"),
        ("price", "-1"),
        ("treasury_private_key", "secret"),
        ("upstream_url", "ftp://x"),
        ("small_model_url", "ftp://x"),
        ("max_local_error", 1),
        ("target_escalation_rate", 0),
        ("device", "tpu"),
    ],
)
def test_a_wrong_value_is_named(field, value):
    with pytest.raises(ConfigError, match=field):
        load_settings(**{field: value})


def test_of_two_targets_for_one_threshold_both_are_named():
    with pytest.raises(ConfigError, match=r"TINYBRAIN_TARGET_ESCALATION_RATE .* set one"):
        load_settings(target_escalation_rate=0.2, max_local_error=0.05)


@pytest.mark.parametrize("half", [{"small_model_url": "http://h/v1"}, {"small_model_name": "m"}])
def test_a_small_model_behind_an_api_needs_url_and_name(half):
    with pytest.raises(ConfigError, match="needs both"):
        load_settings(**half)


@pytest.mark.parametrize("field", ["small_model_api_key", "upstream_api_key"])
@pytest.mark.parametrize("key", ["sk-hunter2\n", "sk hunter2", "sk-hunter2é"])
def test_a_key_that_fits_no_header_is_refused_and_not_repeated(field, key):
    with pytest.raises(ConfigError, match=field) as caught:
        load_settings(**{field: key})
    assert "hunter2" not in caught.value.message


def test_a_wrong_key_is_not_repeated_in_the_message():
    with pytest.raises(ConfigError) as caught:
        load_settings(treasury_private_key="hunter2")
    assert "hunter2" not in caught.value.message


def test_a_key_in_the_place_of_an_address_is_not_repeated_either():
    with pytest.raises(ConfigError) as caught:
        load_settings(pay_to=KEY)
    assert KEY not in caught.value.message


def test_a_misspelt_argument_is_refused_by_name():
    with pytest.raises(ConfigError, match="prise"):
        load_settings(prise="0.5")


def test_everything_missing_is_named_at_once_with_what_to_do():
    with pytest.raises(ConfigError) as caught:
        load_settings().require_serving()
    for name in ("TREASURY_ADDRESS", "TINYBRAIN_FACILITATOR", "TREASURY_PRIVATE_KEY"):
        assert name in caught.value.message
    assert caught.value.message.count("Set it to") >= 3


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"facilitator": "own"}, "TINYBRAIN_GAS_PRIVATE_KEY"),
        ({"facilitator": "cdp"}, "CDP_API_KEY_ID"),
        ({"facilitator": "coinbase"}, "TINYBRAIN_FACILITATOR"),
        ({"facilitator": "https://x", "payment_timeout_s": 60}, "TINYBRAIN_PAYMENT_TIMEOUT_S"),
        ({"facilitator": "https://x", "network": "eip155:1"}, "TINYBRAIN_ASSET"),
    ],
)
def test_each_choice_names_what_it_needs(settings, named):
    with pytest.raises(ConfigError, match=named):
        load_settings(pay_to=ADDRESS, treasury_private_key=KEY, **settings).require_serving()


def test_an_upstream_with_an_api_key_needs_no_treasury_key():
    load_settings(
        pay_to=ADDRESS, facilitator="https://x.example", upstream_api_key="k"
    ).require_serving()

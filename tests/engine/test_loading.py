import pytest
import torch

from tinybrain.config import load_settings
from tinybrain.engine.loading import choose_device, load_tinychat
from tinybrain.errors import ConfigError


@pytest.fixture
def load(tmp_path):
    """Loads with settings, and closes at the end."""
    loaded = []

    def load(**settings):
        loaded.append(load_tinychat(load_settings(device="cpu", home=tmp_path, **settings)))
        return loaded[-1]

    yield load
    for model in loaded:
        model.close()


@pytest.mark.parametrize(
    ("precision", "told"), [("fp32", "float32"), ("16-bit", "fp16"), ("int8", "int8")]
)
def test_the_precision_is_a_setting(load, precision, told):
    model = load(precision=precision)
    assert told in model.precision
    model.warm_up()


def test_whatever_the_precision_it_is_the_same_model(load):
    exact, packed = load(precision="fp32"), load()
    assert (packed.parameters, packed.variant) == (exact.parameters, exact.variant)
    assert packed.checkpoint_hash == exact.checkpoint_hash


def test_a_tokenizer_of_another_model_is_refused(load, golden_files, tmp_path):
    for path in (golden_files.weights, golden_files.config, golden_files.tokenizer):
        (tmp_path / path.name).symlink_to(path)
    with pytest.raises(ConfigError, match="1024 tokens"):
        load(checkpoint=tmp_path)


def test_a_device_that_is_not_there_is_refused():
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="abacus"):
        choose_device("abacus")

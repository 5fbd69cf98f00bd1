"""Which architecture a checkpoint has, and what no file says of it."""

import typing

import pytest

from tinybrain.config import Settings
from tinybrain.engine.variants import V3, V4, V4_MARCH, V5, V6, VARIANTS, variant_of


def test_each_variant_can_be_named_in_the_settings():
    names, none = typing.get_args(Settings.model_fields["checkpoint_variant"].annotation)
    assert (typing.get_args(names), none) == (tuple(VARIANTS), type(None))


def test_each_golden_checkpoint_is_told_by_its_tensors(each):
    widths = {name: tensor.shape[-1] for name, tensor in each.model.state_dict().items()}
    found = variant_of(widths, has_windows=each.model.config.window_pattern is not None)
    assert found.name == ("V4" if each.variant == V4_MARCH.name else each.variant)


@pytest.mark.parametrize(
    ("variant", "context", "window"),
    [(V3, 2048, 1024), (V4, 256, 128), (V5, 2048, 768), (V6, 2048, 512), (V6, 256, 128)],
)
def test_a_short_window_is_nanochats(variant, context, window):
    assert variant.short_window(context) == window

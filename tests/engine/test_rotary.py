import pytest
import torch

from tinybrain.engine import rotary
from tinybrain.engine.gpt import rms_norm, rotary_table, rotate
from tinybrain.engine.rotary import RealRotary, Rotary


@pytest.mark.parametrize("way", ["native", "complex", "real"])
def test_it_rotates_and_norms_as_the_definition(each, way, monkeypatch):
    config, variant = each.model.config, each.model.variant
    if way == "complex":
        monkeypatch.setattr(rotary, "library", lambda: None)
    real = RealRotary(config, variant, torch.device("cpu"))
    turn, width = real if way == "real" else Rotary(config, variant), config.head_dim
    heads = torch.randn(2, 5, 3, width, generator=torch.Generator().manual_seed(1))
    positions = torch.tensor([[0, 1, 2, 3, 4], [90, 91, 92, 93, 94]])
    table = rotary_table(config, variant)[:, positions].unsqueeze(-2)
    expected = rms_norm(rotate(heads, table)) * variant.qk_scale
    adjacent = heads.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)
    found = turn(adjacent.clone(), positions).unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

import pytest
import torch

from tinybrain.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 128, 32), (2, 32, 128)])
def test_singular_values_become_about_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonal(matrices, torch.float32))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_a_step_goes_against_the_gradient():
    weights = [torch.nn.Parameter(torch.ones(8, 4)), torch.nn.Parameter(torch.ones(8, 4))]
    optimizer = Muon(weights, lr=0.1, dtype=torch.float32)
    loss = sum(weight.square().sum() for weight in weights)
    loss.backward()
    optimizer.step()
    assert sum(weight.square().sum() for weight in weights) < loss

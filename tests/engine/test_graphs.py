import torch

from tinybrain.engine.graphs import Graphs, Told, upload

CPU = torch.device("cpu")


def test_what_is_told_is_as_it_was_then():
    numbers = torch.tensor([[1.0, 2.0]])
    told = Told(numbers)
    numbers.zero_()
    assert told.read() == [[1.0, 2.0]]


def test_without_a_gpu_a_step_is_called_as_it_is():
    calls = []
    step = Graphs(CPU).capture(lambda: calls.append(1))
    assert not calls
    step()
    assert calls == [1]


def test_a_step_is_timed():
    assert 0 < Graphs(CPU).milliseconds(lambda: torch.ones(1000).sum()) < 1000


def test_without_a_gpu_an_upload_is_the_tensor():
    numbers = torch.ones(3)
    assert upload(numbers, CPU) is numbers

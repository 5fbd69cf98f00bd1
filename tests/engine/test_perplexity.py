import pytest
import torch

from tinybrain.engine.perplexity import CHUNK_ROWS, perplexity


@pytest.mark.parametrize("chunk", [1, 7, 199, CHUNK_ROWS, 1000])
def test_it_is_tinychats_for_any_chunk(each, chunk):
    found = perplexity(each.model.logits, each.hidden(each.ids), each.ids, chunk=chunk)
    assert found == pytest.approx(each.perplexity, rel=1e-5)


def test_no_more_logits_than_a_chunk_are_alive():
    calls = []

    def logits(hidden):
        calls.append(len(hidden))
        return torch.zeros(len(hidden), 50)

    ids = torch.zeros(301, dtype=torch.long)
    assert perplexity(logits, torch.zeros(301, 4), ids) == pytest.approx(50)
    assert calls == [128, 128, 44]


def test_one_token_has_none(golden_model):
    assert perplexity(golden_model.logits, torch.zeros(1, 64), torch.tensor([5])) is None

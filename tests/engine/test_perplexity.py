import math

import pytest
import torch

from tinybrain.engine.perplexity import CHUNK_ROWS, negative_log_likelihoods, perplexity


@pytest.mark.parametrize("chunk", [1, 7, 199, CHUNK_ROWS, 1000])
def test_it_is_tinychats_for_any_chunk(each, chunk):
    front = each.hidden(each.ids)[:-1]
    nll = negative_log_likelihoods(each.model.logits, front, each.ids[1:], chunk=chunk)
    assert perplexity(nll.tolist()) == pytest.approx(each.perplexity, rel=1e-5)


def test_no_more_logits_than_a_chunk_are_alive():
    calls = []

    def logits(hidden):
        calls.append(len(hidden))
        return torch.zeros(len(hidden), 50)

    ids = torch.zeros(300, dtype=torch.long)
    nll = negative_log_likelihoods(logits, torch.zeros(300, 4), ids)
    assert nll.tolist() == pytest.approx([math.log(50)] * 300)
    assert calls == [128, 128, 44]


def test_no_tokens_have_none():
    assert perplexity([]) is None

from dataclasses import asdict

import pytest
import torch

from tinybrain.engine.gpt import GPTConfig


def test_logits_equal_nanochats_own(each):
    logits = each.model.logits(each.hidden(each.ids)[each.positions])
    torch.testing.assert_close(logits, each.logits, atol=1e-4, rtol=0)


def test_greedy_continuation_without_a_cache_equals_nanochats(each):
    ids = each.ids
    for _ in range(32):
        token = each.model.logits(each.hidden(ids)[-1]).argmax()
        ids = torch.cat([ids, token[None]])
    assert ids[200:].tolist() == each.greedy


def test_greedy_continuation_with_a_cache_equals_nanochats(each, new_cache):
    cache, ids, greedy = new_cache(each.model, slots=1), each.ids[None], []
    before, start = 0, 0
    for _ in range(32):
        context = cache.rows(ids, slots=[0], starts=[start], before=[before])
        token = each.model.logits(each.model(ids, context)[0, -1]).argmax().item()
        start, before = start + ids.shape[1], ids[0, -1].item()
        ids = torch.tensor([[token]])
        greedy.append(token)
    assert greedy == each.greedy


@pytest.mark.parametrize(
    "change",
    [
        {"n_layer": 0},
        {"n_embd": 65},
        {"n_kv_head": 3},
        {"vocab_size": "512"},
        {"window_pattern": ""},
        {"window_pattern": "SSM"},
        {"window_pattern": ["S"]},
    ],
)
def test_a_config_that_cannot_be_is_refused(golden_model, change):
    fields = asdict(golden_model.config)
    with pytest.raises(ValueError, match=next(iter(change))):
        GPTConfig(**fields | change)

from dataclasses import asdict

import pytest
import torch

from tinybrain.engine.attention import WholeSequence
from tinybrain.engine.gpt import GPTConfig


def test_logits_equal_nanochats_own(golden_model, golden):
    ids = golden["ids"][None].long()
    hidden = golden_model(ids, WholeSequence(ids))[0, golden["positions"]]
    torch.testing.assert_close(golden_model.logits(hidden), golden["logits"], atol=2e-3, rtol=0)


def test_greedy_continuation_without_a_cache_equals_nanochats(golden_model, golden):
    ids = golden["ids"].tolist()
    for _ in range(32):
        row = torch.tensor([ids])
        hidden = golden_model(row, WholeSequence(row))[0, -1]
        ids.append(golden_model.logits(hidden).argmax().item())
    assert ids[200:] == golden["greedy"].tolist()


@pytest.mark.parametrize(
    "change", [{"n_layer": 0}, {"n_embd": 65}, {"n_kv_head": 3}, {"vocab_size": "512"}]
)
def test_a_config_that_cannot_be_is_refused(golden_model, change):
    fields = asdict(golden_model.config)
    with pytest.raises(ValueError, match=next(iter(change))):
        GPTConfig(**fields | change)

import pytest
import torch

from tinybrain.engine.attention import WholeSequence
from tinybrain.engine.gpt import GPT, GPTConfig
from tinybrain.engine.variants import V1
from tinybrain.training.rows import PackedRows, pack
from tinybrain.training.trainer import initialise

DOCUMENTS = [
    [(token, 1.0) for token in range(start, start + size)]
    for start, size in ((1, 9), (20, 5), (30, 3), (40, 12), (55, 4))
]


@pytest.fixture
def rows():
    return pack(DOCUMENTS, length=16, padding=0)


def test_every_document_is_in_one_row_whole(rows):
    found = [
        row[number == n].tolist()
        for row, number in zip(rows.ids, rows.documents, strict=True)
        for n in number.unique()
    ]
    assert all([token for token, _ in document] in found for document in DOCUMENTS)


def test_rows_have_one_length_and_padding_has_no_weight(rows):
    assert rows.ids.shape == rows.weights.shape == rows.documents.shape
    assert rows.ids.shape[1] == 17
    assert not rows.weights[rows.ids == 0].any()
    assert rows.weights.sum() == sum(map(len, DOCUMENTS))


def test_what_does_not_fit_a_row_is_left_out():
    rows = pack([[(1, 1.0)] * 18, [(2, 1.0)] * 17], length=16, padding=0)
    assert rows.ids.tolist() == [[2] * 17]


def test_a_document_in_a_row_is_computed_as_if_it_were_alone(rows):
    model = GPT(GPTConfig(32, 64, 3, 2, 2, 64), V1)
    initialise(model, seed=1)
    for block in model.transformer.h:
        torch.nn.init.normal_(block.attn.c_proj.weight, std=0.1)
    ids = rows.ids.long()
    with torch.inference_mode():
        packed = model(ids, PackedRows(ids, rows.documents))
        for row, numbers, hidden in zip(ids, rows.documents, packed, strict=True):
            for number in numbers.unique():
                alone = row[numbers == number][None]
                expected = model(alone, WholeSequence(alone))[0]
                torch.testing.assert_close(hidden[numbers == number], expected)

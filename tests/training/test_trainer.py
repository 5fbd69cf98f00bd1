import pytest
import torch

from tinybrain.errors import ConfigError
from tinybrain.training.recipe import Recipe
from tinybrain.training.rows import pack
from tinybrain.training.trainer import Trainer

TINY = Recipe(layers=2, width=64, context=64, row=32, batch=4, tokens=20 * 4 * 32)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def rows():
    documents = [[((n * 7 + i) % 50, 1.0) for i in range(9)] for n in range(120)]
    return pack(documents, length=TINY.row, padding=0)


def steps(trainer, count):
    return [trainer.step() for _ in range(count)]


def trainer_of(rows, recipe=TINY):
    return Trainer(recipe, rows, vocab_size=64, device=CPU)


def test_the_loss_falls(rows):
    trainer = trainer_of(rows)
    losses = steps(trainer, 20)
    assert losses[0] == pytest.approx(torch.tensor(64.0).log().item(), abs=0.01)
    assert losses[-1] < 0.7 * losses[0]
    assert trainer.progress == 1


def test_a_resumed_run_ends_with_the_same_weights_bit_by_bit(rows):
    whole, first, second = (trainer_of(rows) for _ in range(3))
    steps(whole, 20)
    steps(first, 9)
    second.load_state_dict(first.state_dict())
    steps(second, 11)
    assert second.counters.epoch == whole.counters.epoch > 0
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name


def test_too_few_rows_for_a_batch_are_refused(rows):
    few = rows.take(torch.arange(3))
    with pytest.raises(ValueError, match="3 rows are fewer than a batch of 4"):
        trainer_of(few)


def test_short_floats_learn_too(rows):
    short = Recipe(layers=2, width=64, context=64, row=32, batch=4, tokens=999_999)
    losses = steps(trainer_of(rows, short), 15)
    assert losses[-1] < losses[0]


def test_a_run_needs_a_budget():
    with pytest.raises(ConfigError, match="--tokens, --minutes"):
        Recipe()


def test_whichever_budget_is_spent_first_ends_the_run():
    recipe = Recipe(tokens=1000, minutes=10)
    assert recipe.progress(500, 60) == 0.5
    assert recipe.progress(500, 540) == 0.9


def test_learning_rates_rise_stay_and_fall_to_nothing():
    recipe = Recipe(tokens=1)
    assert recipe.lr_scale(0, 0) == pytest.approx(0.05)
    assert recipe.lr_scale(100, 0.2) == 1
    assert recipe.lr_scale(100, 1) == 0

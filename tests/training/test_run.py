import dataclasses
import io
import json

import pytest
import torch
from rich.console import Console

from tinybrain.engine.checkpoint import load_model
from tinybrain.engine.checkpoint_files import find_checkpoint
from tinybrain.engine.tokenizer_file import read_tokenizer
from tinybrain.errors import ConfigError
from tinybrain.training.conversations import write_conversations
from tinybrain.training.evaluation import summary
from tinybrain.training.packaging import package_model
from tinybrain.training.recipe import Recipe
from tinybrain.training.run import checkpoint_directory, load_rows, results_file, save, train
from tinybrain.training.tokens import write_nanochat_tokenizer
from tinybrain.training.trainer import Trainer

TINY = Recipe(layers=1, width=64, context=128, row=64, batch=2, tokens=6 * 2 * 64)
CPU = torch.device("cpu")


@pytest.fixture
def home(tmp_path, corpus, tokenizer_table):
    """A nanochat base directory with a corpus and a tokenizer."""
    write_conversations(corpus[:300], tmp_path / "conversations.jsonl")
    write_nanochat_tokenizer(tokenizer_table, tmp_path)
    return tmp_path


@pytest.fixture
def trainer_of(home):
    rows, vocab_size = load_rows(home / "conversations.jsonl", home, TINY)
    return lambda recipe: Trainer(recipe, rows, vocab_size=vocab_size, device=CPU)


def run(trainer, home, *, resume=False):
    screen = Console(file=io.StringIO())
    return train(trainer, checkpoint_directory(home, "d1"), resume=resume, console=screen)


def test_a_run_writes_what_the_engine_reads_as_a_nanochat_checkpoint(home, trainer_of):
    trainer = trainer_of(TINY)
    path = run(trainer, home)
    assert path.name == "model_000006.pt"
    files = find_checkpoint(checkpoint=None, nanochat_base_dir=home, source="sft", step=None)
    model = load_model(files, CPU)
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight.bfloat16().float()), name


def test_a_run_goes_on_where_it_was_saved(home, trainer_of):
    whole, half = trainer_of(TINY), trainer_of(TINY)
    while whole.progress < 1:
        whole.step()
    half.step()
    directory = checkpoint_directory(home, "d1")
    directory.mkdir(parents=True)
    save(half, directory)
    rest = trainer_of(TINY)
    run(rest, home, resume=True)
    assert rest.counters.step == whole.counters.step
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, rest.model.state_dict()[name]), name


def test_a_run_of_another_recipe_is_not_resumed(home, trainer_of):
    run(trainer_of(TINY), home)
    other = dataclasses.replace(TINY, matrix_lr=0.5)
    with pytest.raises(ConfigError, match="another matrix_lr"):
        run(trainer_of(other), home, resume=True)


def test_a_run_is_not_begun_over_another(home, trainer_of):
    run(trainer_of(TINY), home)
    with pytest.raises(ConfigError, match="--resume"):
        run(trainer_of(TINY), home)


def test_without_a_saved_run_there_is_nothing_to_resume(home, trainer_of):
    with pytest.raises(ConfigError, match="Start the run without --resume"):
        run(trainer_of(TINY), home, resume=True)


def test_without_a_corpus_the_error_says_how_to_make_it(tmp_path, home):
    with pytest.raises(ConfigError, match=r"tinybrain\.training corpus"):
        load_rows(tmp_path / "none.jsonl", home, TINY)


def test_a_packaged_model_is_the_trained_one_with_a_card(home, trainer_of, tmp_path):
    trainer, out = trainer_of(TINY), tmp_path / "shipped"
    run(trainer, home)
    checkpoint = checkpoint_directory(home, "d1")
    files = find_checkpoint(checkpoint=checkpoint, nanochat_base_dir=None, source="sft", step=None)
    results_file(home, files.digest()).write_text(json.dumps(summary([])))
    package_model(home, "d1", out)
    files = find_checkpoint(checkpoint=out, nanochat_base_dir=None, source="sft", step=None)
    model = load_model(files, CPU)
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight.bfloat16().float()), name
    assert read_tokenizer(files.tokenizer) == read_tokenizer(home / "tokenizer/tokenizer.pkl")
    card = (out / "MODEL_CARD.md").read_text()
    assert f"{sum(p.numel() for p in trainer.model.parameters()):,} parameters" in card
    assert "WordNet 3.0 licence" in card
    assert "$" not in card


def test_a_model_that_was_not_evaluated_is_not_packaged(home, trainer_of, tmp_path):
    run(trainer_of(TINY), home)
    with pytest.raises(ConfigError, match=r"tinybrain\.training evaluate"):
        package_model(home, "d1", tmp_path / "shipped")

"""`python -m tinybrain.training`: corpus, tokenizer, train, evaluate, package, in this order.

Commands import what they need when they run: making a corpus needs no torch.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from tinybrain.errors import TinyBrainError

app = typer.Typer(
    help="How the model that ships is made. See docs/training.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Home = Annotated[Path, typer.Option(help="nanochat's base directory; all is kept in it.")]
Tag = Annotated[str, typer.Option(help="Name of the checkpoint's directory; nanochat's are d6.")]
Seed = Annotated[int, typer.Option(help="What is withheld, and in which order what is learned.")]
Device = Annotated[str, typer.Option(help="cuda, mps, cpu, or auto for the first there is.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads; torch's own choice if not given.")]

HOLD_BACK_TOKENS = 8
DEFAULT_HOME = Path(".tinybrain/training")


@app.command()
def corpus(
    home: Home = DEFAULT_HOME,
    wordnet: Annotated[Path, typer.Option(help="Folder of WordNet's files.")] = Path(
        "/usr/share/wordnet"
    ),
    scale: Annotated[float, typer.Option(help="How much text; 1 is some 4 million tokens.")] = 1,
    seed: Seed = 1,
) -> None:
    """Write the training text, and the questions that measure what comes of it.

    Those to calibrate with are in new wordings, which is how callers ask, and ask a fact once.
    """
    from tinybrain.routing.calibration.questions import write_questions
    from tinybrain.training.conversations import write_conversations
    from tinybrain.training.corpus import Mixture, build_corpus
    from tinybrain.training.knowledge import Knowledge, all_facts
    from tinybrain.training.questions import build_questions

    knowledge = Knowledge(all_facts(wordnet), seed=seed)
    conversations = build_corpus(knowledge, Mixture(scale=scale))
    questions = list(build_questions(knowledge))
    home.mkdir(parents=True, exist_ok=True)
    write_conversations(conversations, home / "conversations.jsonl")
    write_questions(home / "questions.jsonl", questions)
    new = [question for question in questions if question.wording == "new"]
    write_questions(home / "calibration.jsonl", new)
    typer.echo(f"{len(conversations):,} conversations and {len(questions):,} questions in {home}")


@app.command()
def tokenizer(
    home: Home = DEFAULT_HOME,
    vocab_size: Annotated[int, typer.Option(help="Tokens, nine special ones among them.")] = 4096,
) -> None:
    """Train the tokenizer on the corpus."""
    from tinybrain.training.conversations import read_conversations
    from tinybrain.training.tokens import train_tokenizer, write_nanochat_tokenizer

    texts = (
        text
        for conversation in read_conversations(home / "conversations.jsonl")
        for exchange in conversation
        for text in (exchange.user, exchange.answer)
    )
    write_nanochat_tokenizer(train_tokenizer(texts, vocab_size=vocab_size), home)
    typer.echo(f"{vocab_size:,} tokens in {home / 'tokenizer'}")


@app.command()
def train(
    home: Home = DEFAULT_HOME,
    tag: Tag = "d6",
    minutes: Annotated[float | None, typer.Option(help="Train for so long.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Train on so many tokens.")] = None,
    layers: Annotated[int, typer.Option(help="Layers of the model.")] = 6,
    width: Annotated[int, typer.Option(help="Its width, a multiple of 64.")] = 320,
    row: Annotated[int, typer.Option(help="Tokens of a training row.")] = 256,
    batch: Annotated[int, typer.Option(help="Rows of a batch; some 256 on a GPU.")] = 16,
    seed: Seed = 1,
    device: Device = "auto",
    threads: Threads = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Also on a CPU; see the docs.")] = False,
    compile_model: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last save.")] = False,
) -> None:
    """Train the model, until the tokens or the minutes are spent."""
    import torch

    from tinybrain.engine.loading import choose_device
    from tinybrain.training.recipe import Recipe
    from tinybrain.training.run import checkpoint_directory, load_rows
    from tinybrain.training.run import train as run
    from tinybrain.training.trainer import Trainer

    if threads:
        torch.set_num_threads(threads)
    target = choose_device(device)
    recipe = Recipe(
        layers=layers,
        width=width,
        row=row,
        batch=batch,
        seed=seed,
        short_floats=bf16 or target.type == "cuda",
        compile=compile_model,
        tokens=tokens,
        minutes=minutes,
    )
    rows, vocab_size = load_rows(home / "conversations.jsonl", home, recipe)
    typer.echo(f"{len(rows):,} rows of {row} tokens")
    trainer = Trainer(recipe, rows, vocab_size=vocab_size, device=target)
    typer.echo(f"Model in {run(trainer, checkpoint_directory(home, tag), resume=resume)}")


@app.command()
def evaluate(
    home: Home = DEFAULT_HOME,
    tag: Tag = "d6",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Directory of a checkpoint, instead of --tag.")
    ] = None,
    every: Annotated[int, typer.Option(help="Ask about one of so many, and keep nothing.")] = 1,
    at_once: Annotated[int, typer.Option(help="Questions answered together.")] = 16,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Ask all questions, print the table, and keep answers and shares for the model card."""
    import asyncio

    import torch

    from tinybrain.config import load_settings
    from tinybrain.engine.loading import load_tinychat
    from tinybrain.routing.calibration.assembly import checkpoint_of
    from tinybrain.routing.calibration.collecting import draft_all
    from tinybrain.routing.calibration.questions import read_questions
    from tinybrain.training.chance import rank
    from tinybrain.training.evaluation import markdown, summary
    from tinybrain.training.run import checkpoint_directory, results_file

    if threads:
        torch.set_num_threads(threads)
    questions = [
        q for q in read_questions(home / "questions.jsonl") if rank(0, q.text) % every == 0
    ]
    directory = checkpoint or checkpoint_directory(home, tag)
    settings = load_settings(checkpoint=directory, device=device, home=home)
    model = load_tinychat(settings, slots=at_once)
    steps = iter(track(questions, description="asking"))
    try:
        answered = asyncio.run(
            draft_all(
                model,
                questions,
                hold_back_tokens=HOLD_BACK_TOKENS,
                at_once=at_once,
                done=lambda _: next(steps),
            )
        )
    finally:
        model.close()
    result = summary(answered)
    typer.echo(markdown(result))
    if every > 1:
        return
    out = results_file(home, checkpoint_of(settings).digest())
    answers = [
        {"question": one.question.text, "answer": one.answer, "right": one.is_right}
        for one in answered
    ]
    document = json.dumps({**result, "answers": answers}, indent=1, ensure_ascii=False)
    out.write_text(document + "\n", encoding="utf-8")
    typer.echo(out)


@app.command()
def package(
    out: Annotated[Path, typer.Argument(help="Directory of the model that ships.")],
    home: Home = DEFAULT_HOME,
    tag: Tag = "d6",
) -> None:
    """Write the checkpoint without pickles, in bf16, with its model card."""
    from tinybrain.training.packaging import package_model

    package_model(home, tag, out)
    typer.echo(f"Packaged in {out}")


def main() -> None:
    """Run the command; errors meant for people are told without a traceback."""
    try:
        app()
    except TinyBrainError as error:
        typer.echo(error.message, err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

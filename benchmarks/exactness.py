"""What each precision does to the trained model that ships, against its definition in fp32.

Over conversations whose answers the fp32 model gave itself: the ratio of perplexities, the share of
positions at which the likeliest token is the same, and the share of answers that come out the same
to the last token when each precision answers greedily.
"""

import math
from collections.abc import Sequence

import torch
from latency import Row
from torch import Tensor

from tinybrain.chat import Message
from tinybrain.engine.attention import WholeSequence
from tinybrain.engine.checkpoint import load_model, read_checkpoint
from tinybrain.engine.checkpoint_files import find_checkpoint
from tinybrain.engine.fast_gpt import FastGPT
from tinybrain.engine.model import Model
from tinybrain.engine.precision import choose_kind
from tinybrain.engine.rendering import render
from tinybrain.engine.serving_weights import FromCheckpoint
from tinybrain.engine.tokenizer import Tokenizer
from tinybrain.engine.tokenizer_file import read_tokenizer

ANSWER = 64
QUESTIONS = (
    "Hello, who are you?",
    "What is the capital of Japan?",
    "What is the capital of Australia?",
    "How many legs does a spider have?",
    "What is 12 plus 30?",
    "What colour is the sky on a clear day?",
    "What does a bee make?",
    "Who wrote Hamlet?",
    "What is the opposite of hot?",
    "Name a fruit that is yellow.",
    "How many days are in a week?",
    "What is the largest ocean?",
    "Tell me something about the moon.",
    "What is water made of?",
    "Thank you, goodbye!",
    "Write a sentence about a fox.",
)


def exactness() -> list[Row]:
    """A row for each precision but fp32."""
    files = find_checkpoint(checkpoint=None, nanochat_base_dir=None, source="sft", step=None)
    tokenizer = Tokenizer(read_tokenizer(files.tokenizer))
    reference = load_model(files, torch.device("cpu"))
    prompts = [render(tokenizer, [Message("user", question)]) for question in QUESTIONS]
    answered = [_greedy(reference, prompt) for prompt in prompts]
    rows = []
    for precision in ("16-bit", "int8"):
        kind = choose_kind(precision)
        model = FastGPT(FromCheckpoint(read_checkpoint(files), kind), kind)
        expected = [_logits(reference, ids) for ids in answered]
        found = [_logits(model, ids) for ids in answered]
        pairs = list(zip(found, expected, strict=True))
        agree = torch.cat([f.argmax(-1) == e.argmax(-1) for f, e in pairs])
        same = [_greedy(model, p) == a for p, a in zip(prompts, answered, strict=True)]
        rows.append(
            {
                "precision": f"{precision} ({kind.name})",
                "perplexity ratio": round(
                    _perplexity(found, answered) / _perplexity(expected, answered), 5
                ),
                "likeliest token agrees": f"{agree.float().mean():.2%} of {len(agree)}",
                "answers equal": f"{sum(same)} of {len(same)}",
                "largest logit difference": round(
                    max((f - e).abs().max().item() for f, e in pairs), 3
                ),
            }
        )
    return rows


def _greedy(model: Model, prompt: Sequence[int]) -> list[int]:
    ids = list(prompt)
    for _ in range(ANSWER):
        ids.append(int(_logits(model, ids)[-1].argmax()))
    return ids


def _logits(model: Model, ids: Sequence[int]) -> Tensor:
    rows = torch.tensor([ids])
    return model.logits(model(rows, WholeSequence(rows))[0])


def _perplexity(logits: Sequence[Tensor], texts: Sequence[Sequence[int]]) -> float:
    nll = torch.cat(
        [
            torch.nn.functional.cross_entropy(rows[:-1], torch.tensor(ids[1:]), reduction="none")
            for rows, ids in zip(logits, texts, strict=True)
        ]
    )
    return math.exp(nll.mean())

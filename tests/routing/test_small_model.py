"""The small model that the settings ask for can be asked; tests/devnet has one behind an API."""

from tinybrain.chat import Finished, Message, Prefilled, Sampling, Token
from tinybrain.config import load_settings
from tinybrain.routing.small_model import open_small_model


async def test_without_a_url_it_is_tinychat_and_its_engine_ends_with_it():
    async with open_small_model(load_settings(device="cpu")) as model:
        events = [e async for e in model.generate([Message("user", "Hi")], Sampling(2))]
        assert [type(event) for event in events] == [Prefilled, Token, Token, Finished]
    assert not model.engine.alive

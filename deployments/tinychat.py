"""TinyChat: one engine a replica, autoscaled on the requests under way."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.streams import batches, flatten
from tinybrain.chat import LocalEvent, Message, Sampling
from tinybrain.config import Settings
from tinybrain.errors import LocalModelError
from tinybrain.routing.calibration.assembly import open_router


class TinyChatReplica:
    """Holds the model; every request is a stream."""

    def __init__(self, settings: Settings) -> None:
        # torch is heavy, and the ingress imports this module too
        from tinybrain.engine.loading import load_tinychat  # noqa: PLC0415

        self._model = load_tinychat(settings)
        if router := open_router(settings):
            router.require(self._model.checkpoint_hash)
        self._model.warm_up()

    def check_health(self) -> None:
        """Replace this replica if its engine has ended."""
        if not self._model.engine.alive:
            raise RuntimeError("the engine has ended")

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[list[LocalEvent], None]:
        """LocalModel.generate, in batches."""
        async for batch in batches(self._model.generate(messages, sampling)):
            yield batch


TinyChat = serve.deployment(name="TinyChat", health_check_period_s=5)(TinyChatReplica)


class RemoteTinyChat:
    """The LocalModel protocol over a handle."""

    name = "tinychat"

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._generate = handle.options(stream=True).generate

    def generate(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[LocalEvent, None]:
        """See LocalModel."""
        return flatten(self._generate.remote(messages, sampling), LocalModelError, "TinyChat")

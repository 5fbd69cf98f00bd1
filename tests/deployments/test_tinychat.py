"""A replica refuses what does not belong to its checkpoint."""

import importlib.resources
import json

import pytest

from deployments.tinychat import TinyChatReplica
from tinybrain.config import load_settings
from tinybrain.errors import ConfigError


def test_a_router_of_another_checkpoint_is_refused(tmp_path):
    shipped = importlib.resources.files("tinybrain") / "models" / "tinychat-10m" / "router.json"
    router = json.loads(shipped.read_text()) | {"checkpoint": "0" * 16, "report": None}
    (tmp_path / "router.json").write_text(json.dumps(router))
    with pytest.raises(ConfigError, match="of the checkpoint 0000000000000000"):
        TinyChatReplica(load_settings(router=tmp_path / "router.json", device="cpu", home=tmp_path))

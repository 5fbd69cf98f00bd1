"""What the ingress joins; the whole of it runs in tests/e2e."""

from deployments.ingress import _PaymentIngress
from tinybrain.config import load_settings


async def test_where_no_tinychat_is_bound_the_small_model_is_the_one_behind_an_api():
    settings = load_settings(small_model_url="https://api.example/v1", small_model_name="small")
    async with _PaymentIngress(settings, None, None, None)._open_small_model() as model:
        assert model.name == "small"

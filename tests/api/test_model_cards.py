"""A model card tells what lies beside the checkpoint, and no more than is known."""

from tests.routing.calibration.worlds import router, world
from tinybrain.api.model_cards import ModelCard
from tinybrain.config import load_settings
from tinybrain.routing.calibration.assembly import checkpoint_of
from tinybrain.routing.calibration.measuring import Prices, calibrate


def test_the_shipped_model_has_one():
    card = ModelCard.read(load_settings())
    assert card.checkpoint == checkpoint_of(load_settings()).digest()
    assert card.parameters > 1_000_000
    assert card.card.startswith("# ")


def test_without_router_and_card_the_checkpoint_is_told(bare_checkpoint):
    card = ModelCard.read(load_settings(checkpoint=bare_checkpoint))
    assert card.checkpoint == checkpoint_of(load_settings()).digest()
    assert (card.card, card.calibration) == (None, None)


def test_a_machine_without_the_checkpoint_tells_what_the_router_knows(tmp_path):
    made = calibrate(world(), [], fit=router, prices=Prices(10_000, 1_000), seed=0)
    made.write(tmp_path / "router.json")
    settings = load_settings(checkpoint=tmp_path / "none", router=tmp_path / "router.json")
    assert ModelCard.read(settings) == ModelCard(
        checkpoint=made.checkpoint, calibration=made.report.model_dump(mode="json")
    )


def test_a_card_that_is_too_long_is_not_read(bare_checkpoint):
    (bare_checkpoint / "MODEL_CARD.md").write_text("#" * 200_001)
    assert ModelCard.read(load_settings(checkpoint=bare_checkpoint)).card is None

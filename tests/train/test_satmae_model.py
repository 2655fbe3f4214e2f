"""SatMAE: hand-computed losses and codes, symmetries that must hold, sizes never trained on, configurations refused."""

import dataclasses
from typing import Any

import pytest
import torch

from pipeline.errors import BandMismatch, UsageError
from train.models.masking import consistent_mask, mask_from_noise
from train.models.positions import wave_code
from train.models.satmae import Satmae, token_codes
from train.models.satmae_classifier import SatmaeClassifier
from train.models.satmae_config import SatmaeConfig
from train.models.satmae_target import masked_error, target, to_band_order, to_image
from train.models.upscale import pyramid

pytestmark = pytest.mark.train
SMALL: dict[str, Any] = {
    "encoder_dim": 32,
    "depth": 2,
    "heads": 4,
    "decoder_dim": 16,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "image_px": 16,
    "patch": 4,
    "slot_dim": 8,
    "decoder_slot_dim": 4,
}
GROUP = SatmaeConfig(bands=("B02", "B05", "B08", "B11"), groups=(("B08", "B02"), ("B11", "B05")), **SMALL)
TEMPORAL = SatmaeConfig(variant="temporal", bands=("B04", "B03"), frames=3, **{**SMALL, "decoder_slot_dim": 4})
PLAIN = SatmaeConfig(variant="plain", bands=("B04", "B03", "B02"), **SMALL)
CONFIGS = {"group": GROUP, "temporal": TEMPORAL, "plain": PLAIN}


def batch(config: SatmaeConfig, rows: int = 3, *, side: int | None = None, frames: int | None = None) -> dict[str, Any]:
    torch.manual_seed(1)
    lead = (frames or config.frames,) if config.variant == "temporal" else ()
    size = side or config.image_px * 2**config.upscales
    dates = torch.stack([torch.tensor([2015 + t, 1 + 3 * t, 10 + t]) for t in range(lead[0])]) if lead else None
    return {
        "images": torch.rand(rows, *lead, len(config.bands), size, size),
        "noise": torch.rand(rows, config.noise_count),
        "dates_BT3": None if dates is None else dates.expand(rows, -1, -1),
    }


def model_of(config: SatmaeConfig) -> Satmae:
    torch.manual_seed(0)
    return Satmae(config).eval()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("changes", [{}, {"consistent": True}, {"norm_pix": True}, {"mode": "official"}], ids=str)
def test_every_parameter_learns(name: str, changes: dict[str, Any]) -> None:
    model = model_of(dataclasses.replace(CONFIGS[name], **changes))
    given = batch(model.config)
    losses = model(given.pop("images"), **given)
    assert losses.total.item() == losses.parts["mae"].item()
    losses.total.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_group_loss_by_hand() -> None:
    """reference/satmae.md, section 10, number 7: one place, one pixel, groups [0, 2] and [1]."""
    names = ("a", "b", "c")
    config = dataclasses.replace(GROUP, bands=names, groups=(("a", "c"), ("b",)), image_px=2, patch=1)
    image = torch.tensor([10.0, 20.0, 30.0]).reshape(1, 3, 1, 1)
    order = torch.tensor([10.0, 30.0, 20.0]).reshape(1, 3, 1, 1)
    for removed, wanted in (((1, 1), 75), ((1, 0), 50), ((0, 1), 100)):
        mask = torch.tensor([removed], dtype=torch.bool)
        assert masked_error(order, image, mask, config=config) == wanted
        assert masked_error(to_band_order(order, config.group_positions), image, mask, config=config) == 0


def test_patch_order_by_hand() -> None:
    """Number 8: a 4 x 4 image that counts, patches of 2."""
    count = torch.arange(48.0).reshape(1, 3, 4, 4)
    group = dataclasses.replace(GROUP, bands=("a", "b"), groups=(("a", "b"),), image_px=4, patch=2)
    assert target(count[:, :2], group)[0, :, 0].flatten().tolist() == [0, 1, 4, 5, 16, 17, 20, 21]
    plain = dataclasses.replace(PLAIN, image_px=4, patch=2)
    assert target(count, plain)[0, 0].tolist() == [0, 16, 32, 1, 17, 33, 4, 20, 36, 5, 21, 37]


def test_date_code_by_hand() -> None:
    """Number 3: March 2015, 15 h."""
    code = wave_code(torch.tensor([[2015, 3, 15]]) - torch.tensor([2002, 1, 0]), width=4)[0]
    wanted = [
        *([0.420167, 0.129634, 0.907447, 0.991562], [0.909297, 0.019999, -0.416147, 0.9998]),
        [0.650288, 0.149438, -0.759688, 0.988771],
    ]
    torch.testing.assert_close(code, torch.tensor(wanted), atol=1e-6, rtol=0)


def test_masks_by_hand() -> None:
    """Numbers 4 to 6."""
    mask = mask_from_noise(torch.tensor([[0.7, 0.1, 0.5, 0.3, 0.9, 0.2, 0.8, 0.4]]), ratio=0.75)
    assert mask.keep_ids_BK.tolist() == [[1, 5]]
    assert mask.removed_BL.int().tolist() == [[1, 0, 1, 1, 1, 0, 1, 1]]
    assert mask.restore_ids_BL.tolist() == [[5, 0, 4, 2, 7, 1, 6, 3]]
    noise = torch.tensor([[0.6, 0.2, 0.9, 0.4]])
    assert consistent_mask(noise, slots=3, ratio=0.5).keep_ids_BK.tolist() == [[1, 3, 5, 7, 9, 11]]
    assert consistent_mask(noise, slots=3, ratio=0.65, kept=4).keep_ids_BK.tolist() == [[1, 5, 9, 3]]
    assert consistent_mask(noise, slots=3, ratio=0.65).keep_ids_BK.tolist() == [[1, 5, 9]]


def test_a_consistent_mask_is_the_same_in_every_slot() -> None:
    for config in (GROUP, TEMPORAL):
        model = model_of(dataclasses.replace(config, consistent=True, mask_ratio=0.6))
        removed = model.mask(batch(model.config)["noise"]).removed_BL.unflatten(1, (config.slots, -1))
        assert (removed == removed[:, :1]).all()


def test_codes_tell_slots_and_places_apart() -> None:
    model = model_of(GROUP)
    codes = token_codes(torch.arange(32)[None], model.pos_embed[0, 1:], model.channel_embed)[0]
    assert len(torch.unique(codes, dim=0)) == 32
    assert torch.equal(codes[3, :24], codes[19, :24])
    assert torch.equal(codes[3, 24:], codes[5, 24:])


def test_renaming_and_reordering_bands_changes_nothing() -> None:
    """Bands are names: the same groups on an image whose bands lie otherwise, with the same weights."""
    ours, other = model_of(GROUP), model_of(dataclasses.replace(GROUP, bands=("B11", "B08", "B05", "B02")))
    given = batch(GROUP)
    images = given.pop("images")
    torch.testing.assert_close(ours(images, **given).total, other(images[:, [3, 2, 1, 0]], **given).total)


def test_frames_in_another_order_give_permuted_features() -> None:
    model, given = model_of(TEMPORAL), batch(TEMPORAL)
    order = [2, 0, 1]
    plain = model.encode(given["images"], given["dates_BT3"])
    swapped = model.encode(given["images"][:, order], given["dates_BT3"][:, order])
    torch.testing.assert_close(swapped["encodings"], plain["encodings"][:, order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(swapped["pooled"], plain["pooled"], atol=1e-5, rtol=1e-5)


def test_dates_matter() -> None:
    model, given = model_of(TEMPORAL), batch(TEMPORAL)
    later = given["dates_BT3"] + torch.tensor([0, 5, 0])
    assert (
        model.encode(given["images"], later)["cls"] - model.encode(given["images"], given["dates_BT3"])["cls"]
    ).any()


@pytest.mark.parametrize("name", CONFIGS)
def test_features_of_larger_rectangles_and_longer_stacks(name: str) -> None:
    model = model_of(CONFIGS[name])
    given = batch(model.config, side=32, frames=5)
    out = model.encode(given["images"][..., :24], given["dates_BT3"])
    slots = {"group": 2, "temporal": 5, "plain": 1}[name]
    assert out["encodings"].shape == (3, slots, 8 * 6, 32)
    torch.testing.assert_close(out["pooled"], out["encodings"].flatten(1, 2).mean(1))


def test_the_encoder_is_the_classifier_without_its_class_code() -> None:
    """At mask ratio 0 the class token is that of the fine-tuning encoder with the same norm."""
    for config in CONFIGS.values():
        model = model_of(config)
        other = SatmaeClassifier(config, classes=5, pool="cls").eval()
        other.load_state_dict(model.state_dict(), strict=False)
        given = batch(config)
        found = other.features(given["images"], given["dates_BT3"])
        torch.testing.assert_close(
            found, model.encode(given["images"], given["dates_BT3"])["cls"], atol=1e-5, rtol=1e-5
        )


def test_drop_path_acts_in_training_only() -> None:
    torch.manual_seed(0)
    model = SatmaeClassifier(PLAIN, classes=5, drop_path=0.9)
    torch.nn.init.normal_(model.head.weight)
    images = batch(PLAIN, rows=8)["images"]
    assert torch.equal(model.eval()(images), model(images))
    assert not torch.allclose(model.train()(images), model.eval()(images))
    assert [block.drop_path for block in model.blocks] == pytest.approx([0, 0.9])


def test_visible_patches_have_no_gradient() -> None:
    model, given = model_of(PLAIN), batch(PLAIN)
    mask = model.mask(given["noise"])
    predicted = model.decode(model.encode_visible(given["images"], mask), mask).detach().requires_grad_()
    model.losses(predicted, (given["images"],), mask).total.backward()
    per_token = predicted.grad.abs().sum(-1)
    assert (per_token[~mask.removed_BL] == 0).all()
    assert (per_token[mask.removed_BL] > 0).all()


def test_half_batches_average_to_the_whole() -> None:
    """Ranks keep equally many tokens, so that the mean of their losses is the global batch's."""
    for config in CONFIGS.values():
        model, given = model_of(config), batch(config, rows=4)
        images, noise, dates = given["images"], given["noise"], given["dates_BT3"]
        halves = [
            model(images[rows], noise=noise[rows], dates_BT3=None if dates is None else dates[rows]).total
            for rows in (slice(0, 2), slice(2, 4))
        ]
        torch.testing.assert_close(sum(halves) / 2, model(images, noise=noise, dates_BT3=dates).total)


def test_patches_and_images_are_inverse() -> None:
    for config in (GROUP, PLAIN):
        images = batch(config)["images"]
        torch.testing.assert_close(to_image(target(images, config), config), images)


@pytest.mark.parametrize("upscales", [1, 2])
@pytest.mark.parametrize("config", [GROUP, PLAIN], ids=["group", "plain"])
def test_larger_reconstructions(config: SatmaeConfig, upscales: int) -> None:
    model = model_of(dataclasses.replace(config, upscales=upscales))
    given = batch(model.config)
    losses = model(given.pop("images"), **given)
    names = ["l1_2x", "l1_4x"][:upscales]
    assert list(losses.parts) == ["mae", *names]
    wanted = 0.6 * losses.parts["mae"] + 0.4 * sum(losses.parts[name] for name in names) / upscales
    torch.testing.assert_close(losses.total.detach(), wanted)
    losses.total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_pyramid_halves_by_means() -> None:
    small, middle, large = pyramid(torch.arange(16.0).reshape(1, 1, 4, 4), 2)
    assert large.shape[-1] == 4
    assert middle.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert small.item() == 7.5
    with pytest.raises(UsageError, match="halved"):
        pyramid(torch.zeros(1, 1, 6, 6), 2)


def test_bf16_is_close() -> None:
    for config in CONFIGS.values():
        model, given = model_of(config), batch(config)
        images = given.pop("images")
        with torch.autocast("cpu", torch.bfloat16):
            low = model(images, **given).total
        assert low.dtype == torch.float32
        torch.testing.assert_close(low, model(images, **given).total, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": (("B08", "B02"), ("B11",))},
        {"groups": (("B08", "B02"), ("B11", "B05", "B02"))},
        {"bands": ("B02", "B02", "B08", "B11")},
        {"slot_dim": 30},
        {"slot_dim": 32},
        {"mask_ratio": 0.0},
        {"image_px": 18},
        {"upscales": 3},
        {"depth": 0},
        {"heads": 5},
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((UsageError, BandMismatch)):
        Satmae(dataclasses.replace(GROUP, **changes))


def test_wrong_inputs_are_told() -> None:
    model, given = model_of(TEMPORAL), batch(TEMPORAL)
    with pytest.raises(UsageError, match="dates"):
        model(given["images"], noise=given["noise"])
    with pytest.raises(UsageError, match="shapes"):
        model(given["images"][..., :12, :12], noise=given["noise"], dates_BT3=given["dates_BT3"])
    with pytest.raises(UsageError, match="dates"):
        model_of(GROUP).encode(batch(GROUP)["images"], given["dates_BT3"])


def test_weights_go_round() -> None:
    for config in CONFIGS.values():
        first, second = model_of(config), Satmae(config)
        second.load_state_dict(first.state_dict())
        assert all(torch.equal(second.state_dict()[name], x) for name, x in first.state_dict().items())


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_stays_on_another_device(name: str) -> None:
    """The meta device refuses to meet the CPU as a GPU does, and needs no hardware."""
    model, given = model_of(CONFIGS[name]).to("meta"), batch(CONFIGS[name])
    moved = {key: None if value is None else value.to("meta") for key, value in given.items()}
    assert model(**moved).total.device.type == "meta"
    assert model.encode(moved["images"], moved["dates_BT3"])["cls"].device.type == "meta"

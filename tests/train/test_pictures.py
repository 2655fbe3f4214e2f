"""Pictures: hidden is grey, visible is the input, and what is called hidden is exactly what the model does not see."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.bands import S1_NAMES, S2_NAMES
from train.batch import Batch
from train.models import satmae_target
from train.models.blocks import patchify, unpatchify
from train.models.croma import Croma, CromaConfig, reconstruction_target
from train.models.satmae import Satmae
from train.models.satmae_config import SatmaeConfig
from train.objective import croma_noises
from train.pictures import GREY, Reconstruction, colours, draw, paint, reconstruct
from train.stream.config import StreamConfig
from train.stream.normalise import Constants, denormalise, normalise

pytestmark = pytest.mark.train
PX, PATCH, ROWS = 16, 4, 3
CROMA = CromaConfig(encoder_dim=16, depth=2, heads=2, patch=PATCH, image_px=PX, decoder_dim=16, decoder_heads=2)
BANDS = ("B02", "B03", "B05", "B04")
SMALL: dict[str, Any] = {
    "bands": BANDS, "image_px": PX, "patch": PATCH, "encoder_dim": 32, "depth": 1, "heads": 2, "decoder_dim": 16,
    "decoder_depth": 1, "decoder_heads": 2, "slot_dim": 8, "decoder_slot_dim": 4,
}  # fmt: skip
GROUP = SatmaeConfig(groups=(("B04", "B02"), ("B05", "B03")), **SMALL)
SATMAES = {
    "group": GROUP,
    "group-normed": dataclasses.replace(GROUP, norm_pix=True),
    "group-official": dataclasses.replace(GROUP, mode="official"),
    "consistent": dataclasses.replace(GROUP, consistent=True),
    "plain": SatmaeConfig(variant="plain", norm_pix=True, **SMALL),
    "temporal": SatmaeConfig(variant="temporal", frames=2, norm_pix=True, **SMALL),
}


def batch_of(images: dict[str, Tensor], *, frames: int | None = None) -> Batch:
    ids = torch.arange(ROWS)
    dates = None if frames is None else torch.tensor([[[2020 + t, 3, 12] for t in range(frames)]] * ROWS)
    return Batch(
        images=images,
        dates_BT3=dates,
        keys=("",) * ROWS,
        hashes_B=torch.zeros(0, dtype=torch.int64),
        sample_ids_B=ids,
        epochs_B=ids * 0,
        valid_B=ids >= 0,
    )


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def pair(seed: int = 0) -> dict[str, Tensor]:
    return {"s1": noise(ROWS, 2, PX, PX, seed=seed), "s2": noise(ROWS, 12, PX, PX, seed=seed + 1)}


def satmae(name: str) -> tuple[Satmae, Batch]:
    config = SATMAES[name]
    frames = config.frames if config.variant == "temporal" else None
    shape = (ROWS, len(BANDS), PX, PX) if frames is None else (ROWS, frames, len(BANDS), PX, PX)
    torch.manual_seed(0)
    return Satmae(config).eval(), batch_of({"s2": noise(*shape)}, frames=frames)


@pytest.mark.parametrize("height", [8, 20])
def test_patches_go_back(height: int) -> None:
    image = noise(2, 3, height, 12)
    assert torch.equal(unpatchify(patchify(image, 4), 4, columns=3), image)


@pytest.mark.parametrize("scale", ["two_sigma", "standard", "uint8"])
def test_units_go_back(scale: Any) -> None:
    stretch = Constants(mean=(1000.0, 2000.0), std=(100.0, 500.0))
    stored = (noise(2, 5, 5) * 300 + torch.tensor([900.0, 1900.0])[:, None, None]).round().to(torch.int32)
    back = denormalise(normalise(stored, stretch, scale=scale), stretch, scale=scale)
    torch.testing.assert_close(back, stored.float(), rtol=0, atol=8 if scale == "uint8" else 1e-2)


def painted() -> tuple[Reconstruction, np.ndarray, np.ndarray]:
    """Patches of two rows, some of them hidden; three panels; where it is hidden."""
    hidden = (noise(2, 1, 4, 4, seed=5) > 0.5).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    made = Reconstruction(
        images=noise(2, 12, PX, PX) * 900,
        predicted=noise(2, 12, PX, PX, seed=1) * 900,
        hidden=hidden.expand(2, 12, PX, PX),
    )
    found = paint(made, colours(S2_NAMES))
    assert (found.shape, found.dtype) == ((2, PX, 3 * PX, 3), np.uint8)
    return made, np.stack(np.split(found, 3, axis=2)), hidden[:, 0].numpy()


def test_hidden_patches_are_grey_and_visible_ones_are_the_input() -> None:
    _, (image, masked, predicted), hidden = painted()
    assert 0 < hidden.mean() < 1
    assert (masked[hidden] == GREY).all()
    np.testing.assert_array_equal(masked[~hidden], image[~hidden])
    np.testing.assert_array_equal(predicted[~hidden], image[~hidden])
    assert (predicted[hidden] != image[hidden]).mean() > 0.9


def test_colours_are_stretched_by_the_input_s_percentiles() -> None:
    made, (image, _, predicted), hidden = painted()
    for row in range(2):
        for channel, name in enumerate(("B04", "B03", "B02")):
            band, guess = (x[row, S2_NAMES.index(name)].numpy() for x in (made.images, made.predicted))
            low, high = np.quantile(band, (0.02, 0.98))
            for values, shown in ((band, image), (np.where(hidden[row], guess, band), predicted)):
                wanted = np.clip((values - low) / (high - low), 0, 1) * 255
                assert np.abs(shown[row, ..., channel] - wanted).max() <= 0.51


def test_radar_is_vv_vh_and_their_ratio() -> None:
    vv, vh = colours(S1_NAMES)[:2] @ torch.tensor([-8.0, -14.0])
    assert (vv, vh, colours(S1_NAMES)[2] @ torch.tensor([-8.0, -14.0])) == (-8, -14, 6)


@pytest.mark.parametrize(
    ("bands", "shown"),
    [(BANDS, ("B04", "B03", "B02")), (("B08", "B05"), ("B08", "B05", "B08")), (("B05",), ("B05",) * 3)],
)
def test_bands_that_are_there_are_shown(bands: tuple[str, ...], shown: tuple[str, ...]) -> None:
    assert tuple(bands[row] for row in colours(bands).argmax(dim=1).tolist()) == shown


def test_croma_s_prediction_is_the_one_that_the_loss_compares() -> None:
    torch.manual_seed(0)
    model, images, noises = Croma(CROMA).eval(), pair(), croma_noises(batch_of(pair()), CROMA, 3)
    masks = model.mask(noises["noise_s1_BL"]), model.mask(noises["noise_s2_BL"])
    with torch.no_grad():
        wanted = model(images["s1"], images["s2"], **noises).parts
        predicted = model.predict(images["s1"], images["s2"], masks=masks)
    target = reconstruction_target(patchify(images["s1"], PATCH), patchify(images["s2"], PATCH))
    optical, sar = model.reconstruction_losses(predicted, target, masks=masks)
    assert (optical.item(), sar.item()) == (wanted["mae_optical"].item(), wanted["mae_sar"].item())


@pytest.mark.parametrize("norm", ["joint", "per_sensor"])
def test_croma_s_target_as_prediction_is_the_image(norm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = Croma(dataclasses.replace(CROMA, target_norm=norm)), pair()
    target = reconstruction_target(patchify(images["s1"], PATCH), patchify(images["s2"], PATCH), norm=norm)
    monkeypatch.setattr(model, "predict", lambda *_, **__: target)
    for sensor, made in reconstruct(model, batch_of(images), seed=0).items():
        torch.testing.assert_close(made.predicted, images[sensor], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SATMAES)
def test_satmae_s_target_as_prediction_is_the_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = satmae(name)
    target = satmae_target.target(batch.images["s2"], model.config)
    if name in {"group", "group-normed", "consistent"}:
        target = target[:, [band for group in model.config.group_positions for band in group]]
    monkeypatch.setattr(model, "decode", lambda *_: target)
    made = reconstruct(model, batch, seed=0)["s2"]
    torch.testing.assert_close(made.predicted, made.images, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.images.reshape(batch.images["s2"].shape), batch.images["s2"])


def watched(model: Any, name: str, seen: list[Tensor]) -> Callable[..., Tensor]:
    real = getattr(model, name)

    def call(*args: Any, **more: Any) -> Tensor:
        seen.append(real(*args, **more))
        return seen[-1]

    return call


@pytest.mark.parametrize("name", ["croma", *SATMAES])
@torch.no_grad()
def test_the_model_sees_what_is_not_hidden_and_nothing_else(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other pixels where it is hidden change nothing that is predicted; other pixels elsewhere do."""
    if name == "croma":
        torch.manual_seed(0)
        model, batch, method = Croma(CROMA).eval(), batch_of(pair()), "predict"
    else:
        (model, batch), method = satmae(name), "decode"
    seen: list[Tensor] = []
    monkeypatch.setattr(model, method, watched(model, method, seen))
    made = reconstruct(model, batch, seed=0)
    for part in made.values():
        assert 0.6 < part.hidden.float().mean() < 0.9
    for on_hidden in (True, False):
        changed = {}
        for sensor, image in batch.images.items():
            hidden = made[sensor].hidden.reshape(image.shape)
            changed[sensor] = torch.where(hidden == on_hidden, noise(*image.shape, seed=9), image)
        reconstruct(model, dataclasses.replace(batch, images=changed), seed=0)
    assert torch.equal(seen[0], seen[1])
    assert not torch.allclose(seen[0], seen[2])


@torch.no_grad()
def test_dates_of_a_stack_are_below_each_other() -> None:
    model, batch = satmae("temporal")
    stretch = {"s2": Constants(mean=(1000.0,) * 4, std=(300.0,) * 4)}
    stream = StreamConfig(global_batch=ROWS, kind="stack", frames=2, s2_bands=BANDS, image_px=PX)
    tall = draw(model, batch, stream, stretch, seed=0)["s2"]
    assert tall.shape == (ROWS, 2 * PX, 3 * PX, 3)
    for frame in range(2):
        alone = dataclasses.replace(batch, images={"s2": batch.images["s2"][:, [frame, frame]]})
        part = draw(model, alone, stream, stretch, seed=0)["s2"][:, :PX, :PX]
        np.testing.assert_array_equal(tall[:, frame * PX : (frame + 1) * PX, :PX], part)

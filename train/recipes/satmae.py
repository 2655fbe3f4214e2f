"""SatMAE runs as values.

Tags: [C] confirmed in the released code or its README, [P] in the paper, [R] recalled and not confirmed: a default to
override, never a target of parity.

Not done as published: fp16 with a loss scaler (here bfloat16); a rate that is held within an accumulation window, so
that the first update has rate 0 (here a function of the samples consumed); the statistics of fMoW-Sentinel, which is
Level-1C (here those of the data set; `fmow_sentinel` gives the published ones); frames that are drawn at random and
never sorted (here in order of time). Bands are read by name, in the paper's order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.errors import UsageError
from train import ema
from train.models.satmae import Satmae
from train.models.satmae_config import SatmaeConfig
from train.optim import OptimConfig
from train.stream.config import StreamConfig
from train.stream.normalise import Constants
from train.stream.transforms import Augment

FMOW_SENTINEL_SAMPLES = 712_874
"""Images of fMoW-Sentinel's training split [P]."""
FMOW_SAMPLES = 363_571
"""Images of fMoW's training split [R]."""
BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
"""What is left of the thirteen bands, in their order [C]."""
GROUPS = (("B02", "B03", "B04", "B08"), ("B05", "B06", "B07", "B8A"), ("B11", "B12"))
"""10 m; red edge, 20 m; short-wave infrared, 20 m [C]."""
RGB = ("B04", "B03", "B02")
FMOW_SENTINEL: Mapping[str, tuple[float, float]] = {
    "B01": (1370.19151926, 633.15169573),
    "B02": (1184.3824625, 650.2842772),
    "B03": (1120.77120066, 712.12507725),
    "B04": (1136.26026392, 965.23119807),
    "B05": (1263.73947144, 948.9819932),
    "B06": (1645.40315151, 1108.06650639),
    "B07": (1846.87040806, 1258.36394548),
    "B08": (1762.59530783, 1233.1492281),
    "B8A": (1972.62420416, 1364.38688993),
    "B09": (582.72633433, 472.37967789),
    "B10": (14.77112979, 14.3114637),
    "B11": (1732.16362238, 1310.36996126),
    "B12": (1247.91870117, 1087.6020813),
}
"""Mean and deviation of Level-1C digital numbers [C]; the paper's table prints other deviations."""
FMOW_RGB = Constants(
    mean=(0.4182007312774658, 0.4214799106121063, 0.3991275727748871),
    std=(0.28774282336235046, 0.27541765570640564, 0.2764017581939697),
)
"""Of fMoW's 8-bit images divided by 255 [C]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SatmaeRun:
    """All that decides what a SatMAE run computes."""

    name: str
    """Of the recipe."""
    model: SatmaeConfig
    """The network."""
    stream: StreamConfig
    """The data."""
    optim: OptimConfig
    """Optimizer and schedule."""
    steps: int
    """Length of the run, and of the learning rate's schedule."""
    precision: Literal["no", "bf16"]
    """`no` is float32; `bf16` autocasts."""
    seed: int = 0
    """Of first weights, order, augmentation and masks."""
    ema: float | None = None
    """What 256 samples leave of a moving average of the weights (see `ema`); None: there is none."""
    objective: Literal["satmae"] = "satmae"
    """Tells this recipe's JSON from others'."""

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        stream, model = self.stream, self.model
        ema.check(self.ema)
        if self.steps < 1 or stream.global_batch < 1:
            raise UsageError(f"{self.steps} steps of {stream.global_batch} samples: both must be 1 or more.")
        frames = model.frames if model.variant == "temporal" else None
        data = (stream.image_px, stream.s2_bands, stream.frames)
        wanted = (model.image_px * 2**model.upscales, model.bands, frames)
        if data != wanted or (stream.kind == "stack") != (model.variant == "temporal"):
            raise UsageError(
                f"the stream gives {stream.kind} images of (px, bands, frames) {data}, the {model.variant} model wants "
                f"{wanted}. Make the two agree in the recipe."
            )

    @property
    def tokens(self) -> int:
        """Tokens of a sample."""
        return self.model.tokens

    @property
    def kept_tokens(self) -> int:
        """Tokens of a sample that are not hidden."""
        return self.model.kept_tokens

    def module(self) -> Satmae:
        """The model, built anew."""
        return Satmae(self.model)


def fmow_sentinel(bands: Sequence[str] = BANDS) -> Constants:
    """The published statistics of `bands`, to read released weights with."""
    mean, std = zip(*(FMOW_SENTINEL[band] for band in bands), strict=True)
    return Constants(mean=mean, std=std)


def tiny_group() -> SatmaeRun:
    """Band groups on two CPU cores. Of the paper: bands, groups, image, patch and mask ratio [C]."""
    model = SatmaeConfig(bands=BANDS, groups=GROUPS, slot_dim=16, decoder_slot_dim=8, **_TINY)
    return _tiny("tiny_group", model)


def tiny_temporal() -> SatmaeRun:
    """Three dates of three bands on two CPU cores. Of the paper: frames, bands and mask ratio [C]."""
    model = SatmaeConfig(
        variant="temporal", bands=RGB, frames=3, norm_pix=True, slot_dim=16, decoder_slot_dim=4, **_TINY
    )
    return _tiny("tiny_temporal", model)


def tiny_plain() -> SatmaeRun:
    """A plain masked autoencoder of ten bands on two CPU cores: the paper's "stack" [P]."""
    return _tiny("tiny_plain", SatmaeConfig(variant="plain", bands=BANDS, **_TINY))


def group_base() -> SatmaeRun:
    """SatMAE ViT-B on band groups. Not yet run. Widths, heads, batch 4,096, base rate 1e-4, 200 epochs [C]."""
    return _group("group_base", SatmaeConfig(bands=BANDS, groups=GROUPS, **_BASE))


def group_large() -> SatmaeRun:
    """SatMAE ViT-L on band groups. Not yet run.

    Model, bands, groups, 96 px, patch 8, mask ratio 0.75, independent masks, no patch normalisation [C]. Crops of 0.2
    to 1 of the area, bicubic, mirrored; 8-bit levels [C]. AdamW (0.9, 0.95), decay 0.05, batch 4,096, base rate 1e-4
    per 256, 200 epochs, 20 of warm-up [C]; the paper's own table says 50 epochs [P].
    """
    return _group("group_large", SatmaeConfig(bands=BANDS, groups=GROUPS))


def group_large_pp() -> SatmaeRun:
    """SatMAE++ ViT-L on band groups. Not yet run.

    As `group_large`, and reconstructions at 192 and 384 px; crops of 0.6 to 1 of the area, batch 2,048, base rate 1e-4,
    50 epochs, 20 of warm-up [C].
    """
    run = _group("group_large_pp", SatmaeConfig(bands=BANDS, groups=GROUPS, upscales=2))
    stream = replace(run.stream, global_batch=2048, augment=Augment(area=(0.6, 1.0), symmetries=2))
    return replace(run, stream=stream, **_length(50, warmup=20, samples=FMOW_SENTINEL_SAMPLES, batch=2048))


def temporal_large() -> SatmaeRun:
    """SatMAE ViT-L on three dates. Not yet run.

    Model, 224 px, patch 16, mask ratio 0.75, independent masks, patch normalisation, one crop for all frames, neither
    mirrored nor resized; standardised values [C]. AdamW (0.9, 0.95), decay 0.05, batch 1,024, base rate 1.5e-4 per 256,
    100 epochs, 40 of warm-up [C]. Published on fMoW's 8-bit RGB; here Sentinel-2's visible bands.
    """
    model = SatmaeConfig(
        variant="temporal",
        bands=RGB,
        frames=3,
        image_px=224,
        patch=16,
        norm_pix=True,
        slot_dim=128,
        decoder_slot_dim=64,
    )
    return _rgb("temporal_large", model, batch=1024, epochs=100)


def plain_large() -> SatmaeRun:
    """MAE ViT-L on RGB, SatMAE's non-temporal baseline. Not yet run.

    224 px, patch 16; crops of 0.2 to 1 of the area, bicubic, mirrored; standardised values [C]. Batch 4,096, rate
    2.4e-3, 800 epochs [P]; 40 of warm-up, patch normalisation [R].
    """
    model = SatmaeConfig(variant="plain", bands=RGB, image_px=224, patch=16, norm_pix=True)
    run = _rgb("plain_large", model, batch=4096, epochs=800)
    return replace(run, stream=replace(run.stream, augment=Augment(area=(0.2, 1.0), symmetries=2)))


RECIPES: Mapping[str, Callable[[], SatmaeRun]] = {
    recipe.__name__: recipe
    for recipe in (
        tiny_group,
        tiny_temporal,
        tiny_plain,
        group_base,
        group_large,
        group_large_pp,
        temporal_large,
        plain_large,
    )
}

_TINY: dict[str, Any] = {
    "encoder_dim": 64,
    "depth": 2,
    "heads": 4,
    "decoder_dim": 32,
    "decoder_depth": 1,
    "decoder_heads": 4,
}
_BASE: dict[str, Any] = {"encoder_dim": 768, "depth": 12, "heads": 12}


def _tiny(name: str, model: SatmaeConfig) -> SatmaeRun:
    return SatmaeRun(
        name=name,
        model=model,
        stream=_stream(model, batch=16),
        optim=OptimConfig(base_lr=0.032, betas=(0.9, 0.95), weight_decay=0.05, decay_tokens=True, warmup=0.1),
        steps=200,
        precision="no",
    )


def _group(name: str, model: SatmaeConfig) -> SatmaeRun:
    stream = replace(_stream(model, batch=4096), augment=Augment(area=(0.2, 1.0), symmetries=2), scale="uint8")
    length = _length(200, warmup=20, samples=FMOW_SENTINEL_SAMPLES, batch=4096)
    return SatmaeRun(name=name, model=model, stream=stream, precision="bf16", **length)


def _rgb(name: str, model: SatmaeConfig, *, batch: int, epochs: int) -> SatmaeRun:
    stream = replace(_stream(model, batch=batch), augment=Augment(symmetries=1), scale="standard")
    length = _length(epochs, warmup=40, samples=FMOW_SAMPLES, batch=batch, base_lr=1.5e-4)
    return SatmaeRun(name=name, model=model, stream=stream, precision="bf16", **length)


def _stream(model: SatmaeConfig, *, batch: int) -> StreamConfig:
    temporal = model.variant == "temporal"
    return StreamConfig(
        global_batch=batch,
        kind="stack" if temporal else "pair",
        frames=model.frames if temporal else None,
        s2_bands=model.bands,
        image_px=model.image_px * 2**model.upscales,
    )


def _length(epochs: int, *, warmup: int, samples: int, batch: int, base_lr: float = 1e-4) -> dict[str, Any]:
    optim = OptimConfig(
        base_lr=base_lr, betas=(0.9, 0.95), weight_decay=0.05, decay_tokens=True, warmup=warmup / epochs
    )
    return {"optim": optim, "steps": epochs * samples // batch}

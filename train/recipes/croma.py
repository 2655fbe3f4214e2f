"""CROMA runs as values.

Tags: [C] confirmed in the released code, [P] in the paper, [S] in a secondary source, [R] recalled and not confirmed: a
default to override, never a target of parity.

Not done as in the paper: mixup 0.3 [R]. The interpolation of its resize is not known; here it is bicubic.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.errors import UsageError
from train import ema
from train.models.croma import Croma, CromaConfig
from train.models.masking import kept_count
from train.optim import OptimConfig
from train.stream.config import StreamConfig
from train.stream.transforms import Augment

SSL4EO_SAMPLES = 1_004_316
"""Pairs of the corpus that CROMA was trained on [S]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CromaRun:
    """All that decides what a CROMA run computes."""

    name: str
    """Of the recipe."""
    model: CromaConfig
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
    objective: Literal["croma"] = "croma"
    """Tells this recipe's JSON from others'."""

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        stream, model = self.stream, self.model
        ema.check(self.ema)
        if self.steps < 1 or stream.global_batch < 1:
            raise UsageError(f"{self.steps} steps of {stream.global_batch} samples: both must be 1 or more.")
        data = (stream.image_px, len(stream.s1_bands), len(stream.s2_bands))
        if data != (model.image_px, model.sar_bands, model.optical_bands):
            raise UsageError(
                f"the stream gives images of {data[0]} px with {data[1]} + {data[2]} bands, the model wants "
                f"{model.image_px} px with {model.sar_bands} + {model.optical_bands}. Make the two agree in the recipe."
            )

    @property
    def tokens(self) -> int:
        """Patches of an image, each sensor."""
        return self.model.patches

    @property
    def kept_tokens(self) -> int:
        """Patches that are not hidden, each sensor."""
        return kept_count(self.model.patches, self.model.mask_ratio)

    def module(self) -> Croma:
        """The model, built anew."""
        return Croma(self.model)


def tiny() -> CromaRun:
    """A model that learns something on two CPU cores in a minute. Of the paper: image, patch and mask ratio [C]."""
    model = CromaConfig(
        encoder_dim=64, depth=2, heads=4, decoder_dim=32, decoder_depth=1, decoder_heads=4, image_px=120, patch=8
    )
    stream = StreamConfig(global_batch=16, s1_bands=S1_NAMES, s2_bands=S2_NAMES, image_px=120)
    # Unclipped, the contrastive features collapse onto one point within 20 steps of the synthetic Earth.
    optim = OptimConfig(base_lr=0.032, warmup=0.1, grad_clip=1.0)
    return CromaRun(name="tiny", model=model, stream=stream, optim=optim, steps=200, precision="no")


def base() -> CromaRun:
    """CROMA-B. Not yet run.

    Model [C]: dim 768, depth 12 (SAR and fusion 6), 16 heads, patch 8, 120 px, decoder 512 x 1, mask ratio 0.75.
    Crops of 60 to 180 px of chips of 264, resized to 120 [S]; turned and mirrored [R]. 8-bit levels [C].
    AdamW and bfloat16 [P]. Betas, weight decay, base rate, warm-up, cosine, batch of 7,200 and 300 epochs [R]; that the
    rate scales with the batch is a guess. Memory about 50 GB for 900 samples on each of 8 GPUs (estimated).
    """
    return _published("base", CromaConfig(), epochs=300)


def large() -> CromaRun:
    """CROMA-L. Not yet run.

    Model [C]: dim 1024, depth 24 (SAR and fusion 12), 16 heads, the rest as in `base`. 600 epochs [R]; its batch is not
    known, so `base`'s stands in.
    """
    return _published("large", CromaConfig(encoder_dim=1024, depth=24), epochs=600)


RECIPES: Mapping[str, Callable[[], CromaRun]] = {"tiny": tiny, "base": base, "large": large}


def _published(name: str, model: CromaConfig, *, epochs: int) -> CromaRun:
    batch = 7200
    stream = StreamConfig(
        global_batch=batch,
        s1_bands=S1_NAMES,
        s2_bands=S2_NAMES,
        image_px=120,
        augment=Augment(side_px=(60, 180)),
        scale="uint8",
    )
    return CromaRun(
        name=name,
        model=model,
        stream=stream,
        optim=OptimConfig(base_lr=4e-6, betas=(0.9, 0.999), weight_decay=0.01, warmup=0.05),
        steps=epochs * SSL4EO_SAMPLES // batch,
        precision="bf16",
    )

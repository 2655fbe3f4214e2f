"""What defines a SatMAE model, and what follows from it by arithmetic.

Tokens lie slot by slot: token `s L + l` is place l of slot s. A slot is a band group, a frame, or the whole image.

Axes: S slots, L places of a slot.
"""

from dataclasses import dataclass, fields
from typing import Literal

from pipeline.bands import positions
from pipeline.errors import UsageError
from train.choices import Mode
from train.models.masking import kept_count

Variant = Literal["group", "temporal", "plain"]
"""`group`: one token per band group and place. `temporal`: one per frame and place. `plain`: one per place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SatmaeConfig:
    """Everything that defines a SatMAE model; the defaults are the multi-spectral ViT-L."""

    variant: Variant = "group"
    bands: tuple[str, ...]
    """Names along the band axis of the images."""
    groups: tuple[tuple[str, ...], ...] = ()
    """`group`: band names of each group; together they are `bands`, each once."""
    frames: int = 1
    """`temporal`: T of a pretraining stack; `Satmae.encode` takes any number."""
    patch: int = 8
    """Side of a patch, px."""
    image_px: int = 96
    """Side of a pretraining image, px; `Satmae.encode` takes any size."""
    encoder_dim: int = 1024
    depth: int = 24
    heads: int = 16
    mlp_ratio: float = 4.0
    decoder_dim: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    slot_dim: int = 256
    """Width of the group code, or of each of the three time codes (year, month, hour), within `encoder_dim`."""
    decoder_slot_dim: int = 128
    """The same within `decoder_dim`."""
    mask_ratio: float = 0.75
    consistent: bool = False
    """Hide the same places in every slot."""
    norm_pix: bool = False
    """Standardise each patch of the target; of a group model over all bands of a place at once, as published."""
    upscales: int = 0
    """SatMAE++: reconstruct also at 2 (1) or 2 and 4 (2) times the size; images come at the largest one."""
    mode: Mode = "exact"
    """`official`: compare the k-th predicted band with the k-th of the input, whatever the groups' order, and fill up
    a consistent temporal mask from the first frame, as the released code does."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        self._check_sizes()
        if self.variant == "group" and sorted(name for group in self.groups for name in group) != sorted(self.bands):
            raise UsageError(f"band groups {self.groups} must hold each of {self.bands} exactly once. Regroup them.")
        if self.variant == "temporal" and self.upscales:
            raise UsageError("SatMAE++'s larger reconstructions are of single dates. Set upscales to 0.")
        free, decoder_free = self.spatial_dim, self.decoder_spatial_dim
        if free < 4 or free % 4 or decoder_free < 4 or decoder_free % 4:
            raise UsageError(
                f"slot codes leave {free} of {self.encoder_dim} and {decoder_free} of {self.decoder_dim} dimensions "
                "for the place: both must be positive multiples of 4. Change slot_dim or decoder_slot_dim."
            )
        kept_count(self.noise_count, self.mask_ratio)

    def _check_sizes(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is int and value < (0 if field.name == "upscales" else 1):
                raise UsageError(f"SatMAE's {field.name} is {value}. Set it to 1 or more.")
        if self.image_px % self.patch or self.upscales > 2 or len(set(self.bands)) != len(self.bands) or not self.bands:
            raise UsageError(
                f"SatMAE needs images of whole patches, distinct bands and at most 2 upscales, but image_px is "
                f"{self.image_px}, patch {self.patch}, bands {self.bands}, upscales {self.upscales}."
            )

    @property
    def grid(self) -> int:
        """Patches along one side of a pretraining image."""
        return self.image_px // self.patch

    @property
    def places(self) -> int:
        """L of a pretraining image."""
        return self.grid**2

    @property
    def slots(self) -> int:
        """S of a pretraining sample."""
        return {"group": len(self.groups), "temporal": self.frames, "plain": 1}[self.variant]

    @property
    def tokens(self) -> int:
        """S * L."""
        return self.slots * self.places

    @property
    def noise_count(self) -> int:
        """Numbers that choose what to hide: one per token, or per place where the mask is consistent."""
        return self.places if self.consistent else self.tokens

    @property
    def kept_tokens(self) -> int:
        """Tokens that are not hidden."""
        official = self.variant == "temporal" and self.mode == "official"
        if self.consistent and not official:
            return self.slots * kept_count(self.places, self.mask_ratio)
        return kept_count(self.tokens, self.mask_ratio)

    @property
    def slot_code_dim(self) -> int:
        """Dimensions of the encoder's slot code."""
        return _slot_code_dim(self.variant, self.slot_dim)

    @property
    def decoder_slot_code_dim(self) -> int:
        """Dimensions of the decoder's slot code."""
        return _slot_code_dim(self.variant, self.decoder_slot_dim)

    @property
    def spatial_dim(self) -> int:
        """Dimensions of the encoder's place code."""
        return self.encoder_dim - self.slot_code_dim

    @property
    def decoder_spatial_dim(self) -> int:
        """Dimensions of the decoder's place code."""
        return self.decoder_dim - self.decoder_slot_code_dim

    @property
    def group_positions(self) -> tuple[tuple[int, ...], ...]:
        """Where each group's bands stand in the image."""
        return tuple(positions(self.bands, group) for group in self.groups)


def _slot_code_dim(variant: Variant, width: int) -> int:
    return {"group": width, "temporal": 3 * width, "plain": 0}[variant]

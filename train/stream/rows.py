"""The rows of a batch: what is read into each, and how it is cut."""

from collections.abc import Sequence
from dataclasses import dataclass

from train.choices import OnCorrupt
from train.stream import standin
from train.stream.config import StreamConfig
from train.stream.lanes import Ids
from train.stream.ring import Slot, frames_of
from train.stream.samples import Chips, Samples
from train.stream.transforms import Placement, frame_picks, placements


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row that is to be read."""

    number: int
    """In the batch."""
    sample_id: int
    """Of the plan."""
    epoch: int
    """Of the plan."""
    cut: Placement
    """Crop and symmetry."""
    picks: list[int]
    """Frames of a stack."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Filler:
    """Reads rows into slots; may be called from many threads."""

    samples: Samples
    """Of the stream."""
    seed: int
    """Of the run."""
    on_corrupt: OnCorrupt
    """What a damaged sample does."""

    def fill(self, slot: Slot, rows: Sequence[Row]) -> None:
        """Read `rows` into their places.

        Raises:
            CorruptShard: a sample's bytes are damaged.
            SourceError: the store kept failing.
        """
        for row in rows:
            sample_id, chips = self._read(row)
            slot.fill(row.number, chips, row.cut, row.picks, sample_id=sample_id)

    def _read(self, row: Row) -> tuple[int, Chips]:
        if self.on_corrupt == "stop":
            return row.sample_id, self.samples.read(row.sample_id)
        return standin.read(self.samples, row.sample_id, seed=self.seed, epoch=row.epoch)


def rows_of(samples: Samples, config: StreamConfig, *, seed: int, ids: Ids, epochs: Ids) -> list[Row]:
    """The rows of a batch of these samples.

    Args:
        samples: of the stream.
        config: of the stream.
        seed: of the run.
        ids: (B,) sample ids.
        epochs: (B,) their epochs.
    """
    cuts = placements(
        seed, epochs, ids, chip_px=samples.known.chip_px, image_px=config.image_px, augment=config.augment
    )
    picks = frame_picks(seed, epochs, ids, stored=samples.frames, wanted=frames_of(samples, config))
    numbered = enumerate(zip(ids.tolist(), epochs.tolist(), cuts, picks, strict=True))
    return [
        Row(number=number, sample_id=one, epoch=epoch, cut=cut, picks=pick)
        for number, (one, epoch, cut, pick) in numbered
    ]

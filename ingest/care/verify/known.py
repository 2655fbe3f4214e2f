"""What units are compared with, and what is found out about each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ingest.care.verify.finding import Finding
from ingest.measure import Tally
from ingest.plan import Unit
from ingest.receipt import Receipt
from pipeline.manifest import Manifest
from pipeline.stats import BandStats
from pipeline.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What all units are compared with."""

    store: Store
    """Of the data set."""
    manifest: Manifest
    """What it is."""
    index: pa.Table | None
    """Its samples; None where the index cannot be read."""
    spans: Mapping[str, tuple[int, int]]
    """First row of the index and the one behind the last, by shard."""
    planned: Mapping[str, Unit]
    """By id; empty without the plan."""
    cube: Any
    """Opened; None where it cannot be."""
    cube_rows: Mapping[str, int]
    """Row of the cube by key."""
    deep: bool
    """Whether to decode everything and to compare the cube's pixels."""


@dataclass(slots=True, kw_only=True)
class Checked:
    """What was found out about one unit."""

    unit_id: str
    """Which."""
    findings: list[Finding] = field(default_factory=list)
    """What is wrong."""
    receipt: Receipt | None = None
    """What it says itself, without its index rows; None where it cannot be read."""
    tally: Tally
    """Of its training samples; empty unless deep."""
    decoded: int = 0
    """Samples that were decoded."""


def alike(a: BandStats | None, b: BandStats | None) -> bool:
    """Equal but for the last digits of sums, which differ between processors."""
    if a is None or b is None:
        return a is b
    counted = ("bands", "count", "minimum", "maximum", "bin_range", "histogram")
    summed = all(np.allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=0) for name in ("mean", "m2"))
    return summed and all(getattr(a, name) == getattr(b, name) for name in counted)

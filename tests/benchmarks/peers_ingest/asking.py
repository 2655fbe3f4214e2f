"""A request of ours without a command line."""

import dataclasses
from typing import Any

from ingest.areas.aoi import DateRange
from ingest.request import Request
from pipeline.bands import S2_NAMES


def plain_request(**given: Any) -> Request:
    """Pairs on the UTM lattice; any field can be given."""
    fields: dict[str, Any] = {
        "kind": "pair",
        "areas": (),
        "dates": DateRange(start=None, end=None),
        "catalog": "items.parquet",
        "s2": "sentinel-2-l2a",
        "s1": ("sentinel-1-rtc",),
        "max_gap_hours": 72.0,
        "orbit": "any",
        "tracks": (),
        "one_to_one": False,
        "widest_gap_hours": None,
        "seasons": False,
        "frames": 1,
        "min_gap_hours": 0.0,
        "s2_bands": S2_NAMES,
        "max_cloud_percent": 20.0,
        "cloud_model": "",
        "max_nodata_percent": 1.0,
        "chip_px": 264,
        "grid": "utm",
        "block_px": 1024,
        "guard_km": 0.0,
        "codec": "b2",
        "labels": (),
        "val_percent": 0.0,
        "seed": 0,
    }
    others = {field.name: None for field in dataclasses.fields(Request)}
    return Request(**{**others, **fields, **given})

"""What all tests share: no network beyond loopback, the real data where it is there, and two small samples."""

import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from pipeline.sample import PairSample, SampleMeta, StackSample

ROOT = Path(__file__).parents[1]
settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "house"))  # `default` draws anew in every run


def _shared(*parts: str) -> Path:
    """A folder of the material that stands beside the repository; a run that must be real fails without it."""
    folder = Path(os.environ.get("SHARED_DIR") or ROOT / ".." / "shared").resolve().joinpath(*parts)
    if not folder.exists():
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail(f"{folder} is not there, and REQUIRE_REAL=1 asks for it")
        pytest.skip(f"{folder} is not there: set SHARED_DIR")
    return folder


@pytest.fixture(scope="session")
def real_catalog() -> Path:
    """Real Sentinel images as a static STAC catalog."""
    return _shared("data", "real-catalog")


@pytest.fixture(scope="session")
def stac_records() -> Path:
    """STAC records as public catalogs serve them."""
    return _shared("data", "stac")


@pytest.fixture(scope="session")
def stac_items() -> Path:
    """More such records, one an item."""
    return _shared("data", "sentinel", "stac_items")


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections that would leave this machine."""
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))


def _guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        leaves = self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(str(address[0]))
        if (
            leaves and self.type != socket.SOCK_DGRAM
        ):  # a datagram socket sends nothing yet: dask so learns its own address
            raise RuntimeError(f"a test tried to reach {address}")
        return connect(self, address)

    return guarded


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


_START = datetime(2023, 6, 10, 7, 46, 21, tzinfo=UTC)


@pytest.fixture(scope="session")
def make_meta() -> Callable[..., SampleMeta]:
    """Metadata of one sample of so many frames; any field can be given."""

    def make(frames: int = 1, **changes: Any) -> SampleMeta:
        times = tuple(_START + timedelta(days=5 * i) for i in range(frames))
        fields: dict[str, Any] = {
            "cell_id": "32633-r00123-c00456",
            "epsg": 32633,
            "transform": (10.0, 0.0, 547200.0, 0.0, -10.0, 148800.0),
            "center_lonlat": (15.429, 1.341),
            "acquired": times,
            "s1_acquired": tuple(time + timedelta(hours=8, microseconds=5) for time in times),
            "scene_ids": {"s2": ("S2B_ü",) * frames, "s1": ("S1A",) * frames},
            "offsets": {"S2B_ü": "-1000 baseline"},
            "gap_hours": 8.3,
            "backscatter": "gamma0",
            "orbit_state": None,
            "cloud_fraction": 0.1 + 0.2,
            "valid_fraction": 1.0,
            "shift_px": (0.5, -1.25, 0.4),
            "resampled": ("B01",),
            "classes": ("Water bodies",),
        }
        return SampleMeta(**{**fields, **changes})

    return make


@pytest.fixture(scope="session")
def make_pair(make_meta: Callable[..., SampleMeta]) -> Callable[..., PairSample]:
    """A pair of random pixels with a NaN and every mask bit in it."""

    def make(key: str = "32633-r00123-c00456-20230610t074621-1f0c9a2e", *, size: int = 16, seed: int = 0) -> PairSample:
        random = np.random.default_rng(seed)
        s1 = random.normal(-12, 4, (2, size, size)).astype("<f4")
        s1[:, 0, 1] = np.nan
        mask = random.integers(0, 32, (size, size), dtype=np.uint8)
        return PairSample(
            key=key,
            s2=random.integers(0, 2**16, (12, size, size), dtype=np.uint16),
            s1=s1,
            mask=mask,
            label=random.integers(0, 10, (size, size), dtype=np.uint8),
            meta=make_meta(),
        )

    return make


@pytest.fixture(scope="session")
def make_stack(make_meta: Callable[..., SampleMeta]) -> Callable[..., StackSample]:
    """A stack of random pixels, with or without radar."""

    def make(frames: int = 3, *, size: int = 8, s1: bool = True, seed: int = 0) -> StackSample:
        random = np.random.default_rng(seed)
        return StackSample(
            key="32633-r00123-c00456-20230610t074621-00000000",
            s2=random.integers(0, 2**16, (frames, 12, size, size), dtype=np.uint16),
            s1=random.normal(-12, 4, (frames, 2, size, size)).astype("<f4") if s1 else None,
            mask=random.integers(0, 32, (frames, size, size), dtype=np.uint8),
            meta=make_meta(frames),
        )

    return make

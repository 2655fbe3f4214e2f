"""Is what the catalog offers what ingest can read? One scene of each collection: its file against its record."""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

from ingest.care.doctor.check import Check
from ingest.care.doctor.header import Header, look
from ingest.planner import Found
from ingest.request import Request
from ingest.scenes.scene import Scene

SLOW_MS = 2000
"""Milliseconds. A file that opens more slowly is told."""
SKEW_S, SKEW_MAX_S = 60, 900
"""Seconds that this machine's clock may be off: signatures are refused beyond the larger."""
LARGE_BLOCK_PX = 2048
"""Pixels. Blocks wider than this, strips above all, are read for far more chips than need them."""
_FIRST_BAND = {"s2": "B02", "s1": "VV", "label": "label"}
_KEYS = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS",),
    "az": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_CLIENT_ID"),
}
"""Environment variables of which one is enough, by scheme."""


def check_found(request: Request, found: Found) -> Iterator[Check]:
    """How much every collection has."""
    for collection in (request.s2, *request.s1, *request.labels):
        usable = [one for one in (*found.s2, *found.s1, *found.labels) if one.collection == collection]
        if usable:
            yield Check(status="ok", name=collection, said=f"{len(usable)} usable scenes")
        else:
            needed = collection in (request.s2, *request.s1)
            reasons = sorted(set(found.unusable.values()))[:3]
            said = "no usable scene" + (f" ({'; '.join(reasons)})" if reasons else "")
            todo = "Check --aoi, --dates and what the catalog has"
            yield Check(
                status="fail" if needed and not _other(request, found) else "warn",
                name=collection,
                said=said,
                todo=todo,
            )


def _other(request: Request, found: Found) -> bool:
    """Whether some scene of every sensor that is needed was found."""
    return bool(found.s2) and (bool(found.s1) or not request.s1)


def samples(found: Found) -> list[Scene]:
    """The first scene of every collection."""
    firsts: dict[str, Scene] = {}
    for scene in (*found.s2, *found.s1, *found.labels):
        if scene.assets:
            firsts.setdefault(scene.collection, scene)
    return list(firsts.values())


def check_scene(scene: Scene) -> Iterator[Check]:
    """One file of the scene against its record.

    Raises:
        RasterioError: the file cannot be read.
    """
    band = _FIRST_BAND[scene.sensor] if _FIRST_BAND[scene.sensor] in scene.assets else min(scene.assets)
    asset = scene.assets[band]
    name = f"{scene.collection} {band}"
    header = look(asset.href)
    slow = header.open_ms > SLOW_MS
    yield Check(
        status="warn" if slow else "ok",
        name=name,
        said=f"{scene.scene_id} opens in {header.open_ms:.0f} ms, "
        f"a block of {header.block_bytes / 1e6:.1f} MB follows in {header.block_ms:.0f} ms",
        todo="Run nearer to the data, or with more workers" if slow else "",
    )
    yield _place(scene, header, name)
    yield _blocks(header, name)
    if scene.sensor in {"s1", "s2"}:
        yield _values(scene, band, header, name)


def _place(scene: Scene, header: Header, name: str) -> Check:
    """CRS, corner, pixel and size: header against item."""
    place = f"{name} grid"
    if header.epsg is None:
        return Check(
            status="fail", name=place, said="the file has no CRS", todo="Leave the scene out, or mend the file"
        )
    said = f"EPSG:{header.epsg}, {header.width_px} x {header.height_px} pixels of {header.transform[0]:g}"
    if scene.grid is None and scene.sensor == "label":
        return Check(status="ok", name=place, said=said)
    if scene.grid is None:
        return Check(
            status="warn", name=place, said=f"{said}; the catalog does not say it", todo="Planning is less exact"
        )
    item = (scene.grid.epsg, scene.grid.transform, scene.grid.height_px, scene.grid.width_px)
    if (header.epsg, header.transform, header.height_px, header.width_px) == item:
        return Check(status="ok", name=place, said=f"{said}, as the catalog says")
    theirs = f"EPSG:{item[0]}, {item[3]} x {item[2]} pixels of {item[1][0]:g} at {item[1][2]:.12g},{item[1][5]:.12g}"
    ours = f"{said} at {header.transform[2]:.12g},{header.transform[5]:.12g}"
    todo = "Pixels are placed by the file. Ask the catalog which is right before you build"
    return Check(status="fail", name=place, said=f"the file says {ours}; the catalog {theirs}", todo=todo)


def _blocks(header: Header, name: str) -> Check:
    height, width = header.block_px
    said = f"{height} x {width} pixels, {header.overviews} overviews"
    if max(height, width) > LARGE_BLOCK_PX:
        todo = "Every chip reads whole strips: copy the files as COGs first if you need many"
        return Check(status="warn", name=f"{name} blocks", said=said, todo=todo)
    return Check(status="ok", name=f"{name} blocks", said=said)


def _values(scene: Scene, band: str, header: Header, name: str) -> Check:
    """Dtype and nodata against what ingest takes them for, and the offset that it will apply."""
    wanted = {"s2": {"uint16"}, "s1": {"float32", "float64"}}[scene.sensor]
    tag = "no nodata tag" if header.nodata is None else f"nodata {header.nodata:g}"
    rule = "0 is nodata by rule" if scene.sensor == "s2" else "only powers above 0 count"
    said = f"{header.dtype}, {tag}, {rule}"
    if scene.sensor == "s2":
        said += f"; {scene.assets[band].dn_offset:+d} is added to {band} (baseline {scene.baseline or 'unknown'})"
    if header.dtype not in wanted:
        todo = f"Expected {' or '.join(sorted(wanted))}: values would be taken for something that they are not"
        return Check(status="warn", name=f"{name} values", said=said, todo=todo)
    return Check(status="ok", name=f"{name} values", said=said)


def check_keys(urls: Sequence[str], environment: Mapping[str, str] = os.environ) -> Iterator[Check]:
    """Whether credentials are there for the stores that need them; never what they are."""
    for scheme in sorted({urlsplit(url).scheme.removesuffix("a") for url in urls} & set(_KEYS)):
        there = [name for name in _KEYS[scheme] if environment.get(name)]
        name = f"credentials for {scheme}://"
        if there:
            yield Check(status="ok", name=name, said=f"{there[0]} is set")
        else:
            said, todo = (
                "none in the environment",
                f"Set {_KEYS[scheme][0]}, unless a file or the machine's role has them",
            )
            yield Check(status="warn", name=name, said=said, todo=todo)


def check_clock(urls: Sequence[str]) -> Iterator[Check]:
    """This machine's clock against the first server that tells the time.

    Raises:
        OSError: the server does not answer.
    """
    servers = [url for url in urls if urlsplit(url).scheme in {"http", "https"}]
    if not servers:
        return
    asked = HttpRequest(servers[0], method="HEAD")  # noqa: S310  http and https only, as seen above
    with urlopen(asked, timeout=20) as answer:  # noqa: S310  as above
        said = answer.headers.get("Date")
    if not said:
        return
    off_s = (datetime.now(UTC) - parsedate_to_datetime(said)).total_seconds()
    status = "fail" if abs(off_s) > SKEW_MAX_S else "warn" if abs(off_s) > SKEW_S else "ok"
    todo = "" if status == "ok" else "Set this machine's clock: signed requests are refused"
    where = urlsplit(servers[0]).hostname
    yield Check(status=status, name="clock", said=f"{off_s:+.0f} s against {where}", todo=todo)  # type: ignore[arg-type]

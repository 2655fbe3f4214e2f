"""What would go wrong is told before it does: each fault is made, and found by its own check."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from flaky_server import serving
from rasterio.transform import Affine
from typer.testing import CliRunner

from ingest.care.doctor import examine, source, target
from ingest.care.doctor.check import Check, failing
from ingest.cli import app
from ingest.request import Request
from ingest.scenes.scene import Asset, Scene
from pipeline.errors import UsageError
from pipeline.store import Store

pytestmark = pytest.mark.ingest
Ask = Callable[..., Request]
MakeScene = Callable[..., Scene]


def named(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_all_is_well(make_request: Ask, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    checks = examine(make_request(labels=("labels",)), str(out))
    assert {check.status for check in checks} == {"ok"}, [str(check) for check in checks]
    found = named(checks)
    assert found["sentinel-2-l2a"].said == "3 usable scenes"
    assert "as the catalog says" in found["sentinel-1-rtc VV grid"].said
    assert found["labels label blocks"].said == "64 x 64 pixels, 0 overviews"
    assert "+0 is added to B02 (baseline 02.05)" in found["sentinel-2-l2a B02 values"].said
    assert not out.exists()


def test_nothing_stays_in_the_target() -> None:
    store = Store.at("memory://doctored")
    assert [check.status for check in target.check_target(store)] == ["ok", "ok"]
    assert store.names() == []


def test_over_http_the_clock_is_looked_at(make_request: Ask, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tiny.root) as (url, _):
        checks = named(examine(make_request(catalog=f"{url}/catalog.json"), "memory://clock"))
        assert {check.status for check in checks.values()} == {"ok"}
        assert checks["clock"].said.endswith("s against 127.0.0.1")
        for off_s, status in ((300, "warn"), (-3600, "fail")):
            with monkeypatch.context() as patch:
                said = formatdate(time.time() + off_s, usegmt=True)
                patch.setattr(BaseHTTPRequestHandler, "date_time_string", lambda *_, said=said: said)
                assert next(source.check_clock([f"{url}/catalog.json"])).status == status
    assert list(source.check_clock(["/a/path", "s3://bucket/x"])) == []


def test_what_fails_does_not_hide_the_rest(make_request: Ask, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    checks = examine(make_request(catalog="/nowhere/at/all"), str(tmp_path / "file" / "out"))
    failed = {check.name for check in checks if check.status == "fail"}
    assert failed == {"catalog", "target", "plan"}


def test_a_collection_without_scenes(make_request: Ask) -> None:
    checks = named(examine(make_request(s1=("sentinel-1-rtc", "sentinel-1-grd")), "memory://some"))
    assert checks["sentinel-1-grd"].status == "warn"
    checks = named(examine(make_request(s1=("sentinel-1-grd",)), "memory://some"))
    assert (checks["sentinel-1-grd"].status, checks["plan"].status) == ("fail", "fail")


def _file(path: Path, dtype: str = "uint16", *, crs: int | None = 32633, left: float = 500040, **profile: Any) -> str:
    place = {"crs": crs, "transform": Affine(10, 0, left, 0, -10, 5300040)} if crs else {}
    fields = {"driver": "GTiff", "count": 1, "height": 144, "width": 144, "dtype": dtype, **place, **profile}
    with rasterio.open(path, "w", **fields) as file:
        file.write(np.ones((144, 144), dtype), 1)
    return str(path)


FILES: Mapping[str, tuple[dict[str, Any], str, str, str]] = {
    "as it should be": ({}, "grid", "ok", "as the catalog says"),
    "moved": ({"left": 500050}, "grid", "fail", "at 500050,5300040; the catalog"),
    "other zone": ({"crs": 32632}, "grid", "fail", "EPSG:32632"),
    "bytes": ({"dtype": "uint8"}, "values", "warn", "uint8, no nodata tag, 0 is nodata by rule"),
    "tagged": ({"nodata": 0}, "values", "ok", "nodata 0"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_not_what_their_record_says(name: str, make_scene: MakeScene, tmp_path: Path) -> None:
    changes, what, status, said = FILES[name]
    href = _file(tmp_path / "a.tif", **changes)
    scene = make_scene(assets={"B02": Asset(href=href, dn_offset=-1000)}, baseline="05.09")
    check = named(list(source.check_scene(scene)))[f"sentinel-2-l2a B02 {what}"]
    assert check.status == status
    assert said in check.said
    assert bool(check.todo) == (status != "ok")


def test_strips_and_unknown_grids_are_told(
    make_scene: MakeScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "LARGE_BLOCK_PX", 100)
    monkeypatch.setattr(source, "SLOW_MS", -1)
    scene = make_scene(assets={"B04": Asset(href=_file(tmp_path / "a.tif"), dn_offset=0)}, grid=None)
    checks = named(list(source.check_scene(scene)))
    assert {check.status for name, check in checks.items() if not name.endswith("values")} == {"warn"}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_file_without_crs(make_scene: MakeScene, tmp_path: Path) -> None:
    scene = make_scene(assets={"B02": Asset(href=_file(tmp_path / "a.tif", crs=None), dn_offset=0)})
    assert named(list(source.check_scene(scene)))["sentinel-2-l2a B02 grid"].status == "fail"


def test_a_missing_file_is_one_failed_check(tiny: Any, make_request: Ask, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny.root, tmp_path / "copy"))
    record = copy / "sentinel-2-l2a" / "S2-0" / "S2-0.json"
    item = json.loads(record.read_text())
    item["assets"]["B02"]["href"] = "/nowhere/B02.tif"
    record.write_text(json.dumps(item))
    checks = examine(make_request(catalog=str(copy)), "memory://missing")
    assert [check.name for check in checks if check.status == "fail"] == ["sentinel-2-l2a S2-0"]
    assert named(checks)["sentinel-1-rtc VV grid"].status == "ok"


def test_failures_keep_secrets() -> None:
    checks: list[Check] = []
    for error in (
        OSError("no https://host/a.tif?sig=hunter2"),
        UsageError("no s3://user:hunter2@host/x"),
        ValueError(),
    ):
        with failing(checks, "part", "Look at it"):
            raise error
    assert [check.status for check in checks] == ["fail"] * 3
    assert "hunter2" not in " ".join(map(str, checks))


def test_credentials_are_looked_for_and_not_told() -> None:
    urls = ["s3://bucket/x", "s3a://other/y", "gs://third/z", "/a/path", "https://host/x"]
    checks = named(list(source.check_keys(urls, {"AWS_PROFILE": "hunter2", "HOME": "x"})))
    assert {name: check.status for name, check in checks.items()} == {
        "credentials for s3://": "ok",
        "credentials for gs://": "warn",
    }
    assert "hunter2" not in " ".join(map(str, checks.values()))


def test_a_store_that_ignores_conditions_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "_create_local", lambda self, path, data: bool(Path(path).write_bytes(data)))
    checks = named(list(target.check_target(Store.at(str(tmp_path)))))
    assert (checks["target"].status, checks["conditional put"].status) == ("ok", "warn")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_gives_back_something_else_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = Store.read_range
    monkeypatch.setattr(Store, "read_range", lambda self, *where: true(self, *where)[:-1] + b"?")
    assert named(list(target.check_target(Store.at(str(tmp_path)))))["target"].status == "fail"


def test_room_is_compared_with_the_plan(make_request: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    monkeypatch.setattr(target, "_free_memory", lambda: 2000)
    checks = named(examine(make_request(), str(tmp_path / "out")))
    assert (checks["disk"].status, checks["memory"].status) == ("fail", "warn")


def test_the_command(tiny: Any, tmp_path: Path) -> None:
    flags = ["--aoi", str(tiny.aoi), "--catalog", str(tiny.root), "--chip-px", "24", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["doctor", *flags])
    assert done.exit_code == 0
    assert all(line.startswith("ok    ") for line in done.output.splitlines())
    done = CliRunner().invoke(app, ["doctor", *flags, "--dates", "2030-01-01/2030-02-01", "--json"])
    assert done.exit_code == 1
    assert {"status": "fail"}.items() <= json.loads(done.output)[0].items()

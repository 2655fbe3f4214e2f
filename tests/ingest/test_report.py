"""The page holds what the data set holds, needs nothing else, and trusts no text."""

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from typer.testing import CliRunner

from ingest.build import build
from ingest.care.report import page, report
from ingest.care.report.pictures import strips
from ingest.cli import app
from ingest.request import Request
from pipeline.bands import S2_NAMES
from pipeline.errors import ContractError, UsageError
from pipeline.page import drawing, pictures, png
from pipeline.sample import StackSample
from pipeline.store import Store

pytestmark = pytest.mark.ingest
STACK = {"kind": "stack", "s1": (), "max_gap_hours": 0.0, "frames": 2, "min_gap_hours": 24.0}
VOID = {"meta", "img", "br"}


class Tags(HTMLParser):
    """Tags that are open, attributes that were seen, and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module", params=["pair", "stack"])
def out(request: pytest.FixtureRequest, make_request: Callable[..., Request], tmp_path_factory: Any) -> Path:
    path = Path(tmp_path_factory.mktemp(request.param) / "out")
    build(make_request(**(STACK if request.param == "stack" else {})), str(path), workers=0)
    return path


def test_it_needs_nothing_beside_itself(out: Path) -> None:
    html = report(Store.at(str(out)), sheets=9, samples=99)
    tags = Tags(html)
    assert tags.open == []
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags.seen}
    addresses = [value for _, attributes in tags.seen for key, value in attributes.items() if key in {"src", "href"}]
    assert all(str(one).startswith("data:image/png;base64,") for one in addresses)
    assert "url(" not in html
    accepted = pq.read_table(out / "index.parquet").num_rows
    figures = [attributes for tag, attributes in tags.seen if tag == "figure"]
    assert len(figures) == accepted
    assert len(addresses) == accepted * (2 if figures[0] else 1)
    for key in pq.read_table(out / "index.parquet")["key"].to_pylist():
        assert key in tags.text


def test_a_browser_shows_it(out: Path, tmp_path: Path) -> None:
    html = report(Store.at(str(out)), sheets=9, samples=99)
    seen, complaints, _ = browser.look(html, tmp_path, widths=(400, 1280))
    assert complaints == []
    for one, window in zip(seen, (400, 1280), strict=True):
        assert one.window == window
        assert one.width <= window, "wider than its window"
        assert one.pictures > 0
        assert one.broken == 0
        assert "Pixels of the training samples" in one.text


def test_counts_are_those_of_the_table(out: Path) -> None:
    html = report(Store.at(str(out)), sheets=0, samples=1)
    table = pq.read_table(out / "chips.parquet")
    outcomes = [(row["status"], row["reason"]) for row in table.to_pylist()]
    for status, reason in set(outcomes):
        n = outcomes.count((status, reason))
        assert f"<td>{status}</td><td>{reason}</td><td class=n>{n}</td>" in html
    assert html.count("<title>32633-") == len(set(table["cell_id"].to_pylist()))


def test_few_pictures_of_few_shards(out: Path) -> None:
    tags = Tags(report(Store.at(str(out)), sheets=1, samples=2))
    assert sum(tag == "figure" for tag, _ in tags.seen) == 2


def test_texts_are_escaped(out: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(out, tmp_path / "out"))
    table = pq.read_table(copy / "chips.parquet")
    for name in ("reason", "cell_id"):
        evil = pa.array(["<script>alert('&')</script>"] * table.num_rows)
        table = table.set_column(table.column_names.index(name), name, evil)
    pq.write_table(table, copy / "chips.parquet")
    html = report(Store.at(str(copy)), sheets=0, samples=1)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert page.figure([], ["<b>"], is_pair=True).endswith("&lt;b&gt;</figcaption></figure>")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (120, 64)])
def test_another_library_reads_our_png(shape: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    with rasterio.MemoryFile(png.encode(rgb)) as file, file.open() as picture:
        np.testing.assert_array_equal(picture.read().transpose(1, 2, 0), rgb)


def test_colours() -> None:
    s2 = np.zeros((12, 4, 4), np.uint16)
    s2[3], s2[2], s2[1] = 3000, 2000, 1000
    s2[:, 0, 0] = 0
    rgb = pictures.optical(s2, S2_NAMES)
    assert rgb[1, 1].tolist() == [255, 128, 0]
    assert rgb[0, 0].tolist() == [0, 0, 0]
    ramp = s2[7:8] + np.arange(16, dtype=np.uint16).reshape(4, 4)
    assert len(set(pictures.optical(ramp, ("B08",))[1, 2].tolist())) == 1
    s1 = np.full((2, 2, 2), -40.0, np.float32)
    s1[:, 0, 0], s1[:, 1, 1] = (-10.0, -17.0), np.nan
    assert pictures.radar(s1)[0, 0].tolist() == [128, 128, 119]
    assert pictures.radar(s1)[1, 1].tolist() == pictures.radar(s1)[0, 1].tolist() == [0, 0, 0]


def test_dates_lie_beside_each_other(make_stack: Callable[..., StackSample]) -> None:
    with_radar = strips(make_stack(3, size=8), S2_NAMES)
    assert [one.shape for one in with_radar] == [(8, 28, 3)] * 2
    assert [one.shape for one in strips(make_stack(3, size=8, s1=False), S2_NAMES)] == [(8, 28, 3)]


def test_north_is_up_and_the_best_is_on_top() -> None:
    cells = [((10.0, 50.0, 10.1, 50.1), "train", "north"), ((10.0, 49.0, 10.1, 49.1), "left out", "south")]
    svg = drawing.cell_map(cells)
    found = re.findall(r'y="([\d.]+)" width="[\d.]+" height="[\d.]+" fill="(#\w+)".*?<title>(\w+)', svg)
    assert [(title, colour) for _, colour, title in found] == [
        ("south", drawing.COLOURS["left out"]),
        ("north", drawing.COLOURS["train"]),
    ]
    assert float(found[1][0]) < float(found[0][0])


def test_histograms_count_what_is_known() -> None:
    html = drawing.histogram([1.0, 2.0, 3.0, float("nan")], "h", bins=3)
    assert "3 values, median 2.00 h" in html
    assert re.findall(r"<title>(\d+)</title>", html) == ["0", "1", "2"]
    assert drawing.histogram([], "h") == "<p>None known.</p>"


def test_the_command_writes_it_anywhere(out: Path, tmp_path: Path) -> None:
    for target in (str(tmp_path / "a" / "report.html"), "memory://pages/report.html"):
        done = CliRunner().invoke(app, ["report", str(out), "--page", target, "--sheets", "1"])
        assert (done.exit_code, done.output.strip()) == (0, target)
    assert (tmp_path / "a" / "report.html").read_bytes() == Store.at("memory://pages").read("report.html")


def test_what_is_no_data_set_is_told(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a finished data set"):
        report(Store.at(str(tmp_path)), sheets=1, samples=1)
    copy = Path(shutil.copytree(out, tmp_path / "out"))
    (copy / "chips.parquet").unlink()
    with pytest.raises(ContractError, match="ingest verify"):
        report(Store.at(str(copy)), sheets=1, samples=1)

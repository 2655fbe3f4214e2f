"""What the documents' code blocks say is typed, in order, in a copy of the working tree (`make soak`).

Every line is run unless `NOT_RUN` has it with its reason. The blocks of a document build on each other, and the
documents on the README: run the whole file.
"""

import io
import json
import os
import re
import shlex
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import working_copy
from documents import Block, blocks, typed
from harness import ROOT
from stac_server import Server, serving
from working_copy import Copy

DOCUMENTS = ("README.md", "ingest/README.md", "train/README.md", "examples/first-afternoon.md")
TORCHGEO = ROOT / ".venv-oracle" / "bin" / "python"

NOT_RUN = {
    "docker build --target ingest": "tests/infra/test_images.py builds it",
    "docker build --target train": "tests/infra/test_images.py builds it for CPUs; for CUDA it is a download of 3 GB",
}
"""How a line begins that is left out, and why."""

SHORTER = (
    ("README.md#sentinel-pretrain", "--data OUT --out RUN", "--data OUT --out RUN --steps 4"),
    ("README.md#My own area", "--steps 200", "--steps 60"),
    ("train/README.md#Recipes", "--data OUT --out RUN", "--data OUT --out RUN --steps 4"),
    ("train/README.md#Recipes", "--data STACKS --out RUN", "--data STACKS --out RUN --steps 4 --batch 2"),
    ("train/README.md#Shards", "--data INDEXED --out RUN", "--data INDEXED --out RUN --steps 4 --batch 4"),
    ("examples/first-afternoon.md#Real images", "--steps 200", "--steps 40"),
)
"""Where, what a line says there, and what is typed instead: 200 steps of 16 samples take minutes each time."""

STANDS_FOR: tuple[tuple[str, str, dict[str, str]], ...] = (
    (
        "",
        "",
        {
            "area.geojson": "examples/aoi.geojson",
            "planetary-computer": "runs/earth",
            "CATALOG": "{api}",
            "REAL": "{real}",
            "OUT": "runs/out",
            "RUN": "runs/run",
        },
    ),
    ("README.md#sentinel-pretrain", "", {"OUT": "runs/first-out", "RUN": "runs/first-run"}),
    ("", "--layout torchgeo", {"RUN": "runs/CROMA_base.pt"}),  # `tiny` is refused, `base` takes minutes a step
    ("ingest/README.md", "", {"13.3,52.4,13.5,52.6": "examples/aoi.geojson", "OUT": "runs/out-264"}),
    (
        "train/README.md",
        "",
        {
            "STACKS": "runs/stacks",
            "CROMA_base.pt": "runs/CROMA_base.pt",
            "TARS": "runs/tars",
            "MAP.json": "runs/map.json",
            "INDEXED": "runs/indexed",
            "ITR/camra2011": "{itr}/camra2011",
        },
    ),
    ("train/README.md#Recipes", "tiny_group", {"RUN": "runs/group"}),
    ("train/README.md#Recipes", "--kind stack", {"area.geojson": "12.0,48.0,12.04,48.04", "CATALOG": "runs/seasons"}),
    ("train/README.md#Recipes", "tiny_temporal", {"RUN": "runs/temporal"}),
    ("train/README.md#Features", "", {"RUN": "runs/demo/croma", "OUT": "runs/demo/data"}),  # with labels
    ("train/README.md#Shards", "--out RUN", {"RUN": "runs/indexed-run"}),
    ("examples/first-afternoon.md", "", {"runs/real": "runs/farms", "runs/real-croma": "runs/farms-croma"}),
)
"""Where, part of a line, and words with what stands for them; a later row goes before an earlier one.

`{api}`, `{real}` and `{itr}` are known when the test runs."""

FROM_REAL = re.compile(r"\{(real|itr)\}|runs/(real|farm)")
"""Commands that need the real catalog, or what others made of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is typed at once."""

    block: Block
    """Where it stands."""
    text: str
    """A line of the shell, or a whole block of Python."""

    @property
    def place(self) -> str:
        """Document and heading."""
        return f"{self.block.where}#{self.block.heading}"

    @property
    def command(self) -> str:
        """A line as it is typed here."""
        text = self.text
        for place, said, instead in SHORTER:
            text = text.replace(said, instead) if self.place.startswith(place) else text
        values: dict[str, str] = {}
        for place, part, words in STANDS_FOR:
            values |= words if self.place.startswith(place) and part in self.text else {}
        words = "|".join(re.escape(word) for word in sorted(values, key=len, reverse=True))
        return re.sub(rf"(?<![\w/.-])({words})(?![\w-])", lambda found: values[found[0]], text)

    @property
    def reason(self) -> str | None:
        """Why it is not run."""
        return next((why for start, why in NOT_RUN.items() if self.text.startswith(start)), None)

    def __str__(self) -> str:
        return f"{self.block.where}: {self.text.splitlines()[0]}"


def _steps() -> Iterator[Step]:
    for block in (block for document in DOCUMENTS for block in blocks(ROOT / document)):
        if block.language == "python":
            yield Step(block=block, text=block.text)
        elif block.language == "" and "─" not in block.text:  # no drawing
            yield from (Step(block=block, text=line) for line in typed(block.text))


STEPS = tuple(_steps())
LINES = tuple(step for step in STEPS if not step.block.language)


def _bare(command: str) -> str:
    return shlex.join(shlex.split(command, comments=True))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """A copy that holds what the placeholders stand for."""
    pytest.importorskip("rasterio", reason="needs the ingest extra")
    pytest.importorskip("torch", reason="needs the train extra")
    made = working_copy.at(tmp_path_factory.mktemp("readme").resolve())
    try:
        _make(made)
        with serving(Server(items=_items(made.root / "runs/earth"))) as server:
            made.values["api"] = server.url
            yield made
    finally:
        made.end()
        shutil.rmtree(made.root, ignore_errors=True)


def _make(made: Copy) -> None:
    made.run("ingest make-earth --aoi examples/aoi.geojson --out runs/earth --dates 2023-07-01/2023-07-12")
    seasons = "--dates 2023-04-01/2023-08-01 --no-noise"
    made.run(f"ingest make-earth --aoi 12.0,48.0,12.04,48.04 --out runs/seasons {seasons}")
    _write_base(made.root / "runs/CROMA_base.pt")
    _write_tars(made.root / "runs/tars")
    (map_json,) = (block.text for block in blocks(ROOT / "train/README.md") if block.language == "json")
    (made.root / "runs/map.json").write_text(map_json)
    _write_likes(made.root)


def _items(earth: Path) -> list[dict[str, Any]]:
    """The items of an Earth as an API gives them."""
    items = []
    for path in earth.glob("*/*/*.json"):
        item = json.loads(path.read_text())
        moment = item["properties"]["datetime"].replace("+00:00", "Z")
        assets = {key: {**asset, "href": str(path.parent / asset["href"])} for key, asset in item["assets"].items()}
        items.append({**item, "assets": assets, "properties": {**item["properties"], "datetime": moment}})
    return items


def _write_base(path: Path) -> None:
    """CROMA's published file, with first weights."""
    from train.models import containers
    from train.models.croma import Croma, CromaConfig
    from train.models.layouts import LAYOUTS

    content = LAYOUTS["croma"]["released"].to_file(Croma(CromaConfig()).state_dict(), 120)
    path.write_bytes(containers.torch_bytes(content))


def _write_tars(folder: Path) -> None:
    """Eight samples as the map of train/README.md tells them."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    with tarfile.open(folder / "0.tar", "w") as tar:
        for number in range(8):
            optical, radar, meta = io.BytesIO(), io.BytesIO(), {"centre": [12 + number, 48]}
            np.save(optical, draw.uniform(0.01, 0.4, (13, 120, 120)).astype("f4"))
            np.savez(radar, image=draw.uniform(0.01, 0.4, (2, 120, 120)).astype("f4"))
            about = json.dumps({**meta, "properties": {"datetime": "2023-07-01T10:00:00Z"}}).encode()
            members = {"s2.npy": optical.getvalue(), "s1.npz": radar.getvalue(), "json": about}
            for suffix, content in members.items():
                head = tarfile.TarInfo(f"{number:04d}.{suffix}")
                head.size = len(content)
                tar.addfile(head, io.BytesIO(content))


def _write_likes(root: Path) -> None:
    """Who likes what, and two families."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["ann", "bob", *(f"user-{number}" for number in range(38))]
    draw = np.random.default_rng(0)
    likes = [(name, f"item-{item}") for name in names for item in draw.choice(60, 12, replace=False)]
    users, items = (list(column) for column in zip(*likes, strict=True))
    pq.write_table(pa.table({"user": users, "item": items}), root / "likes.parquet")
    (root / "families.csv").write_text("group,user\nred,ann\nred,bob\nblue,user-0\nblue,user-1\n")


@pytest.mark.soak
@pytest.mark.timeout(working_copy.LIMIT_S + 300)
@pytest.mark.parametrize("step", [step for step in STEPS if step.reason is None], ids=str)
def test_it_runs(copy: Copy, step: Step, request: pytest.FixtureRequest) -> None:
    if step.block.language == "python":
        _run_python(copy, step)
        return
    command = step.command
    if FROM_REAL.search(command):
        real = request.getfixturevalue("real_catalog")
        copy.values.update(real=str(real), itr=str(real.parent / "itr"))
    for name, value in copy.values.items():
        command = command.replace(f"{{{name}}}", value)
    if _bare(command) in copy.done:  # another document says it, too
        return
    copy.run(command)
    copy.done.add(_bare(command))
    if command.startswith("source "):
        copy.sourced.append(command)


def _run_python(copy: Copy, step: Step) -> None:
    file = copy.root / "runs" / "block.py"
    checked = f"{step.text}\nassert features.shape[0] == 1 and features.isfinite().all(), features\n"
    if "from torchgeo" not in step.text:
        file.write_text(checked)
        copy.run("python runs/block.py")
        return
    if not TORCHGEO.exists():
        (pytest.fail if os.environ.get("REQUIRE_REAL") == "1" else pytest.skip)(f"{TORCHGEO} is missing: `make oracle`")
    file.write_text(f"from torchgeo_croma import allow_torchvision\nallow_torchvision()\n{checked}")
    copy.run(f"{TORCHGEO} runs/block.py", env={**copy.env, "PYTHONPATH": "tests/oracles"})


@pytest.mark.soak
def test_what_the_readme_promises_is_there(copy: Copy) -> None:
    promised = re.findall(r"`((?:OUT|RUN)/[\w.-]+)`", (ROOT / "README.md").read_text().partition("\n## ")[0])
    assert len(promised) == 9
    for name in promised:
        path = name.replace("OUT", "runs/out").replace("RUN", "runs/run").replace("NNNNNNNN", "[0-9]" * 8)
        assert list(copy.root.glob(path)), name


def test_no_line_has_a_placeholder_left_or_asks_somebody_far_away() -> None:
    wrong = re.compile(r"\b[A-Z]{3,}\b|https?:|s3:|planetary-computer|earth-search|cdse")
    assert {
        step.text: found for step in LINES if step.reason is None and (found := wrong.findall(_bare(step.command)))
    } == {}


def test_every_block_is_known_and_every_row_of_the_tables_is_used() -> None:
    languages = {block.language for document in DOCUMENTS for block in blocks(ROOT / document)}
    assert languages == {"", "python", "json"}
    for start in NOT_RUN:
        assert any(step.text.startswith(start) for step in STEPS), start
    for place, said, _ in SHORTER:
        assert sum(said in step.text for step in STEPS if step.place.startswith(place)) == 1, (place, said)
    for place, part, words in STANDS_FOR:
        lines = [step.text for step in LINES if step.place.startswith(place) and part in step.text]
        for word in words:
            assert any(word in line for line in lines), (place, part, word)

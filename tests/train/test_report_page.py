"""The page of a run: each section is there or says why not, numbers are those of the rows, and a browser shows it."""

import dataclasses
import json
import math
import re
import shutil
import sys
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
import tiny_run
import torch
from tiny_pairs import write_pairs, write_stacks

from pipeline.bands import S2_NAMES
from pipeline.errors import UsageError
from train import flags, report, revision
from train.meter import read_rows
from train.models import vit
from train.models.blocks import CrossAttention, SelfAttention, attend
from train.models.croma import Croma
from train.models.positions import alibi_bias, alibi_slopes, grid_yx
from train.models.satmae_config import SatmaeConfig
from train.objective import SatmaeObjective
from train.pictures import Reconstruction
from train.probes import heads, labels
from train.probes.neighbours import recall
from train.recipes import croma, satmae
from train.recipes.run import narrowed, override
from train.recipes.satmae import SatmaeRun
from train.reporting import (
    attention,
    axes,
    classes,
    contact,
    curves,
    encoded,
    fits,
    history,
    learning,
    painting,
    projection,
    reading,
    repeat,
    story,
)
from train.reporting.folder import RunFolder, open_run
from train.reporting.intervals import wilson
from train.stream.config import StreamConfig
from train.stream.samples import open_samples
from train.stream.where import where

pytestmark = pytest.mark.train
SECTIONS = [
    "What went in",
    "How it learned",
    "How fast it went",
    "What it paints where patches are hidden",
    "Who is near whom",
    "The space of features",
    "How far heads look",
    "What the features are worth",
    "How to do it again",
]
ONE_MONTH = "training samples are of one class, or no validation sample is of a class that they have."
"""All training samples of `tiny_pairs` are of June."""
SHARDS = (("train", 7), ("val", 9), ("train", 18))


def page_of(run: str, data: str | None = None) -> str:
    return story.page(story.Request(run=run, data=data, samples=16))


class Tags(HTMLParser):
    """Tags that are open, attributes that were seen, and the cells of every row."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.rows[-1][-1] += data


def shown(page: str) -> str:
    """What there is to read."""
    return unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors of a few numbers: several threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def _each_probe_once() -> Iterator[None]:
    """Pages of one run ask for the same linear probes, and these take most of a page's time: each is learned once."""
    known: dict[Any, torch.Tensor] = {}
    learn = heads.linear_probe

    def once(*given: torch.Tensor, **more: Any) -> torch.Tensor:
        asked = (*(one.numpy().tobytes() for one in given), *sorted(more.items()))
        if asked not in known:
            known[asked] = learn(*given, **more)
        return known[asked]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "linear_probe", once)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CROMA run that died behind step 6, went on, skipped step 8, and looked at its validation split."""
    folder = tmp_path_factory.mktemp("page")
    data, out = write_pairs(str(folder / "data"), shards=SHARDS, classes=4), str(folder / "run")
    asked: dict[str, Any] = {"checkpoint_every": 3, "probe_every": 6}
    with pytest.raises(tiny_run.Killed):
        tiny_run.train(data, out, make=lambda: tiny_run.Failing(8), **asked)
    tiny_run.train(data, out, make=lambda: tiny_run.Failing(2, nans=1), resume=True, **asked)
    return Path(out)


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return page_of(str(run))


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """The same run, to be changed."""
    return Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("tensorboard")))


def test_every_section_is_there_and_nothing_is_missing(html: str) -> None:
    assert re.findall(r"<h2>(.*?)</h2>", html) == SECTIONS
    assert re.findall(r"Not shown: (.*?)</p>", html) == [ONE_MONTH]
    assert "Parts of this page are missing" not in html
    assert html.count("<b>Here:</b>") == 8, "a sentence of this run's own beside each figure"
    tags = Tags(html)
    assert tags.open == []
    assert sum(tag == "svg" for tag, _ in tags.seen) > 20


def test_it_needs_nothing_beside_itself(html: str) -> None:
    tags = Tags(html)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags.seen}
    addresses = [str(value) for _, given in tags.seen for name, value in given.items() if name in {"src", "href"}]
    assert all(one.startswith(("data:image/png;base64,", "#s")) for one in addresses)
    assert "url(" not in html
    assert "http" not in html
    assert all(given.get("alt") for tag, given in tags.seen if tag == "img")
    assert all(given.get("aria-label") for tag, given in tags.seen if tag == "svg")


def test_losses_are_those_of_the_rows(run: Path, html: str) -> None:
    rows = read_rows(open_run(str(run)).store)
    assert [row["step"] for row in rows] == [*range(1, 13)]
    table = {row[0]: row[1:] for row in Tags(html).rows if len(row) == 5}
    for name in ("contrastive", "mae", "mae_optical", "mae_sar"):
        values = {row["step"]: row["parts"][name] for row in rows if math.isfinite(row["parts"][name])}
        steps = sorted(values)
        first, last, least, at = table[name]
        assert float(first) == pytest.approx(values[steps[0]], abs=1e-4)
        assert float(last) == pytest.approx(values[steps[-1]], abs=1e-4)
        assert float(least) == pytest.approx(min(values.values()), abs=1e-4)
        assert values[int(at)] == min(values.values())


def test_what_happened_on_the_way_is_marked(run: Path, html: str) -> None:
    marks = learning.marks_of(open_run(str(run)))
    assert marks.resumed == [6]
    assert marks.skipped == [8]
    skipped = "<title>not learned from: step 8</title>"
    assert html.count("<title>resumed behind step 6</title>") == html.count(skipped) > 8
    assert "resumed behind step 6; 1 step was not learned from: 8" in shown(html)


def test_pace_is_that_of_the_rows(run: Path, html: str) -> None:
    rates = [row["pace"]["samples_per_s"] for row in read_rows(open_run(str(run)).store)]
    (row,) = (row for row in Tags(html).rows if row and row[0] == "Throughput, samples/s")
    wanted = (float(np.median(rates)), min(rates), max(rates))
    assert [float(cell.replace(",", "")) for cell in row[1:]] == pytest.approx(wanted, rel=1e-3)


def test_probes_beside_their_baselines(html: str) -> None:
    rows = [row for row in Tags(html).rows if len(row) == 5 and row[1] in {"trained", "untrained", "band statistics"}]
    assert [(row[0], row[1]) for row in rows[:6]] == [
        (probe, whose) for probe in ("linear", "kNN 20") for whose in ("trained", "untrained", "band statistics")
    ]
    for _, _, value, between, samples in rows:
        low, high = map(float, between.split(" to "))
        assert low - 1e-3 <= float(value) <= high + 1e-3
        assert (low, high) == pytest.approx(wilson(float(value), int(samples)), abs=2e-3)


def test_rows_are_read_as_the_meter_reads_them(run: Path, copied: Path) -> None:
    wanted = read_rows(open_run(str(run)).store)
    whole = (copied / "metrics.jsonl").read_bytes()
    cut = whole[: whole.rindex(b'"parts"')]  # as a kill leaves the last line
    (copied / "metrics.jsonl").write_bytes(cut + b"\n\n7\n" + json.dumps({"step": 13, "new": {"x": 2}}).encode())
    found = history.read(open_run(str(copied)).store, "metrics.jsonl")
    assert (len(found), found.broken) == (12, 2)
    for name, of in (("loss", lambda row: row["loss"]), ("parts.mae", lambda row: row["parts"]["mae"])):
        np.testing.assert_array_equal(found.column(name), [*map(of, wanted[:11]), np.nan])
    assert "2 lines of metrics.jsonl cut short" in shown(learning.section(open_run(str(copied))))
    np.testing.assert_array_equal(found.column("new.x"), [np.nan] * 11 + [2])
    assert np.isnan(found.column("pace.mfu")).all()


def _long(run: RunFolder, steps: int) -> RunFolder:
    """The same run, of so many steps: one of a hundred was skipped, and it was resumed every fiftieth."""
    draw = np.random.default_rng(0)
    names = ("loss", "lr", "grad_norm", "parts.mae", "parts.sar", "pace.samples_per_s", "pace.data_wait_share")
    columns = {name: draw.normal(5, 1, steps) for name in names}
    columns |= {"step": np.arange(1.0, steps + 1), "skipped": (np.arange(steps) % 100 == 0) * 1.0}
    resumed = tuple(range(steps // 50, steps, steps // 50))
    return dataclasses.replace(run, history=history.History(columns=columns, broken=0), resumed=resumed)


def test_the_page_of_a_long_run_is_no_larger(run: Path) -> None:
    sizes = [
        len(learning.section(_long(open_run(str(run)), steps)) + learning.pace(_long(open_run(str(run)), steps)))
        for steps in (50_000, 150_000)
    ]
    assert sizes[1] < 1.05 * sizes[0] < 500_000


def test_a_spike_of_a_long_run_is_seen() -> None:
    values = np.random.default_rng(0).normal(size=100_000)
    values[77_777] = 1e6
    steps = np.arange(100_000.0)
    assert (77_777, 1e6) in [*zip(*curves.swung(steps, values), strict=True)]
    assert max(curves.usual(values)) < 5
    drawn = curves.curve("loss", steps, values, marks=curves.Marks())
    assert "outside the picture: " in drawn
    assert "1,000,000" in drawn


def test_without_a_checkpoint_the_rest_is_shown(copied: Path) -> None:
    for folder in copied.glob("step-*"):
        shutil.rmtree(folder)
    page = page_of(str(copied))
    assert re.findall(r"<h2>(.*?)</h2>", page) == SECTIONS
    assert page.count("Not shown: the run has no finished checkpoint yet.") == 5
    assert "Loss: contrastive" in page
    assert "Values of each band" in page


def test_without_its_data_the_rest_is_shown(copied: Path) -> None:
    began = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps({**began, "data": str(copied / "gone")}))
    page = page_of(str(copied))
    assert page.count("Not shown:") == 6
    assert "is not a finished data set" in page
    assert "If the data set was moved" in page
    assert "Loss: contrastive" in page
    (copied / "run.json").write_text(json.dumps({**began, "data": "gone/data"}))
    assert "counts from the folder in which the run was started" in page_of(str(copied))
    assert page_of(str(copied), began["data"]).count("Not shown:") == 1


def test_with_nothing_but_one_file(copied: Path) -> None:
    rows = (copied / "metrics.jsonl").read_bytes()
    shutil.rmtree(copied)
    copied.mkdir()
    (copied / "metrics.jsonl").write_bytes(rows)
    assert "Loss: contrastive" in page_of(str(copied))
    (copied / "metrics.jsonl").unlink()
    (copied / "run.json").write_text('{"ranks": 1}')
    assert "no step is written down" in page_of(str(copied))
    (copied / "run.json").unlink()
    with pytest.raises(UsageError, match="is not a run"):
        page_of(str(copied))


def test_a_run_in_another_store(run: Path) -> None:
    out = "memory://report-page/run"
    tiny_run.train(str(run.parent / "data"), out, dataclasses.replace(tiny_run.RUN, steps=2))
    page = page_of(out)
    assert "step 2 of 2" in page
    assert page.count("Not shown:") == 1


def test_secrets_stay_out(copied: Path) -> None:
    began = json.loads((copied / "run.json").read_text())
    urls = {"data": "memory://me:SECRET@bucket/data?sig=SECRET", "out": "https://me:SECRET@host/run?sig=SECRET"}
    (copied / "run.json").write_text(json.dumps(began | urls))
    page = page_of(str(copied))
    assert "memory://bucket/data" in page
    assert "https://host/run" in page
    assert "SECRET" not in page
    assert "<title>Run run</title>" in page


@pytest.mark.parametrize("wrong", ["nothing", "other data"])
def test_bad_input_is_one_message(  # noqa: PLR0917
    run: Path, tmp_path: Path, wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_pairs(str(tmp_path / "other"), shards=(("train", 3), ("val", 2)))
    asked = [str(tmp_path / "empty")] if wrong == "nothing" else [str(run), "--data", other.url]
    monkeypatch.setattr(sys, "argv", ["report.py", *asked, "--out", str(tmp_path / "page.html")])
    assert report.main() == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert ("is not a run" if wrong == "nothing" else "is not the data set of the run") in told
    assert not (tmp_path / "page.html").exists()


def test_the_command_writes_the_same_bytes_again(
    run: Path, html: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "deep" / "page.html"
    monkeypatch.setattr(sys, "argv", ["report.py", str(run), "--out", str(out), "--samples", "16"])
    assert report.main() == 0
    assert out.read_text() == html


SMALL: dict[str, Any] = {
    "image_px": 16, "patch": 4, "encoder_dim": 32, "depth": 2, "heads": 2, "decoder_dim": 16, "decoder_depth": 1,
    "decoder_heads": 2, "slot_dim": 8, "decoder_slot_dim": 4,
}  # fmt: skip
RGB = ("B04", "B03", "B02")
SATMAES = {
    "group": SatmaeConfig(bands=S2_NAMES[1:6], groups=(RGB, ("B05", "B06")), **SMALL),
    "temporal": SatmaeConfig(
        variant="temporal", bands=RGB, frames=3, norm_pix=True, **SMALL | {"encoder_dim": 64, "decoder_dim": 32}
    ),
    "plain": SatmaeConfig(variant="plain", bands=RGB, **SMALL),
}


@pytest.mark.parametrize("variant", SATMAES)
def test_satmae_runs(variant: str, tmp_path: Path) -> None:
    model = SATMAES[variant]
    temporal = variant == "temporal"
    write = write_stacks if temporal else write_pairs
    data = write(str(tmp_path / "data"), shards=SHARDS)
    stream = StreamConfig(
        global_batch=5,
        kind="stack" if temporal else "pair",
        frames=3 if temporal else None,
        s2_bands=model.bands,
        image_px=16,
    )
    recipe = SatmaeRun(name="test", model=model, stream=stream, optim=tiny_run.RUN.optim, steps=2, precision="no")
    tiny_run.train(data, str(tmp_path / "run"), recipe, make=lambda: SatmaeObjective(model, seed=0))
    page = page_of(str(tmp_path / "run"))
    assert re.findall(r"<h2>(.*?)</h2>", page) == SECTIONS
    assert "B04, B03, B02 in red, green and blue (real colours)" in page
    assert ("B06, B05, B05 in red" in page) == (variant == "group")
    assert page.count("<figcaption>date 3</figcaption>") == (4 if temporal else 0)
    assert page.count("<figcaption>same place, other date") == 6 * 5
    assert "2D-ALiBi" not in page


@pytest.mark.parametrize(
    "recipe",
    [
        override(croma.tiny(), steps=120, global_batch=None, mode=None, seed=0),
        override(croma.tiny(), steps=7, global_batch=8, mode="official", seed=3, ema=0.9),
        narrowed(satmae.tiny_group(), where("1,2,3.5,4", "2023-01-01/2023-02-01", 12.5)),
        satmae.group_large(),
    ],
)
def test_the_command_repeats_the_recipe(recipe: Any) -> None:
    given, missing = repeat.flags_of(recipe)
    assert missing == []
    known = croma.RECIPES if recipe.objective == "croma" else satmae.RECIPES
    asked = flags.parse("", known, ["--recipe", recipe.name, "--data", "D", "--out", "O", *given])
    base = known[asked.recipe]()
    again = override(base, steps=asked.steps, global_batch=asked.batch, mode=asked.mode, seed=asked.seed, ema=asked.ema)
    assert narrowed(again, where(asked.bbox, asked.dates, asked.max_cloud)) == recipe


def test_what_no_flag_makes_is_said() -> None:
    changed = dataclasses.replace(croma.tiny(), optim=dataclasses.replace(croma.tiny().optim, base_lr=0.5))
    _, (said,) = repeat.flags_of(changed)
    assert "optim.base_lr: 0.5 then" in said


@pytest.mark.parametrize(
    ("ranks", "device", "wanted"),
    [(1, "cpu", "python"), (2, "cpu:0", "cpu-two-ranks.yaml"), (8, "cuda:0", "--num_processes 8")],
)
def test_as_many_ranks_as_it_had(ranks: int, device: str, wanted: str) -> None:
    assert repeat.launcher({"ranks": ranks, "device": device}).endswith(wanted)


def test_the_revision_is_what_git_says_or_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(revision.VARIABLE, "abc")
    assert revision.of_code(tmp_path) == "abc"
    monkeypatch.setenv(revision.VARIABLE, "")
    assert revision.of_code(tmp_path) is None
    monkeypatch.delenv(revision.VARIABLE)
    assert revision.of_code(tmp_path) is None
    (tmp_path / ".git").mkdir()
    assert revision.of_code(tmp_path) is None
    known = revision.of_code()
    if (Path(revision.__file__).parents[1] / ".git").exists():
        assert known is not None
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", known)


def softmax(scores: torch.Tensor) -> torch.Tensor:
    return scores.exp() / scores.exp().sum(-1, keepdim=True)


def test_attention_distance_is_that_of_a_plain_loop() -> None:
    side, slots = 3, 2
    tokens = slots * side**2
    weights = softmax(torch.randn(2, 3, tokens, tokens, generator=torch.Generator().manual_seed(0)).double())
    found = attention.mean_distance(weights, side)
    for head in range(3):
        total = 0.0
        for sample in range(2):
            for q in range(tokens):
                for k in range(tokens):
                    (qy, qx), (ky, kx) = divmod(q % side**2, side), divmod(k % side**2, side)
                    total += float(weights[sample, head, q, k]) * math.hypot(qy - ky, qx - kx)
        assert float(found[head]) == pytest.approx(total / (2 * tokens), rel=1e-12)


def test_slopes_alone_are_attention_without_content() -> None:
    model = Croma(tiny_run.MODEL).eval()
    with torch.no_grad():
        model.s2_encoder.transformer.layers[0][0].to_qkv.weight.zero_()
        layers = attention.distances(model, _batch(s1=(2, 16), s2=(12, 16)))
    alone = attention.slopes_alone(model)
    (first,) = (one for one in layers if one.of == "optical encoder" and one.number == 1)
    torch.testing.assert_close(first.distance_N, alone, rtol=1e-5, atol=0)
    assert [(one.of, one.number) for one in layers] == [
        ("SAR encoder", 1),
        ("optical encoder", 1),
        ("optical encoder", 2),
        ("fusion encoder, SAR looks at SAR", 1),
        ("fusion encoder, SAR looks at optical", 1),
    ]
    assert float(alone[0]) < float(alone[1])


def _batch(**images: tuple[int, int]) -> Any:
    draw = torch.Generator().manual_seed(1)
    made = {name: torch.rand(2, bands, px, px, generator=draw) for name, (bands, px) in images.items()}
    return type("Batch", (), {"images": made, "dates_BT3": None})()


@pytest.mark.parametrize("kind", ["self", "cross", "vit"])
def test_weights_are_those_that_the_model_uses(kind: str) -> None:
    torch.manual_seed(0)
    width, heads, side = 8, 2, 3
    x, context = torch.randn(2, side**2, width), torch.randn(2, side**2, width)
    bias = alibi_bias(grid_yx(side, side), grid_yx(side, side), alibi_slopes(heads))[None]
    with torch.no_grad():
        if kind == "vit":
            part = vit.Attention(width, heads)
            weights = attention.weights_of(part, x[:, : side**2])
            q, k, _ = part.qkv(x).chunk(3, dim=-1)
            q, k = (one.view(2, -1, heads, width // heads).transpose(1, 2) for one in (q, k))
            whole = softmax(q @ k.transpose(2, 3) / (width // heads) ** 0.5)[:, :, 1:, 1:]
            torch.testing.assert_close(weights.float(), whole / whole.sum(-1, keepdim=True))
            return
        part = SelfAttention(width, heads) if kind == "self" else CrossAttention(width, heads)
        others = (bias,) if kind == "self" else (context, bias)
        weights = attention.weights_of(part, x, *others).float()
        normed = part.input_norm(x if kind == "self" else context)
        v = part.to_qkv(normed).chunk(3, dim=-1)[2] if kind == "self" else part.to_v(normed)
        mixed = (weights @ v.view(2, -1, heads, width // heads).transpose(1, 2)).transpose(1, 2).flatten(2)
        torch.testing.assert_close(part.to_out(mixed), part(x, *others))
    assert attend(x, x, x, heads=heads, bias=None).shape == x.shape


def test_a_chip_of_several_classes_says_so() -> None:
    raster = np.zeros((4, 4), np.uint8)
    raster[:2] = 3
    raster[2, :2], raster[2, 2:], raster[3, :3] = 1, 2, 5
    half = classes.cover(np.where(raster == 5, 0, np.where(raster == 2, 1, raster)).astype(np.uint8))
    assert (half.label, half.share, half.classes, half.mixed) == (3, 8 / 12, 2, False)
    assert not classes.cover(np.repeat(np.uint8([3, 3, 1, 2]), 4)).mixed, "half is enough"
    less = classes.cover(np.repeat(np.uint8([3, 3, 1, 2, 4]), 4), names=("Pastures", "Water"))
    assert less.mixed
    assert str(less) == "class 3 (40%)"
    nothing, same = classes.cover(np.zeros((2, 2), np.uint8)), classes.cover(np.full((2, 2), 7, np.uint8))
    assert (nothing.label, nothing.mixed, str(nothing), str(same)) == (None, False, "unknown", "class 7")
    said = shown(classes.section([half, less, nothing, same]))
    assert "3 chips have a label raster, with 1 to 4 classes each (median 2)" in said
    assert "in 1 of them less than half" in said
    assert "1 chips carry class names, 1 of them several" in said
    assert "Pastures" in said
    assert classes.section([nothing, classes.cover(None)]) == ""


def test_covers_are_those_of_the_stored_labels(tmp_path: Path) -> None:
    data = write_pairs(str(tmp_path), shards=(("train", 5),), classes=3)
    samples = open_samples(data, "train", kind="pair", bands={}, told=True)
    found = classes.covers(samples, range(5), 2)
    assert [one.label for one in found] == labels.stored(samples, range(5), 2) == [None, 1, 2, None, 1]


def test_no_two_classes_look_alike() -> None:
    groups, dots = projection.grouped([None, *[one for label in range(1, 12) for one in [label] * label]])
    assert groups[0] == "unknown"
    assert groups[1] == groups[2] == "other classes"
    assert groups[-1] == "class 11"
    assert len(dots) == 9 == len({(one.colour, one.shape) for one in dots.values()})
    points, axes_of = np.array([[0.0, 0], [1, 1], [2, 0]]), ("a", "b")
    drawn = projection.scatter(points, [dots["unknown"]] * 3, "xyz", axes_of, hollow=(True, False, True))
    assert drawn.count('fill="none"') == 2


def test_components_are_those_of_a_singular_value_decomposition() -> None:
    features = np.random.default_rng(0).normal(size=(40, 6)) * [9, 5, 3, 1, 1, 1] + 7
    found = projection.components(features)
    centred = features - features.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    for axis in (0, 1):
        wanted = left[:, axis] * sizes[axis]
        np.testing.assert_allclose(
            found.points_NK[:, axis] * np.sign(found.points_NK[:, axis] @ wanted), wanted, rtol=1e-9
        )
    np.testing.assert_allclose(found.shares_K, (sizes**2 / (sizes**2).sum())[:2], rtol=1e-9)
    again = projection.components(features[::-1])
    np.testing.assert_allclose(again.points_NK[::-1], found.points_NK, rtol=1e-8)


@pytest.mark.parametrize(("share", "count"), [(0.0, 5), (0.3, 10), (0.5, 400), (1.0, 7)])
def test_ends_of_an_interval_are_just_not_refused(share: float, count: int) -> None:
    for end in wilson(share, count):
        if 0 < end < 1:
            assert abs(share - end) / math.sqrt(end * (1 - end) / count) == pytest.approx(1.959963984540054)
    assert wilson(share, count)[0] <= share <= wilson(share, count)[1]


def test_fits_are_numpys_correlations() -> None:
    draw = torch.Generator().manual_seed(0)
    true, noise = (torch.randn(3, 1, 8, 8, generator=draw) for _ in range(2))
    hidden = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    hidden[:, :, :4] = True
    made = Reconstruction(images=true, predicted=true + noise, hidden=hidden)
    (found,) = fits.fits(made, ["B02"], patch=4)
    inside, guess = true[:, 0, :4].double().numpy(), (true + noise)[:, 0, :4].double().numpy()
    assert found.correlation == pytest.approx(np.corrcoef(inside.ravel(), guess.ravel())[0, 1])
    assert found.error == pytest.approx(np.sqrt(((inside - guess) ** 2).mean()))
    tiles = [np.stack([x[:, :, :4], x[:, :, 4:]]) for x in (inside, guess)]
    left, right = ((x - x.mean(axis=(2, 3), keepdims=True)).ravel() for x in tiles)
    assert found.within == pytest.approx(np.corrcoef(left, right)[0, 1])


def test_panels_show_what_is_hidden() -> None:
    bands = ["B02", "B03", "B04"]
    true = torch.randint(100, 3000, (1, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    hidden = torch.zeros(1, 3, 8, 8, dtype=torch.bool)
    hidden[:, :, :, 4:] = True
    made = Reconstruction(images=true, predicted=torch.full_like(true, 1e5), hidden=hidden)
    seen, masked, guess = painting.panels(made, 0, bands, painting.mix(bands))
    np.testing.assert_array_equal(masked[:, :4], seen[:, :4])
    np.testing.assert_array_equal(guess[:, :4], seen[:, :4])
    assert (masked[:, 4:] == painting.GREY).all()
    assert (guess[:, 4:] == 255).all()
    assert painting.mix(("B11", "B12")) == ("B12", "B11", "B11")
    assert painting.mix(("B05", "B06", "B07", "B8A")) == ("B8A", "B07", "B06")


def test_places_count_as_recall_does() -> None:
    draw = torch.Generator().manual_seed(0)
    queries, gallery = (torch.randn(20, 4, generator=draw) for _ in range(2))
    places = contact.own_places(queries, gallery)
    assert {k: sum(place <= k for place in places) / 20 for k in (1, 5, 10)} == pytest.approx(
        recall(queries, gallery, at=(1, 5, 10))
    )
    order = contact.nearest(queries, gallery, count=20, own=True)
    assert [row.index(i) + 1 for i, row in enumerate(order.tolist())] == places
    alone = contact.nearest(queries, queries, count=19, own=False)
    assert all(i not in row for i, row in enumerate(alone.tolist()))
    assert contact.kilometres((12, 48), (12, 49)) == pytest.approx(6371 * math.pi / 180)
    assert contact.kilometres((179.9, 0), (-179.9, 0)) == pytest.approx(0.2 * 6371 * math.pi / 180)


def test_the_untrained_model_is_the_one_that_the_run_began_with(run: Path) -> None:
    from train.features import open_encoder

    found = encoded.untrained(open_encoder(str(run), None, None)).state_dict()
    torch.manual_seed(tiny_run.RUN.seed)
    for name, wanted in Croma(tiny_run.MODEL).state_dict().items():
        torch.testing.assert_close(found[name], wanted, rtol=0, atol=0)


def test_band_statistics_are_those_of_pixels() -> None:
    draw = torch.Generator().manual_seed(0)
    pair = {"s1": torch.rand(3, 2, 4, 4, generator=draw), "s2": torch.rand(3, 5, 4, 4, generator=draw)}
    found = encoded.band_statistics(pair)
    assert found["joint"].shape == (3, 14)
    np.testing.assert_allclose(found["s2"][1, 3], pair["s2"][1, 3].numpy().mean(), rtol=1e-6)
    np.testing.assert_allclose(found["s2"][1, 8], pair["s2"][1, 3].numpy().std(), rtol=1e-5)
    stack = torch.rand(3, 2, 5, 4, 4, generator=draw)
    np.testing.assert_allclose(encoded.band_statistics({"s2": stack})["s2"][0, 1], stack[0, :, 1].mean(), rtol=1e-6)


def test_what_the_length_of_a_run_lets_expect() -> None:
    short = reading.extent(samples=1920, train=72, published=192_000, name="base")
    assert "each of 72 training samples 26.7 times" in short
    assert "reads 192,000, 100 times as many. The less of that" in short
    assert "1.0 times as many. The less" in reading.extent(samples=99, train=None, published=100, name="base")
    assert "is a finding" in reading.extent(samples=100, train=None, published=100, name="base")
    assert reading.ahead(done=12, steps=12) == ""
    assert "1 of 12 steps" in reading.ahead(done=11, steps=12)


def test_which_losses_fell() -> None:
    assert reading.falls({"a": (2, 1), "b": (1, 0.999)}).startswith("all 2 fell")
    said = reading.falls({"a": (2, 1), "same": (1, 1), "nothing": (math.nan, math.nan)})
    assert said.startswith("1 of 3 fell")
    assert "not same (1 → 1), nothing (nan → nan)" in said
    assert reading.falls({"total": (2, 1)}).startswith("it fell")
    assert "no better than guessing" in reading.guessing(math.log(16), math.log(16), 16)
    assert "among 8.0 images instead of 16" in reading.guessing(math.log(8), math.log(16), 16)
    assert reading.guessing(math.nan, math.log(16), 16) == ""


def test_patches_are_as_flat_as_their_correlations() -> None:
    said = reading.flat({"Sentinel-2": [0.6, -0.9, math.nan], "Sentinel-1": [0.0]})
    assert "carries 18% of Sentinel-2's and 0% of Sentinel-1's variance" in said
    assert reading.flat({"Sentinel-2": [math.nan]}) == ""
    assert "waits 0.0%" in reading.waiting(0.0)
    assert reading.waiting(math.nan) == ""


def test_a_share_beside_others_is_judged_by_its_interval() -> None:
    said = reading.beside(0.5, (0.4, 0.6), {"low": 0.39, "end": 0.4, "high": 0.61})
    assert said.endswith("lies above low (0.390), and cannot be told from end (0.400), and lies below high (0.610).")
    assert [reading.apart((0.4, 0.6), other) for other in ((0.1, 0.39), (0.1, 0.4), (0.7, 0.8))] == [
        "above", "overlap", "below",
    ]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), [(0.5, 0.6), (0.9, 0.2), (0.61, 0.6)])
def test_so_many_samples_tell_two_shares_apart(one: float, other: float) -> None:
    count = reading.needed(one, other)
    assert count is not None
    assert reading.apart(wilson(one, count), wilson(other, count)) != "overlap"
    fewer = int(count * 0.97) - 1
    assert reading.apart(wilson(one, fewer), wilson(other, fewer)) == "overlap"
    assert reading.needed(0.5, 0.5) is None
    assert f"about {count:,} would" in reading.compared(one, {"untrained": other}, samples=fewer)
    assert "untrained" in reading.compared(one, {"untrained": other}, samples=10 * count).split(":")[0]


def test_a_rank_beside_what_it_could_be() -> None:
    def said(trained: float, samples: int) -> str:
        return reading.ranks(trained, untrained=2.0, bands=3.0, samples=samples, width=64)

    assert said(2.5, 63).startswith("2.5 of at most 63 (63 samples cannot show more); training raised it from 2.0")
    assert said(2.0, 64).startswith("2.0 of at most 64; training left it at 2.0")
    assert "lowered it from 2.0" in said(1.5, 64)


def test_running_means_are_those_of_a_plain_loop() -> None:
    values = np.random.default_rng(0).normal(size=200)
    wanted = [values[max(0, i - 5) : i + 6].mean() for i in range(200)]
    np.testing.assert_allclose(curves.smoothed(values), wanted)
    steps, means = curves.thinned(np.arange(2001.0), np.arange(2001.0))
    assert len(steps) <= 400
    np.testing.assert_array_equal(steps, means)


def test_numbers_are_as_short_as_they_can_be() -> None:
    numbers = (199_552_385, 15_866, 2_000, 0.25, 3.75e-6, 0)
    assert [axes.short(number) for number in numbers] == ["199.6M", "15.87k", "2000", "0.25", "3.75e-6", "0"]


@pytest.mark.parametrize("ends", [(0.0, 1.0), (-3.7, 12.2), (1e-5, 3e-5), (5.0, 5.0), (0.0, 123_456.0)])
def test_ticks_are_round_and_within(ends: axes.Ends) -> None:
    found = axes.ticks(ends)
    assert 1 <= len(found) <= 9
    assert all(ends[0] - 1e-9 <= one <= ends[1] + 1e-9 for one in found)
    if len(found) > 1:
        digit = f"{found[1] - found[0]:e}"[0]
        assert digit in "125"


def test_the_last_number_of_an_axis_stays_inside() -> None:
    last = axes.grid(axes.Frame(x=(0.0, 300_000.0), y=(0.0, 1.0)), "step")[-2]
    assert 'text-anchor="end">300k' in last


def test_a_browser_shows_it(html: str, tmp_path: Path) -> None:
    seen, complaints, picture = browser.look(html, tmp_path, widths=(400, 1280))
    assert complaints == []
    for one, window in zip(seen, (400, 1280), strict=True):
        assert one.window == window
        assert one.width <= window, "wider than its window"
        assert one.pictures > 40
        assert one.broken == 0
        assert "What the features are worth" in one.text
        assert _brightness(one.ink) + 150 < _brightness(one.paper)
    assert picture.startswith(b"\x89PNG")


def test_a_browser_shows_it_in_the_dark(html: str, tmp_path: Path) -> None:
    (dark,), _, _ = browser.look(html, tmp_path, widths=(800,), dark=True)
    assert _brightness(dark.paper) + 150 < _brightness(dark.ink)


def _brightness(colour: str) -> float:
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

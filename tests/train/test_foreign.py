"""Tars that webdataset wrote, streamed as they are: its reader says what is in them, plain loops what it means."""

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny_pairs import make_sample

from pipeline import index, manifest
from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.errors import ContractError, CorruptShard, PretrainError
from pipeline.index import MemberRef
from pipeline.store import Store
from train import indexing
from train.indexing import Request, build, expand
from train.stream import foreign, tars
from train.stream.foreign import Meta, Split, convert, members_for, parse
from train.stream.join import facts, split_of
from train.stream.lanes import LanePlan
from train.stream.loader import Loader, Share, StreamConfig
from train.stream.samples import open_samples
from train.stream.tars import Tape, scan

webdataset = pytest.importorskip("webdataset", reason="needs the train extra")
pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # webdataset leaves closing to the collector
]
ROOT = Path(__file__).parents[2]
PX = 16
PLAIN = {
    "s2": {"suffix": "s2.npy", "bands": list(S2_NAMES)},
    "s1": {"suffix": "s1.npy", "bands": list(S1_NAMES)},
}
PLACED = {"meta": {"suffix": "json", "lon": "place.0", "lat": "place.1", "time": "when"}}
Sample = dict[str, Any]


def sample(number: int, *, folder: str = "", px: int = PX) -> Sample:
    """As webdataset's writers take it."""
    made = make_sample(number, px)
    told = {"place": [10 + number, 48.0], "when": f"2023-06-{number % 28 + 1:02d}T10:00:00Z"}
    return {"__key__": f"{folder}patch_{number:03d}", "s1.npy": made.s1, "json": told, "s2.npy": made.s2}


def write_tar(path: Path, samples: list[Sample]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as writer:
        for one in samples:
            writer.write(one)
    return path


def write_raw(path: Path, members: list[tuple[str, bytes]], *, kind: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=kind) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def theirs(path: Path) -> list[Sample]:
    """The samples that webdataset reads, undecoded."""
    return list(webdataset.WebDataset(str(path), shardshuffle=False))


def members(one: Sample) -> dict[str, bytes]:
    return {name: data for name, data in one.items() if not name.startswith("__")}


def scanned(path: Path, wanted: set[str]) -> list[tars.Found]:
    return list(scan(Tape(store=Store.at(path.parent), name=path.name), wanted))


def map_file(folder: Path, content: dict[str, Any]) -> str:
    path = folder / "map.json"
    path.write_text(json.dumps(content))
    return str(path)


def indexed(folder: Path, content: dict[str, Any], *given: Path | str, out: str | None = None, **more: Any) -> Store:
    """The data set of some tars."""
    out = out or str(folder / "indexed")
    request = Request(tars=tuple(map(str, given)), map=map_file(folder, content), out=out, **more)
    build(request, lambda _: None)
    return Store.at(out)


def rows(store: Store) -> list[dict[str, Any]]:
    return manifest.load_index(store, manifest.load(store)).to_pylist()


def message(call: Callable[[], object]) -> str:
    with pytest.raises(PretrainError) as caught:
        call()
    return str(caught.value)


@pytest.fixture
def patches(tmp_path: Path) -> Iterator[list[Path]]:
    """Five tars of seven samples by ShardWriter."""
    (tmp_path / "tars").mkdir()
    with webdataset.ShardWriter(str(tmp_path / "tars" / "p-%04d.tar"), maxcount=7, verbose=0) as writer:
        for number in range(33):
            writer.write(sample(number))
    return sorted((tmp_path / "tars").iterdir())


def test_places_are_those_of_webdataset(patches: list[Path]) -> None:
    for path in patches:
        data, wanted = path.read_bytes(), theirs(path)
        found = scanned(path, {"s1.npy", "s2.npy", "json"})
        assert [one.key for one in found] == [one["__key__"] for one in wanted]
        for one, other in zip(found, wanted, strict=True):
            assert one.suffixes == members(other).keys() == one.refs.keys()
            for suffix, ref in one.refs.items():
                assert data[ref.offset :][: ref.size] == members(other)[suffix]
                assert index.check(members(other)[suffix], ref)


NAMES = [
    "a/b.c/k.one.npy", "a/b.c/k.two.NPY", "./k.one.npy", "./k.two.npy", "__meta__", "__skipped__/k.one.npy",
    "a/__kept__/k.one.npy", "plain", "dir/plain", "k.one.npy", ".hidden", "dir/.hidden.npy", "x.tar/.y", "k.two.npy",
    "k.", "a/k.one.npy", f"{'long/' * 40}{'name' * 30}.one.npy", "a/k.two.npy", "ü.one.npy",
]  # fmt: skip


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_keys_and_groups_are_those_of_webdataset(tmp_path: Path, kind: int) -> None:
    names = [name for name in NAMES if kind != tarfile.USTAR_FORMAT or len(name) < 100]
    path = write_raw(tmp_path / "odd.tar", [(name, name.encode() * 99) for name in names], kind=kind)
    wanted = theirs(path)
    found = scanned(path, {suffix for one in wanted for suffix in members(one)})
    assert [(one.key, set(one.refs)) for one in found] == [(one["__key__"], set(members(one))) for one in wanted]
    data = path.read_bytes()
    for one, other in zip(found, wanted, strict=True):
        assert {name: data[ref.offset :][: ref.size] for name, ref in one.refs.items()} == members(other)


def test_links_and_folders_are_no_members(tmp_path: Path) -> None:
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("d.npy", tarfile.DIRTYPE), ("a.link", tarfile.SYMTYPE), ("a.hard", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a.npy"
            tar.addfile(info)
        info = tarfile.TarInfo("a.npy")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    assert (
        [one.suffixes for one in scanned(path, {"npy"})] == [{"npy"}] == [members(one).keys() for one in theirs(path)]
    )


def test_memory_does_not_grow_with_the_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_raw(tmp_path / "large.tar", [(f"k{i}.npy", bytes(3000)) for i in range(40)])
    monkeypatch.setattr(tars, "CHUNK_BYTES", 700)
    reads = []
    real = Store.read_range
    monkeypatch.setattr(Store, "read_range", lambda *call: reads.append(call[3] - call[2]) or real(*call))
    tape = Tape(store=Store.at(tmp_path), name=path.name)
    assert len(list(scan(tape, {"npy"}))) == 40
    assert max(reads) == 700
    assert sum(reads) == tape.size == path.stat().st_size
    assert tape.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_index_is_what_a_plain_loop_finds(tmp_path: Path, patches: list[Path]) -> None:
    store = indexed(tmp_path, {**PLAIN, **PLACED, "split": {"val_tars": ["*/p-0003.tar"]}}, *patches)
    wanted = []
    for path in patches:
        with tarfile.open(path) as tar:
            infos = {info.name: info for info in tar}
        for name in infos:
            if not name.endswith(".s2.npy"):
                continue
            key = name.removesuffix(".s2.npy")
            number = int(key.removeprefix("patch_"))
            row = {
                "shard": path.as_uri(), "key": key, "split": "val" if path.name == "p-0003.tar" else "train",
                "group": f"960:{(10 + number) * 20}", "lon": 10.0 + number, "lat": 48.0,
                "time": datetime(2023, 6, number % 28 + 1, 10, tzinfo=UTC),
                "gap_hours": None, "cloud": None, "shift_dy": None, "shift_dx": None,
            }  # fmt: skip
            for sensor in ("s2", "s1"):
                info = infos[f"{key}.{sensor}.npy"]
                data = path.read_bytes()[info.offset_data :][: info.size]
                row |= {f"{sensor}_offset": info.offset_data, f"{sensor}_size": info.size}
                row |= {f"{sensor}_crc32c": index.crc32c(data)}
            wanted.append(row)
    assert rows(store) == wanted
    known = manifest.load(store)
    assert known.counts == {"accepted": 33}
    assert (known.samples("train"), known.samples("val")) == (26, 7)
    assert [entry.sha256 for entry in known.shards] == [manifest.sha256(path.read_bytes()) for path in patches]
    assert store.names() == ["foreign.json", "index.parquet", "manifest.json", "stats.json"]


def test_samples_and_batches_are_the_source_s(tmp_path: Path, patches: list[Path]) -> None:
    store = indexed(tmp_path, PLAIN, *patches)
    samples = open_samples(store, "train", kind="pair", bands={"s1": ("VH",), "s2": ("B8A", "B02")}, told=True)
    for number in (0, 6, 7, 32):
        chips, wanted = samples.read(number), make_sample(number, PX)
        assert samples.key(number) == f"patch_{number:03d}"
        assert_array_equal(chips.images["s1"], wanted.s1[1:])
        assert_array_equal(chips.images["s2"], wanted.s2[[8, 1]])
        assert chips.meta is chips.label is None
    config = StreamConfig(global_batch=8, s1_bands=S1_NAMES, s2_bands=S2_NAMES, image_px=8)
    whole = open_samples(store, "train", kind="pair", bands=config.bands)
    plan = LanePlan(shard_sizes=whole.shard_sizes, lanes=4, global_batch=8, seed=7)
    with Loader(whole, plan, config, share=Share()) as batches:
        batch, state = next(batches)
    assert batch.images["s2"].shape == (8, 12, 8, 8)
    assert state.index_sha256 == manifest.load(store).index_sha256


def test_statistics_are_those_of_all_pixels(tmp_path: Path, patches: list[Path]) -> None:
    made = [make_sample(number, PX) for number in range(33)]
    few = manifest.load_stats(indexed(tmp_path, PLAIN, *patches, statistics=5))
    again = indexed(tmp_path, PLAIN, *patches, statistics=5, threads=1, out=str(tmp_path / "again"))
    assert manifest.load_stats(again) == few
    assert few.s2.count[0] == 5 * (PX * PX - 3)
    stats = manifest.load_stats(indexed(tmp_path, PLAIN, *patches, statistics=0, out=str(tmp_path / "all")))
    s2 = np.concatenate([one.s2[:, (one.s2 != 0).all(axis=0)] for one in made], axis=1).astype(np.float64)
    s1 = np.concatenate([one.s1[:, np.isfinite(one.s1).all(axis=0)] for one in made], axis=1).astype(np.float64)
    for measured, pixels in ((stats.s2, s2), (stats.s1, s1)):
        assert_allclose(measured.mean, pixels.mean(axis=1), rtol=1e-9)
        assert_allclose(measured.std, pixels.std(axis=1), rtol=1e-9)
        assert measured.maximum == tuple(pixels.max(axis=1))


def test_tars_in_the_data_set_are_named_by_where_they_are(tmp_path: Path, patches: list[Path]) -> None:
    store = indexed(tmp_path, PLAIN, f"{tmp_path}/tars/p-*.tar", out=str(tmp_path / "tars"))
    assert {row["shard"] for row in rows(store)} == {path.name for path in patches}
    moved = (tmp_path / "tars").rename(tmp_path / "moved")
    samples = open_samples(Store.at(moved), "train", kind="pair", bands={"s2": S2_NAMES})
    assert_array_equal(samples.read(20).images["s2"], make_sample(20, PX).s2)


def test_object_stores(tmp_path: Path, patches: list[Path]) -> None:
    for path in patches:
        Store.at("memory://foreign/tars").publish(path.name, path.read_bytes())
    given = "memory://foreign/tars/p-{0000..0004}.tar"
    beside = indexed(tmp_path, PLAIN, given, out="memory://foreign")
    apart = indexed(tmp_path, PLAIN, given, out="memory://elsewhere")
    assert [row["shard"] for row in rows(beside)][::32] == ["tars/p-0000.tar", "tars/p-0004.tar"]
    assert rows(apart)[0]["shard"] == "memory:///foreign/tars/p-0000.tar"
    for store in (beside, apart):
        samples = open_samples(store, "train", kind="pair", bands={"s1": S1_NAMES})
        assert_array_equal(samples.read(32).images["s1"], make_sample(32, PX).s1)


def test_sensors_in_tars_of_their_own(tmp_path: Path) -> None:
    """As TerraMesh has them: one folder a sensor, equal names of tars and keys."""
    made = [sample(number) for number in range(6)]
    for sensor, suffix, order in (("S2L2A", "s2.npy", range(6)), ("S1RTC", "s1.npy", (3, 1, 0, 2, 5, 4))):
        parts = [{"__key__": made[i]["__key__"], "npy": made[i][suffix]} for i in order]
        write_tar(tmp_path / "train" / sensor / "shard_1.tar", parts)
    content = {
        "s2": {"suffix": "npy", "bands": list(S2_NAMES)},
        "s1": {"suffix": "npy", "bands": ["VV", "VH"], "tar": ["S2L2A", "S1RTC"]},
    }
    store = indexed(tmp_path, content, tmp_path / "train" / "S2L2A" / "shard_1.tar")
    samples = open_samples(store, "train", kind="pair", bands={"s1": S1_NAMES, "s2": S2_NAMES})
    for number in range(6):
        chips, wanted = samples.read(number), make_sample(number, PX)
        assert_array_equal(chips.images["s1"], wanted.s1)
        assert_array_equal(chips.images["s2"], wanted.s2)
    write_tar(tmp_path / "train" / "S1RTC" / "shard_1.tar", parts[1:])
    again = {"out": str(tmp_path / "again")}
    told = message(lambda: indexed(tmp_path, content, tmp_path / "train" / "S2L2A" / "shard_1.tar", **again))
    assert "patch_003" in told
    assert "npy in file://" in told
    (tmp_path / "train" / "S1RTC" / "shard_1.tar").unlink()
    assert "S1RTC/shard_1.tar is not there" in message(
        lambda: indexed(tmp_path, content, tmp_path / "train" / "S2L2A" / "shard_1.tar", **again)
    )
    assert "has not all of ['S2L2A']" in message(lambda: indexed(tmp_path, content, tmp_path / "other.tar", **again))


def test_a_missing_member_is_refused_or_counted(tmp_path: Path) -> None:
    made = [sample(number) for number in range(4)]
    del made[2]["s1.npy"]
    path = write_tar(tmp_path / "some.tar", [{"__key__": "README", "txt": "hello"}, *made])
    told = message(lambda: indexed(tmp_path, PLAIN, path))
    assert "patch_002" in told
    assert "some.tar has no s1.npy" in told
    assert "only ['json', 's2.npy']" in told
    assert "--skip-incomplete" in told
    store = indexed(tmp_path, PLAIN, path, skip_incomplete=True)
    assert [row["key"] for row in rows(store)] == ["patch_000", "patch_001", "patch_003"]
    assert manifest.load(store).counts == {"accepted": 3, "incomplete": 1, "without a mapped member": 1}


def test_members_that_are_apart_or_double_are_refused(tmp_path: Path) -> None:
    chip = npy(make_sample(1, PX).s2)
    apart = write_raw(tmp_path / "apart.tar", [("a.s2.npy", chip), ("b.s2.npy", chip), ("a.s2.npy", chip)])
    only = {"s2": PLAIN["s2"]}
    assert "has a twice" in message(lambda: indexed(tmp_path, only, apart))
    double = write_raw(tmp_path / "double.tar", [("a.s2.npy", chip), ("a.S2.npy", chip)])
    assert "a.S2.npy twice" in message(lambda: indexed(tmp_path, only, double))
    with pytest.raises(ValueError, match="duplicate"):
        theirs(double)


def test_every_cut_and_every_damaged_header_is_told(tmp_path: Path) -> None:
    whole = write_raw(tmp_path / "whole.tar", [(f"k{i}.x.npy", bytes([i]) * (300 + 500 * i)) for i in range(4)])
    data = whole.read_bytes()
    with tarfile.open(whole) as tar:
        headers = [info.offset for info in tar]
    path = tmp_path / "cut.tar"
    end = headers[-1] + 512 + 2048 + 512
    for cut in {*headers[1:], *(at + 100 for at in headers), *(at + 600 for at in headers), end - 512}:
        path.write_bytes(data[:cut])
        for wanted in ({"x.npy"}, {"other"}):
            told = message(lambda wanted=wanted: scanned(path, wanted))
            assert "cut.tar is damaged at byte" in told
            assert int(told.split("byte ")[1].split(",")[0]) <= cut
    for number, at in enumerate(headers):
        for mark in (b"\xff" * 8, bytes(512)):
            path.write_bytes(data[:at] + mark + data[at + len(mark) :])
            told = message(lambda: scanned(path, {"x.npy"}))
            assert f"byte {at}," in told
            assert number == 0 or f"after k{number - 1}.x.npy" in told
    path.write_bytes(data[:end])
    assert len(scanned(path, {"x.npy"})) == 4


def test_compressed_and_absent_tars(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        tar.add(__file__, "a.npy")
    assert "unpack it" in message(lambda: scanned(tmp_path / "a.tar", {"npy"}))
    assert "is not there" in message(lambda: scanned(tmp_path / "b.tar", {"npy"}))
    (tmp_path / "c.tar").write_bytes(b"")
    assert "damaged at byte 0" in message(lambda: scanned(tmp_path / "c.tar", {"npy"}))


def test_a_stopped_scan_goes_on(tmp_path: Path, patches: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    good = patches[3].read_bytes()
    patches[3].write_bytes(good[:5000])
    with pytest.raises(CorruptShard, match=r"p-0003\.tar is damaged"):
        indexed(tmp_path, PLAIN, *patches, threads=1)
    out = Store.at(tmp_path / "indexed")
    assert out.names() == ["scan"]
    assert len(out.names("scan")) >= 3
    patches[3].write_bytes(good)
    opened = []
    real = indexing.scan
    monkeypatch.setattr(
        indexing, "scan", lambda tape, *rest, **more: opened.append(tape.name) or real(tape, *rest, **more)
    )
    store = indexed(tmp_path, PLAIN, *patches)
    assert "p-0003.tar" in opened
    assert set(opened) <= {"p-0003.tar", "p-0004.tar"}
    fresh = indexed(tmp_path, PLAIN, *patches, threads=1, out=str(tmp_path / "fresh"))
    assert all(store.read(name) == fresh.read(name) for name in store.names())
    assert "never changed" in message(lambda: indexed(tmp_path, PLAIN, *patches))


@pytest.mark.parametrize(
    ("member", "stored", "wanted"),
    [
        ({"scale": 10000.0}, [np.nan, 0.0, 0.00001, 0.1234, 7.0], [0, 0, 1, 1234, 65535]),
        ({"offset": -1000.0}, [0, 999, 1001, 2000, 70000], [0, 1, 1, 1000, 65535]),
        ({"nodata": -9999.0}, [-9999, 0, 1, 2, 3], [0, 1, 1, 2, 3]),
        ({"offset": -1000.0, "nodata": 7.0}, [7.0, 1500.4, np.inf, -np.inf, 1600.6], [0, 500, 0, 0, 601]),
    ],
    ids=str,
)
def test_digital_numbers(member: dict, stored: list, wanted: list) -> None:
    one = foreign.Member(suffix="npy", bands=("B02",), **member)
    array = convert("s2", one, np.array(stored)[None, None])
    assert array.dtype == "<u2"
    assert array[0, 0].tolist() == wanted


@pytest.mark.parametrize(
    ("member", "stored", "wanted"),
    [
        ({}, [-12.5, np.nan, -80, np.inf, 3], [-12.5, np.nan, -50, np.nan, 3]),
        ({"quantity": "power", "nodata": -32768.0}, [1, 0.1, 0, -32768, 1e-9], [0, -10, np.nan, np.nan, -50]),
        ({"quantity": "amplitude", "offset": -83.0}, [0, 1, 1000, 10000, 3000], None),
        ({"nodata": 0.0}, [0, -1, 1, 2, 3], [np.nan, -1, 1, 2, 3]),
    ],
    ids=str,
)
def test_decibels(member: dict, stored: list, wanted: list | None) -> None:
    one = foreign.Member(suffix="npy", bands=("VV",), **member)
    array = convert("s1", one, np.array(stored)[None, None])
    assert array.dtype == "<f4"
    wanted = wanted or [np.nan, -50, *(20 * np.log10(stored[2:]) - 83)]
    assert_allclose(array[0, 0], wanted, rtol=1e-6)


def test_bands_are_kept_by_name(tmp_path: Path) -> None:
    bands = ("B02", "B10", "B01")
    source = np.arange(3 * 4 * 4, dtype=np.int16).reshape(3, 4, 4) + 1
    first = foreign.Member(suffix="npy", bands=bands)
    last = foreign.Member(suffix="npy", bands=bands, layout="HWC")
    for array in (convert("s2", first, source), convert("s2", last, np.moveaxis(source, 0, -1))):
        assert_array_equal(array, source[[0, 2]])
    assert foreign.stored_bands("s2", first) == ("B02", "B01")
    flat = foreign.Member(suffix="npy", bands=("label",))
    assert_array_equal(convert("label", flat, source[0]), source[0])
    for array, told in ((source[:2], "2 bands"), (source[None], r"\(1, 3, 4, 4\)"), (source.astype("U3"), "<U")):
        with pytest.raises(ContractError, match=told):
            convert("s2", first, array)


def test_npz_labels_and_plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in decodes what we do not know, here a raw dump; without being offered it is not called."""
    made = [make_sample(number, PX) for number in range(3)]
    label = np.arange(PX * PX, dtype=np.int64).reshape(PX, PX) % 11
    parts = [
        {"__key__": f"a/k{i}", "npz": {"s2": one.s2, "x": label}, "raw": one.s1.tobytes(), "lulc.npy": label}
        for i, one in enumerate(made)
    ]
    path = write_tar(tmp_path / "mixed.tar", parts)
    (tmp_path / "theirs.py").write_text(
        "import numpy\n"
        "def decode(data): return numpy.frombuffer(data, '<f4').reshape(2, 16, 16)\n"
        "def other(data): raise SystemExit\n"
        "DECODERS = (decode,)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    content = {
        "s2": {"suffix": "npz", "decoder": "npz:s2", "bands": list(S2_NAMES)},
        "s1": {"suffix": "raw", "decoder": "theirs:decode", "bands": ["VV", "VH"]},
        "label": {"suffix": "lulc.npy", "bands": ["label"]},
    }
    store = indexed(tmp_path, content, path)
    samples = open_samples(store, "train", kind="pair", bands={"s1": S1_NAMES, "s2": S2_NAMES}, told=True)
    for number, one in enumerate(made):
        chips = samples.read(number)
        assert_array_equal(chips.images["s2"], one.s2)
        assert_array_equal(chips.images["s1"], one.s1)
        assert_array_equal(chips.label, label)
    for name, told in (
        ("theirs:other", "DECODERS = (other,)"), ("os:system", "does not offer"), ("nowhere:f", "PYTHONPATH"),
        ("theirs:no", "no attribute"), ("zip", "npz:KEY"),
    ):  # fmt: skip
        assert told in message(lambda name=name: foreign.decoder(name))
    content["s2"]["decoder"] = "npz:s3"
    out = str(tmp_path / "again")
    assert "no array 's3', only ['s2', 'x']" in message(lambda: indexed(tmp_path, content, path, out=out))


def test_wrong_units_sizes_and_maps_are_told(tmp_path: Path) -> None:
    made = [sample(number) for number in range(3)]
    wrong = {
        "a `scale` of 10000": {"s2.npy": made[0]["s2.npy"].astype(np.float32) / 10000},
        "`quantity`: power": {"s1.npy": 10 ** (made[0]["s1.npy"] / 10)},
        "no valid pixel": {"s1.npy": made[0]["s1.npy"] * np.nan},
        "squares": {name: made[0][name][:, 1:] for name in ("s1.npy", "s2.npy")},
    }
    for number, (told, change) in enumerate(wrong.items()):
        path = write_tar(tmp_path / f"{number}.tar", [made[0] | change])
        assert told in message(lambda path=path, n=number: indexed(tmp_path, PLAIN, path, out=str(tmp_path / f"o{n}")))
    path = write_tar(tmp_path / "sizes.tar", [made[0], sample(1, px=8)])
    assert "that of the first sample" in message(lambda: indexed(tmp_path, PLAIN, path, out=str(tmp_path / "s")))
    none = write_tar(tmp_path / "none.tar", [{"__key__": "a", "png": b"x"}])
    assert "which hold ['png']" in message(lambda: indexed(tmp_path, PLAIN, none, out=str(tmp_path / "n")))
    s2 = PLAIN["s2"]
    for content, told in (
        ({}, "neither"), ({"s2": {**s2, "tar": ["a", "b"]}}, "neither"), ({"s2": {**s2, "bands": ["B10"]}}, "B10"),
        ({"s2": {**s2, "bands": ["B02", "B02"]}}, "each once"), ({"s2": {**s2, "suffix": "S2"}}, "lower case"),
        ({"s2": {**s2, "quantity": "power"}}, "only s1"), ({"s2": {**s2, "colour": 1}}, "colour"),
        ({"s2": s2, "split": {"val_percent": 100}}, "less than 100"), ({"s3": s2}, "s3"),
        ({"s2": s2, "split": {"val_percent": 5, "val_tars": ["x"]}}, "one of them"), ([], "an object"),
    ):  # fmt: skip
        assert told in message(lambda content=content: parse(json.dumps(content).encode(), where="map"))
    assert "map is not JSON" in message(lambda: parse(b"{", where="map"))


def test_where_tars_are_looked_for(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    at = str(tmp_path)
    assert expand([f"{at}/*.tar", f"{at}/a.tar"]) == [f"{at}/a.tar", f"{at}/b.tar"]
    assert expand(["s3://x/{08..10}.tar"]) == [f"s3://x/{n}.tar" for n in ("08", "09", "10")]
    assert "finds nothing" in message(lambda: expand([f"{at}/*.zip"]))
    told = message(lambda: expand(["https://host/a.tar?sig=secret"]))
    assert "credentials in the environment" in told
    assert "secret" not in told


def test_places_and_splits() -> None:
    meta = Meta(suffix="json", lon="p.lon", lat="p.lat", time="t")
    tell = lambda value: facts(meta, {"json": json.dumps(value).encode()}, where="k")  # noqa: E731
    assert tell({"p": {"lon": 1, "lat": 2.5}, "t": "2020-01-02T03:04:05+02:00"}) == (
        1.0, 2.5, datetime(2020, 1, 2, 1, 4, 5, tzinfo=UTC)
    )  # fmt: skip
    for value in ({}, {"p": [], "t": 7}, {"p": {"lon": True, "lat": "x"}, "t": "soon"}, [1]):
        lon, lat, time = tell(value)
        assert np.isnan([lon, lat]).all()
        assert time is None
    with pytest.raises(ContractError, match=r"lat 200\.0"):
        tell({"p": {"lon": 1, "lat": 200}})
    with pytest.raises(ContractError, match=r"k\.json is not JSON"):
        facts(meta, {"json": b"\xff"}, where="k")
    split = Split(val_percent=10.0, seed=3)
    chosen = [split_of(split, "u", str(group)) for group in range(5000)]
    assert 400 < chosen.count("val") < 600
    assert chosen != [split_of(Split(val_percent=10.0), "u", str(group)) for group in range(5000)]
    assert {split_of(Split(), "u", str(g)) for g in range(50)} == {"train"}


def test_a_share_for_validation_is_read_from_the_same_tars(tmp_path: Path, patches: list[Path]) -> None:
    store = indexed(tmp_path, {**PLAIN, "split": {"val_percent": 40}}, *patches)
    keys = []
    for split in ("train", "val"):
        samples = open_samples(store, split, kind="pair", bands={"s2": S2_NAMES})
        for number in range(samples.samples):
            keys.append(samples.key(number))
            wanted = make_sample(int(keys[-1].removeprefix("patch_")), PX)
            assert_array_equal(samples.read(number).images["s2"], wanted.s2)
        assert 5 < samples.samples < 28
    assert sorted(keys) == [f"patch_{number:03d}" for number in range(33)]


def test_what_changed_behind_the_index_is_told(tmp_path: Path, patches: list[Path]) -> None:
    store = indexed(tmp_path, PLAIN, *patches)
    samples = open_samples(store, "train", kind="pair", bands={"s2": S2_NAMES})
    data = bytearray(patches[0].read_bytes())
    data[rows(store)[0]["s2_offset"] + 200] ^= 1
    patches[0].write_bytes(data)
    patches[1].unlink()
    for number in (0, 8):
        with pytest.raises(CorruptShard, match=f"patch_{number:03d}"):
            samples.read(number)
    known = manifest.load(store)
    store.publish("foreign.json", store.read("foreign.json").replace(b'"scale":1.0', b'"scale":2.0'))
    assert "not the one of the manifest" in message(lambda: members_for(store, known))
    store.remove("foreign.json")
    assert "has no foreign.json" in message(lambda: members_for(store, known))


def test_the_index_has_the_bytes_that_our_own_writer_gives(tmp_path: Path, patches: list[Path]) -> None:
    store = indexed(tmp_path, PLAIN, *patches)
    table = index.from_parquet(store.read("index.parquet"), where="x")
    made = [
        index.IndexRow(
            **{
                name: row[name]
                for name in ("shard", "key", "split", "group", "lon", "lat", "time", "gap_hours", "cloud")
            },
            shift=None,
            members={
                name: MemberRef(**{part: row[f"{name}_{part}"] for part in ("offset", "size", "crc32c")})
                for name in ("s2", "s1")
            },
        )
        for row in table.to_pylist()
    ]
    assert index.to_parquet(made) == store.read("index.parquet")


def test_terramesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its members and folders, by the decoder in `examples`."""
    zarr = pytest.importorskip("zarr", reason="needs the ingest extra")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    made = [make_sample(number, PX) for number in range(4)]
    for folder, arrays in (("S2L2A", [one.s2.astype(np.int16) for one in made]), ("S1RTC", [one.s1 for one in made])):
        parts = []
        for number, array in enumerate(arrays):
            path = tmp_path / folder / f"{number}.zarr.zip"
            path.parent.mkdir(exist_ok=True)
            with zarr.storage.ZipStore(path, mode="w") as zipped:
                group = zarr.create_group(zipped, zarr_format=2)
                timed = array[:, None] if number % 2 else array
                axes = {"_ARRAY_DIMENSIONS": ["band", "time", "y", "x"] if number % 2 else ["band", "y", "x"]}
                group.create_array("bands", data=timed, chunks=timed.shape, attributes=axes)
            parts.append((f"majortom_train_{number:07d}.zarr.zip", path.read_bytes()))
        write_raw(tmp_path / folder / "majortom_shard_000001.tar", parts)
    content = {
        "s2": {"suffix": "zarr.zip", "decoder": "terramesh:bands", "bands": list(S2_NAMES)},
        "s1": {
            "suffix": "zarr.zip", "decoder": "terramesh:bands", "bands": ["VV", "VH"], "tar": ["S2L2A", "S1RTC"]
        },
    }  # fmt: skip
    store = indexed(tmp_path, content, tmp_path / "S2L2A" / "majortom_shard_{000001..000001}.tar")
    samples = open_samples(store, "train", kind="pair", bands={"s1": S1_NAMES, "s2": S2_NAMES})
    for number, one in enumerate(made):
        assert samples.key(number) == f"majortom_train_{number:07d}"
        assert_array_equal(samples.read(number).images["s2"], one.s2)
        assert_array_equal(samples.read(number).images["s1"], one.s1)


def test_the_map_in_the_readme_is_one() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", (ROOT / "train" / "README.md").read_text(), re.DOTALL)
    found = parse(block.encode(), where="train/README.md")
    assert set(found.members) == {"s1", "s2"}


@pytest.mark.slow
def test_the_commands_from_tars_to_a_checkpoint(tmp_path: Path) -> None:
    for number in range(2):
        write_tar(tmp_path / f"tars/x-{number}.tar", [sample(i + 8 * number, folder="eu/", px=120) for i in range(8)])
    given = [f"{tmp_path}/tars/*.tar", "--map", map_file(tmp_path, {**PLAIN, **PLACED}), "--out", f"{tmp_path}/data"]
    run = lambda *command: subprocess.run(  # noqa: E731
        [sys.executable, *command], capture_output=True, text=True, timeout=240, check=False
    )
    done = run("train/index.py", "--tars", *given)
    assert done.returncode == 0, done.stderr
    assert "16 accepted; 16 train, 0 val; 120 px" in done.stdout
    assert done.stdout.count(" DN, mean") == 12
    again = run("train/index.py", "--tars", *given)
    assert (again.returncode, "Traceback" in again.stderr) == (2, False)
    told = run(
        *("train/croma.py", "--recipe", "tiny", "--data", f"{tmp_path}/data", "--out", f"{tmp_path}/run"),
        *("--steps", "2", "--batch", "4", "--threads", "2"),
    )
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "run").is_dir()

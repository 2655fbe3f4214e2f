"""The manifest is the data set: published last, checked when it is read."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import index, manifest
from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.codec import specs
from pipeline.errors import ContractError, UsageError, VersionMismatch
from pipeline.manifest import Manifest, ShardEntry, Stats
from pipeline.sample import PairSample
from pipeline.stats import measure
from pipeline.store import Store

INDEX = index.to_parquet([])
STATS = Stats(s2=measure(("A",), np.ones((1, 2, 2)), np.ones((2, 2), bool), bin_range=(0, 1)), s1=None)


@pytest.fixture
def built(make_pair: Callable[..., PairSample]) -> Manifest:
    return Manifest(
        format_version=manifest.FORMAT_VERSION,
        kind="pair",
        codec="b2",
        members=specs(make_pair()),
        s2_bands=S2_NAMES,
        s1_bands=S1_NAMES,
        chip_px=16,
        shards=tuple(
            ShardEntry(path=f"shards/{split}/u{i}.tar", split=split, samples=i, bytes=10, sha256="0")
            for i, split in enumerate(("train", "train", "val", "train"))
        ),
        counts={"accepted": 6, "cloud": 2},
        plan_fingerprint="f",
        index_sha256=manifest.sha256(INDEX),
        created_by="sentinel-pretrain 0.1.0",
    )


@pytest.fixture
def store(tmp_path: Path, built: Manifest) -> Store:
    store = Store.at(tmp_path)
    manifest.publish(store, built, INDEX, stats=STATS)
    return store


def _rewrite(store: Store, **changes: Any) -> None:
    fields = json.loads(store.read("manifest.json"))
    store.publish("manifest.json", json.dumps({**fields, **changes}).encode())


def test_round_trip(store: Store, built: Manifest) -> None:
    assert manifest.load(store) == built
    assert manifest.load_stats(store) == STATS
    assert manifest.load_index(store, built).num_rows == 0
    assert (built.samples("train"), built.samples("val"), built.samples("test")) == (4, 2, 0)


def test_published_last(tmp_path: Path, built: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(Store, "publish", lambda self, name, data: order.append(name))
    manifest.publish(Store.at(tmp_path), built, INDEX, stats=STATS)
    assert sorted(order) == ["index.parquet", "manifest.json", "stats.json"]
    assert order[-1] == "manifest.json"


def test_no_manifest_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for place in (tmp_path, tmp_path / "nowhere", "memory://nowhere"):
        with pytest.raises(UsageError, match=r"no manifest\.json, so it is not a finished data set"):
            manifest.load(Store.at(place))


@pytest.mark.parametrize("version", [0, 3, "1", None, 1.5])
def test_another_version_is_named_with_ours_and_its_writer(store: Store, version: Any) -> None:
    _rewrite(store, format_version=version, created_by="sentinel-pretrain 9.9", unheard_of=1)
    with pytest.raises(VersionMismatch) as caught:
        manifest.load(store)
    assert f"format version {version!r}" in str(caught.value)
    assert f"this reader knows {manifest.FORMAT_VERSION}" in str(caught.value)
    assert "sentinel-pretrain 9.9" in str(caught.value)


@pytest.mark.parametrize("data", [b"[]", b"{}", b"3", b"null"])
def test_what_has_no_version_is_another_version(store: Store, data: bytes) -> None:
    store.publish("manifest.json", data)
    with pytest.raises(VersionMismatch, match="None, written by something unknown"):
        manifest.load(store)


def test_damage_is_a_contract_error(store: Store) -> None:
    whole = store.read("manifest.json")
    for data in (b"", whole[: len(whole) // 2], b"\xff\xfe"):
        store.publish("manifest.json", data)
        with pytest.raises(ContractError, match="is not JSON"):
            manifest.load(store)


@pytest.mark.parametrize("changes", [{"kind": "triple"}, {"shards": [{"path": 1}]}, {"counts": []}, {"more": 1}])
def test_a_field_of_another_type_is_a_contract_error(store: Store, changes: dict[str, Any]) -> None:
    _rewrite(store, **changes)
    with pytest.raises(ContractError, match=r"manifest\.json"):
        manifest.load(store)


def test_the_index_must_be_the_manifests(store: Store, built: Manifest) -> None:
    with pytest.raises(ContractError, match=r"index\.parquet is not the one of manifest\.json"):
        manifest.load_index(store, replace(built, index_sha256=manifest.sha256(b"")))
    store.publish("index.parquet", INDEX + b"\0")
    with pytest.raises(ContractError, match=r"index\.parquet is not the one of manifest\.json"):
        manifest.load_index(store, built)


def test_a_copy_without_its_index_or_statistics_is_a_contract_error(store: Store, built: Manifest) -> None:
    store.remove("index.parquet")
    store.remove("stats.json")
    with pytest.raises(ContractError, match=r"index\.parquet"):
        manifest.load_index(store, built)
    with pytest.raises(ContractError, match=r"stats\.json"):
        manifest.load_stats(store)

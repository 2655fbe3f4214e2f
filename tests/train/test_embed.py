"""Features: those of the model on the stored chips, once each and in order, whatever the batch; readable by others."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import webdataset
from tiny_pairs import make_sample, make_stack

from pipeline import manifest
from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.errors import PretrainError, UsageError
from pipeline.store import Store
from train import embed as command
from train.embedding import Request, embed
from train.features import open_encoder
from train.job import fit
from train.models.croma import CromaConfig
from train.models.satmae_config import SatmaeConfig
from train.objective import CromaObjective, SatmaeObjective
from train.optim import OptimConfig
from train.options import Options
from train.probes.labels import majority
from train.recipes.croma import CromaRun
from train.recipes.satmae import SatmaeRun
from train.stream.config import StreamConfig
from train.stream.normalise import constants, normalise
from train.stream.samples import open_samples

pytestmark = pytest.mark.train
SMALL: dict[str, Any] = {"encoder_dim": 16, "depth": 2, "heads": 2, "patch": 4, "image_px": 16, "decoder_dim": 16}
SHARED: dict[str, Any] = {"name": "test", "optim": OptimConfig(base_lr=0.1), "steps": 2, "precision": "no"}
CROMA = CromaRun(
    model=CromaConfig(**SMALL, decoder_heads=2),
    stream=StreamConfig(global_batch=5, s1_bands=S1_NAMES, s2_bands=S2_NAMES, image_px=16),
    **SHARED,
)
STACKS = SatmaeRun(
    model=SatmaeConfig(
        variant="temporal", bands=("B04", "B02"), frames=2, decoder_depth=1, decoder_heads=2, slot_dim=4,
        decoder_slot_dim=4, **SMALL,
    ),
    stream=StreamConfig(global_batch=5, kind="stack", frames=2, s2_bands=("B04", "B02"), image_px=16),
    **SHARED,
)  # fmt: skip


def trained(run: Any, data: Store, out: str) -> Store:
    build = {"croma": CromaObjective, "satmae": SatmaeObjective}[run.objective]
    fit(run, Options(data=data.url, out=out, threads=2), objective=lambda: build(run.model, seed=0))
    return Store.at(out)


@pytest.fixture(scope="module")
def croma(pairs: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return trained(CROMA, pairs, str(tmp_path_factory.mktemp("embed") / "croma"))


def written(run: Store, data: Store, out: Path, **changes: Any) -> int:
    fields: dict[str, Any] = {"splits": ("train", "val"), "sensor": "s2", "pooling": "pooled", "batch": 4, "threads": 2}
    encoder = open_encoder(run.url, None, None)
    return embed(encoder, Request(data=data.url, out=str(out), **{**fields, **changes}), lambda _: None)


@pytest.mark.parametrize(("sensor", "name"), [("s1", "SAR_GAP"), ("s2", "optical_GAP"), ("joint", "joint_GAP")])
def test_features_are_the_model_s(croma: Store, pairs: Store, tmp_path: Path, *, sensor: str, name: str) -> None:
    out = tmp_path / "features.parquet"
    assert written(croma, pairs, out, sensor=sensor) == 28
    table = pq.read_table(out)
    assert table["key"].to_pylist() == [make_sample(i, 24).key for i in (*range(25), 900, 901, 902)]
    assert table["split"].to_pylist() == ["train"] * 25 + ["val"] * 3
    model, stats = open_encoder(croma.url, None, None).module, manifest.load_stats(pairs)
    for row in (0, 7, 24):
        stored = make_sample(row, 24)
        s1, s2 = (
            normalise(torch.from_numpy(x), constants(known, known.bands))[None]
            for x, known in ((stored.s1, stats.s1), (stored.s2, stats.s2))
        )
        with torch.no_grad():
            wanted = model.encode(s1, s2)[name][0]
        torch.testing.assert_close(torch.tensor(table["feature"][row].as_py()), wanted, atol=1e-5, rtol=1e-5)
        assert table["time"][row].as_py() == stored.meta.acquired[0]
        assert struct.unpack("<BIdd", table["geometry"][row].as_py()) == (1, 1, 12.0, 48.0)
    assert b'"Point"' in table.schema.metadata[b"geo"]
    assert b"the training data" in table.schema.metadata[b"embedding"]


def test_the_batch_does_not_matter_and_bytes_repeat(croma: Store, pairs: Store, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.parquet" for name in ("one", "again", "wide")]
    for file, batch in zip(files, (4, 4, 9), strict=True):
        written(croma, pairs, file, batch=batch)
    assert files[0].read_bytes() == files[1].read_bytes()
    one, wide = (np.stack(pq.read_table(file)["feature"].to_pylist()) for file in (files[0], files[2]))
    np.testing.assert_allclose(one, wide, atol=1e-6)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves files open
def test_tokens_are_shards_that_others_read(croma: Store, pairs: Store, tmp_path: Path) -> None:
    assert written(croma, pairs, tmp_path / "tokens", pooling="tokens", splits=("train",)) == 25
    shard, told = sorted((tmp_path / "tokens").iterdir())
    assert json.loads(told.read_text())["samples"] == 25
    with pytest.raises(UsageError, match="not empty"):
        written(croma, pairs, tmp_path / "tokens", pooling="tokens", splits=("train",))
    found = list(webdataset.WebDataset(str(shard), shardshuffle=False).decode())
    assert [one["__key__"] for one in found] == [make_sample(i, 24).key for i in range(25)]
    assert found[0]["feature.npy"].shape == (36, 16)
    assert found[3]["json"]["cell_id"] == make_sample(3, 24).meta.cell_id


def test_the_training_s_statistics_outlive_its_data(pairs_at: Any, pairs: Store, tmp_path: Path) -> None:
    gone = pairs_at(str(tmp_path / "gone"), shards=(("train", 9), ("val", 2)))
    run = trained(CROMA, gone, str(tmp_path / "run"))
    wanted = manifest.load_stats(gone).s2.mean
    shutil.rmtree(tmp_path / "gone")
    encoder = open_encoder(run.url, None, None)
    assert encoder.known.normalisation["s2"].mean == tuple(wanted)
    found, whose = encoder.constants(open_samples(pairs, "train", kind="pair", bands={"s2": S2_NAMES}))
    assert (found["s2"].mean, whose) == (tuple(wanted), "the training data")
    assert tuple(manifest.load_stats(pairs).s2.mean) != tuple(wanted)


def test_projected_features_are_what_the_loss_compares(croma: Store, pairs: Store, tmp_path: Path) -> None:
    tables = []
    for pooling in ("pooled", "projected"):
        written(croma, pairs, tmp_path / f"{pooling}.parquet", sensor="s1", pooling=pooling)
        tables.append(torch.tensor(pq.read_table(tmp_path / f"{pooling}.parquet")["feature"].to_pylist()))
    head = open_encoder(croma.url, None, None).module.contrastive
    torch.testing.assert_close(head.s1_proj(tables[0]), tables[1], atol=1e-5, rtol=1e-5)
    with pytest.raises(UsageError, match="projects s1 and s2"):
        written(croma, pairs, tmp_path / "f.parquet", sensor="joint", pooling="projected")


def test_stacks_are_embedded_with_all_their_dates(stacks: Store, tmp_path: Path) -> None:
    run = trained(STACKS, stacks, str(tmp_path / "run"))
    assert written(run, stacks, tmp_path / "f.parquet", pooling="cls") == 28
    table = pq.read_table(tmp_path / "f.parquet")
    assert table["times"][3].as_py() == list(make_stack(3, 24).meta.acquired)
    assert len(table["feature"][0]) == 16


def test_features_that_there_are_not(croma: Store, pairs: Store, stacks: Store, tmp_path: Path) -> None:
    for changes, said in (({"pooling": "cls"}, "no class token"), ({"splits": ("test",)}, "0 samples")):
        with pytest.raises(UsageError, match=said):
            written(croma, pairs, tmp_path / "f.parquet", **changes)
    with pytest.raises(UsageError, match="stack data set"):
        written(croma, stacks, tmp_path / "f.parquet")
    with pytest.raises(UsageError, match="parquet"):
        written(croma, pairs, tmp_path / "f.csv")
    with pytest.raises(PretrainError, match="no finished checkpoint"):
        open_encoder(str(tmp_path), None, None)
    assert not list(tmp_path.iterdir())


def test_the_command(
    croma: Store, pairs: Store, tmp_path: Path, *, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data", pairs.url, "--out", str(tmp_path / "f.parquet"), "--sensor", "joint"]
    monkeypatch.setattr("sys.argv", ["embed.py", "--run", croma.url, *flags])
    assert command.main() == 0
    assert "28 samples" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["embed.py", "--run", str(tmp_path), *flags])
    assert command.main() == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_majority_ignores_the_unknown() -> None:
    assert majority(np.array([[0, 0, 0], [4, 4, 7]], np.uint8)) == 4
    assert majority(np.zeros((2, 2), np.uint8)) is None

"""Probes while training change nothing of it, say what train/embed.py and train/probe.py say, and see the same on any
number of ranks. Run as a script, this file is one rank."""

import dataclasses
import math
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_pairs import write_pairs, write_stacks

from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.errors import CorruptShard
from pipeline.store import Store
from train import checkpoint, embedding, probing, ranks
from train.features import open_encoder
from train.job import fit
from train.meter import METRICS_NAME, PROBES_NAME, read_rows, steady
from train.models.croma import CromaConfig
from train.models.satmae_config import SatmaeConfig
from train.objective import CromaObjective, SatmaeObjective
from train.optim import OptimConfig
from train.options import Options
from train.probes.neighbours import recall
from train.probes.spectrum import rank_me
from train.recipes.croma import CromaRun
from train.recipes.satmae import SatmaeRun
from train.sharding import mesh_of, shard
from train.stream.config import StreamConfig
from train.stream.transforms import Augment
from train.validation import centred, open_validation

pytestmark = pytest.mark.train
PX, VAL = 24, 3
RUN = CromaRun(
    name="test",
    model=CromaConfig(encoder_dim=16, depth=2, heads=2, patch=4, image_px=PX, decoder_dim=16, decoder_heads=2),
    stream=StreamConfig(global_batch=5, s1_bands=S1_NAMES, s2_bands=S2_NAMES, image_px=PX),
    optim=OptimConfig(base_lr=0.2, grad_clip=1.0),
    steps=6,
    precision="no",
)
BANDS = ("B04", "B02")
STACKS = SatmaeRun(
    name="test",
    model=SatmaeConfig(
        variant="temporal", bands=BANDS, frames=4, encoder_dim=16, depth=2, heads=2, patch=4, image_px=PX,
        decoder_dim=16, decoder_depth=1, decoder_heads=2, slot_dim=4, decoder_slot_dim=4,
    ),
    stream=StreamConfig(global_batch=5, kind="stack", frames=4, s2_bands=BANDS, image_px=PX),
    optim=OptimConfig(base_lr=0.2),
    steps=2,
    precision="no",
)  # fmt: skip
MANY = (("train", 7), ("val", 40), ("train", 5), ("val", 33))
"""More than two batches of `val`, the last one not full."""


class Killed(BaseException):
    """What a test throws where a kill would strike."""


class Dying(CromaObjective):
    def __init__(self, at: int) -> None:
        super().__init__(RUN.model, seed=0)
        self._left = at

    def losses(self, *args: Any, **more: Any) -> Any:
        self._left -= 1
        if not self._left:
            raise Killed
        return super().losses(*args, **more)


def train(data: Store, out: str, run: Any = RUN, *, make: Callable | None = None, **options: Any) -> Store:
    build = {"croma": CromaObjective, "satmae": SatmaeObjective}[run.objective]
    asked = Options(data=data.url, out=out, **{"checkpoint_every": 2, "threads": 2, **options})
    fit(run, asked, objective=make or (lambda: build(run.model, seed=run.seed)))
    return Store.at(out)


def probed(out: Store) -> list[dict[str, Any]]:
    return read_rows(out, PROBES_NAME)


@pytest.fixture(scope="module")
def plain(pairs: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return train(pairs, str(tmp_path_factory.mktemp("plain") / "run"))


@pytest.fixture(scope="module")
def watched(pairs: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return train(pairs, str(tmp_path_factory.mktemp("watched") / "run"), probe_every=4)


def test_the_training_does_not_notice(plain: Store, watched: Store) -> None:
    """Neither its random numbers, nor its order, nor its weights."""
    assert [steady(row) for row in read_rows(watched)] == [steady(row) for row in read_rows(plain)]
    for name in (checkpoint.MODEL_NAME, checkpoint.OPTIM_NAME):
        last = f"{checkpoint.folder(RUN.steps)}/{name}"
        assert watched.read(last) == plain.read(last)
    assert not plain.exists(PROBES_NAME)


def test_rows_are_of_every_so_many_steps_and_the_last(watched: Store) -> None:
    rows = probed(watched)
    assert [(row["step"], row["samples"], row["val_samples"]) for row in rows] == [(4, 20, VAL), (6, 30, VAL)]
    recalls = {f"recall@{k}/{way}" for k in (1, 10) for way in ("s1_to_s2", "s2_to_s1")}
    assert set(rows[0]["values"]) == recalls | {f"rank_me/{name}" for name in ("s1", "s2", "joint")}
    assert rows[0]["values"] != rows[1]["values"]


def test_curves_have_them(watched: Store) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(watched.path("tensorboard")).Reload()
    wanted = [(row["step"], pytest.approx(row["values"]["rank_me/s1"])) for row in probed(watched)]
    assert [(one.step, one.value) for one in events.Scalars("probe/rank_me/s1")] == wanted
    for sensor in ("s1", "s2"):
        pictures = events.Images(f"reconstruction/{sensor}")
        assert [(one.step, one.height, one.width) for one in pictures] == [(step, VAL * PX, 3 * PX) for step in (4, 6)]
        assert pictures[0].encoded_image_string != pictures[1].encoded_image_string


@pytest.mark.parametrize("url", ["memory://validation-killed", None])
def test_killed_and_resumed_equals_undisturbed(watched: Store, pairs: Store, tmp_path: Path, url: str | None) -> None:
    """Probed at step 4, killed at 6 and resumed from 4; and probed at 4, killed before it was saved, resumed from 3."""
    for number, (life, every) in enumerate(((6, 2), (5, 3))):
        out = (url and f"{url}-{number}") or str(tmp_path / f"run-{number}")
        with pytest.raises(Killed):
            train(pairs, out, make=lambda life=life: Dying(life), probe_every=4, checkpoint_every=every)
        found = probed(train(pairs, out, resume=True, probe_every=4, checkpoint_every=every))
        assert found == probed(watched)


@pytest.mark.parametrize("classes", [None, 4])
def test_probes_say_what_the_commands_say(tmp_path: Path, *, classes: int | None) -> None:
    """The whole val split, embedded from the last checkpoint and measured by train/probe.py."""
    shards = (("train", 40), ("val", 13))
    data = write_pairs(str(tmp_path / "data"), shards=shards, classes=classes)
    out = train(data, str(tmp_path / "run"), dataclasses.replace(RUN, steps=2), probe_every=2)
    (row,) = probed(out)

    def embedded(sensor: str, pooling: str, split: str = "val") -> str:
        name = str(tmp_path / f"{sensor}-{pooling}-{split}.parquet")
        request = embedding.Request(
            data=data.url, out=name, splits=(split,), sensor=sensor, pooling=pooling, batch=8, threads=2
        )
        embedding.embed(open_encoder(out.url, None, None), request, lambda _: None)
        return name

    values = {
        f"rank_me/{name}": rank_me(probing.read(embedded(name, "pooled"), None).values_ND)
        for name in ("s1", "s2", "joint")
    }
    s1, s2 = (probing.read(embedded(name, "projected"), None).values_ND for name in ("s1", "s2"))
    for way, ours, theirs in (("s1_to_s2", s1, s2), ("s2_to_s1", s2, s1)):
        values |= {f"recall@{k}/{way}": share for k, share in recall(ours, theirs, at=(1, 10)).items()}
    if classes is not None:
        train_file, test_file = (embedded("joint", "pooled", split) for split in ("train", "val"))
        request = probing.Request(
            train=train_file, test=test_file, label="label", probes=("knn", "linear"), other=None, seed=RUN.seed
        )
        results, counts = probing.measure(request)
        assert (counts["classes"], counts["train"], counts["test"]) == (3, 30, 9)
        values |= dict(zip(("knn@20", "linear"), (result.value for result in results), strict=True))
    assert row["values"] == pytest.approx(values, rel=1e-4)


@pytest.mark.parametrize(
    ("shards", "classes", "said"),
    [
        ((("train", 9),), None, "no samples in 'val': no probes"),
        ((("train", 9), ("val", 3)), None, "has no labels: no kNN"),
        ((("train", 9), ("val", 3)), 1, "of one class, or none: no kNN"),
    ],
)
def test_what_is_left_out_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, shards: tuple, classes: int | None, said: str
) -> None:
    data = write_pairs(str(tmp_path / "data"), shards=shards, classes=classes)
    out = train(data, str(tmp_path / "run"), dataclasses.replace(RUN, steps=3), probe_every=1)
    assert capsys.readouterr().err.count(said) == 1
    assert len(probed(out)) == (0 if "no probes" in said else 3)
    assert len(read_rows(out, METRICS_NAME)) == 3


def test_a_val_sample_that_is_damaged_is_told(tmp_path: Path) -> None:
    data = write_pairs(str(tmp_path / "data"))
    for path in (tmp_path / "data/shards/val").iterdir():
        path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CorruptShard):
        train(data, str(tmp_path / "run"), probe_every=1)


def test_stacks_are_probed(stacks: Store, tmp_path: Path) -> None:
    (row,) = probed(train(stacks, str(tmp_path / "run"), STACKS, probe_every=2))
    assert 1 <= row["values"].pop("rank_me/s2") <= VAL + 0.01
    assert not row["values"]


def test_the_effective_rank() -> None:
    basis, _ = torch.linalg.qr(torch.randn(30, 8, generator=torch.Generator().manual_seed(0)))
    assert rank_me(basis) == pytest.approx(8, rel=1e-4)
    assert rank_me(basis[:, :1] * torch.ones(1, 8)) == pytest.approx(1, rel=1e-4)
    values = np.linalg.svd((basis * torch.arange(1.0, 9.0)).double().numpy(), compute_uv=False)
    shares = values / values.sum()
    assert rank_me(basis * torch.arange(1.0, 9.0)) == pytest.approx(math.exp(-sum(shares * np.log(shares))), rel=1e-4)
    assert math.isnan(rank_me(basis * math.nan))


def test_images_are_cut_from_the_middle() -> None:
    for augment, side, area in (
        (Augment(), None, None),
        (Augment(side_px=(60, 180)), (120, 120), None),
        (Augment(side_px=(20, 60)), (60, 60), None),
        (Augment(area=(0.2, 1.0), symmetries=2), None, (1.0, 1.0)),
    ):
        found = centred(dataclasses.replace(RUN.stream, image_px=120, augment=augment)).augment
        assert found == Augment(side_px=side, area=area, symmetries=1, centred=True)


def looked(data: Store, run: Any, *, sharded: bool = False) -> dict[str, torch.Tensor]:
    """Features of `val` that weights of seed 0 give, at the world size there is."""
    torch.manual_seed(0)
    module, accelerator = run.module(), ranks.start("no")
    if sharded:
        shard(module, mesh=mesh_of(torch.device("cpu")))
    view = open_validation(run, data, accelerator, limit=70, threads=2, say=lambda _: None)
    return view.features(module.state_dict())["val"]


def _one_rank(rank: int, folder: Path) -> None:
    port = (folder / "port").read_text()
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    for name, run in (("pairs", RUN), ("stacks", STACKS)):
        for sharded in (False, True):
            found = looked(Store.at(str(folder / name)), run, sharded=sharded)
            save_file(found, folder / f"{name}-{sharded}-{rank}.safetensors")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_see_what_one_sees(tmp_path: Path) -> None:
    """To the bit, whether they share the parameters or not: each row is there once and in its place."""
    data = {"pairs": write_pairs, "stacks": write_stacks}
    stores = {name: write(str(tmp_path / name), shards=MANY) for name, write in data.items()}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(free.getsockname()[1]))
    harness.run_ranks(__file__, tmp_path)
    for name, run in (("pairs", RUN), ("stacks", STACKS)):
        alone = looked(stores[name], run)
        assert {len(part) for part in alone.values()} == {70}
        for sharded in (False, True):
            for rank in range(2):
                both = load_file(tmp_path / f"{name}-{sharded}-{rank}.safetensors")
                assert both.keys() == alone.keys()
                assert all(torch.equal(both[part], alone[part]) for part in alone)


if __name__ == "__main__":
    _one_rank(int(sys.argv[1]), Path(sys.argv[2]))

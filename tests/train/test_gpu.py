"""A GPU computes what a CPU computes, from the shards to the checkpoint, and its host waits for nothing on the way."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from harness import ROOT
from torch import Tensor

from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.store import Store
from train import loop
from train.batch import Batch
from train.embedding import Request, embed
from train.features import open_encoder
from train.job import fit
from train.late import Late
from train.meter import read_rows
from train.models.blocks import compile_layers
from train.models.croma import CromaConfig
from train.models.satmae_config import SatmaeConfig
from train.objective import CromaObjective, SatmaeObjective
from train.optim import OptimConfig
from train.options import Options
from train.recipes.croma import CromaRun
from train.recipes.satmae import SatmaeRun
from train.stream import memory as shared
from train.stream.config import Share, StreamConfig
from train.stream.lanes import LanePlan
from train.stream.loader import Loader
from train.stream.memory import new_memory
from train.stream.ring import Room
from train.stream.samples import open_samples
from train.stream.transforms import Augment

pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here"),
]
SMALL: dict[str, Any] = {"encoder_dim": 32, "depth": 2, "patch": 4, "decoder_dim": 16, "decoder_heads": 2}
SLOTS: dict[str, Any] = {"heads": 4, "decoder_depth": 1, "slot_dim": 8, "decoder_slot_dim": 4, "image_px": 16}
SHARED: dict[str, Any] = {"name": "test", "optim": OptimConfig(base_lr=0.1, warmup=0.1), "steps": 8, "precision": "no"}
RESIZED = Augment(side_px=(8, 24))
CROMA = CromaRun(
    model=CromaConfig(heads=2, image_px=16, **SMALL),
    stream=StreamConfig(global_batch=5, s1_bands=S1_NAMES, s2_bands=S2_NAMES, image_px=16, augment=RESIZED),
    **SHARED,
)
BANDS = ("B02", "B03", "B05", "B08")
GROUP = SatmaeRun(
    model=SatmaeConfig(bands=BANDS, groups=(("B02", "B08"), ("B05", "B03")), **SMALL, **SLOTS),
    stream=StreamConfig(global_batch=5, s2_bands=BANDS, image_px=16, scale="uint8"),
    **SHARED,
)
TEMPORAL = SatmaeRun(
    model=SatmaeConfig(variant="temporal", bands=("B04", "B03"), frames=3, norm_pix=True, **SMALL, **SLOTS),
    stream=StreamConfig(global_batch=5, kind="stack", frames=3, s2_bands=("B04", "B03"), image_px=16),
    **SHARED,
)
RUNS = {"croma": CROMA, "group": GROUP, "temporal": TEMPORAL}
OBJECTIVES = {"croma": CromaObjective, "satmae": SatmaeObjective}


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """Products of float32 in float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest) -> Any:
    return RUNS[request.param]


@pytest.fixture
def data(run: Any, pairs: Store, stacks: Store) -> Store:
    return stacks if run is TEMPORAL else pairs


def loader(run: Any, data: Store, device: str) -> Loader:
    samples = open_samples(data, "train", kind=run.stream.kind, bands=run.stream.bands)
    plan = LanePlan(shard_sizes=samples.shard_sizes, lanes=5, global_batch=5, seed=0)
    return Loader(samples, plan, run.stream, share=Share(device=device, threads=2))


def batches(run: Any, data: Store, device: str, *, count: int) -> list[Batch]:
    with loader(run, data, device) as stream:
        return [next(stream)[0] for _ in range(count)]


def objective(run: Any, device: str) -> Any:
    torch.manual_seed(0)
    made = OBJECTIVES[run.objective](run.model, seed=0)
    made.module.to(device).train()
    return made


def gradients(made: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    total = made.losses(made.module, batch).total
    total.backward()
    return total.detach().cpu(), {
        name: p.grad.cpu() for name, p in made.module.named_parameters() if p.grad is not None
    }


def train(run: Any, data: Store, out: str, *, make: Callable | None = None, **options: Any) -> list[dict[str, Any]]:
    build = make or (lambda: objective(run, "cpu"))
    fit(run, Options(data=data.url, out=out, checkpoint_every=4, threads=2, **options), objective=build)
    return read_rows(Store.at(out))


def test_batches_are_those_of_a_cpu(run: Any, data: Store) -> None:
    """More of them than the ring has slots: a slot that is filled before it was copied would show."""
    for ours, theirs in zip(*(batches(run, data, device, count=12) for device in ("cuda", "cpu")), strict=True):
        assert {image.device.type for image in ours.images.values()} == {"cuda"}
        assert (ours.keys, ours.hashes_B.tolist()) == (theirs.keys, theirs.hashes_B.tolist())
        assert torch.equal(ours.sample_ids_B.cpu(), theirs.sample_ids_B)
        assert torch.equal(ours.epochs_B.cpu(), theirs.epochs_B)
        assert torch.equal(ours.valid_B.cpu(), theirs.valid_B)
        assert (ours.dates_BT3 is None) or torch.equal(ours.dates_BT3.cpu(), theirs.dates_BT3)
        for name, image in theirs.images.items():
            torch.testing.assert_close(ours.images[name].cpu(), image, rtol=1e-5, atol=2e-6)


def test_loss_and_gradient_are_those_of_a_cpu(run: Any, data: Store) -> None:
    """The masks are the same, too: they would change the loss by more than rounding."""
    found = {}
    for device in ("cuda", "cpu"):
        (batch,) = batches(run, data, device, count=1)
        found[device] = gradients(objective(run, device), batch)
    (loss, grads), (known_loss, known) = found["cuda"], found["cpu"]
    torch.testing.assert_close(loss, known_loss, rtol=2e-5, atol=0)
    assert grads.keys() == known.keys()
    largest = max(grad.norm() for grad in known.values())
    for name, grad in known.items():
        assert (grads[name] - grad).norm() <= 1e-4 * grad.norm() + 1e-6 * largest, name


def test_bfloat16_is_near(run: Any, data: Store) -> None:
    (batch,) = batches(run, data, "cuda", count=1)
    made = objective(run, "cuda")
    exact = made.losses(made.module, batch).total
    with torch.autocast("cuda", torch.bfloat16):
        rounded = made.losses(made.module, batch).total
    assert rounded.dtype == torch.float32
    assert rounded != exact
    torch.testing.assert_close(rounded, exact, rtol=0.03, atol=0)


@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores", "ignore:.torch.jit.script_method. is deprecated")
def test_compiled_layers_compute_the_same(run: Any, data: Store) -> None:
    (batch,) = batches(run, data, "cuda", count=1)
    plain, compiled = objective(run, "cuda"), objective(run, "cuda")
    compile_layers(compiled.module)
    (loss, _), (known, _) = gradients(compiled, batch), gradients(plain, batch)
    torch.testing.assert_close(loss, known, rtol=2e-5, atol=0)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_the_host_does_not_wait_for_a_step(
    run: Any, data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps and batches run where torch refuses all that would wait; reading numbers late and saving is outside."""
    checked = []

    def strict(inner: Callable) -> Callable:
        def within(*args: Any, **more: Any) -> Any:
            # The first steps may wait: constants are copied, kernels are chosen.
            torch.cuda.set_sync_debug_mode("error" if len(checked) > 4 else "default")
            try:
                return inner(*args, **more)
            finally:
                torch.cuda.set_sync_debug_mode("default")
                checked.append(inner.__name__)

        return within

    for name in ("_next", "_learn"):
        monkeypatch.setattr(loop, name, strict(getattr(loop, name)))
    train(run, data, str(tmp_path / "run"))
    assert len(checked) == 2 * run.steps


ROOMS = {"image": Room(shape=(3, 1_000_000), dtype=torch.uint8)}


def test_shared_memory_is_page_locked_as_long_as_it_is_there() -> None:
    """What the next run maps lies where that of the last one lay."""
    for _ in range(20):
        image = new_memory(ROOMS, pinned=True).tensors["image"]
        assert image.is_pinned()
        assert image.to("cuda", non_blocking=True).sum() == 0


def test_a_driver_that_refuses_to_page_lock_is_no_error() -> None:
    memory = new_memory(ROOMS, pinned=True)
    image = memory.tensors["image"]
    shared._pin(memoryview(image.numpy()))  # CUDA refuses to do it twice
    assert image.to("cuda").sum() == 0


def test_runs_follow_one_another_in_a_process(pairs: Store, tmp_path: Path) -> None:
    for number in range(3):
        train(CROMA, pairs, str(tmp_path / str(number)), reader_processes=2)
        _fresh()


def test_numbers_come_late_and_right() -> None:
    loss = torch.full((), 1.5, device="cuda")
    sent: Late = loop.late.send({"loss": loss})
    loss += 1
    assert sent.read() == {"loss": 1.5}


def test_a_run_is_that_of_a_cpu(run: Any, data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = train(run, data, str(tmp_path / "gpu"))
    _fresh()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    theirs = train(run, data, str(tmp_path / "cpu"))
    assert [row["batch_hash"] for row in ours] == [row["batch_hash"] for row in theirs]
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], rel=2e-3)
    assert ours[0]["loss"] == pytest.approx(theirs[0]["loss"], rel=2e-5)


class Killed(BaseException):
    """What a test throws where a kill would strike."""


@pytest.mark.parametrize("other", ["cuda", "cpu"])
def test_a_run_goes_on_there_and_here(
    other: str, pairs: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed behind step 6, gone on from the checkpoint of step 4, on a GPU or a CPU."""
    calm = train(CROMA, pairs, str(tmp_path / "calm"))
    _fresh()
    learn, steps = loop._learn, []

    def dying(*args: Any, **more: Any) -> Any:
        steps.append(1)
        if len(steps) == 7:
            raise Killed
        return learn(*args, **more)

    monkeypatch.setattr(loop, "_learn", dying)
    with pytest.raises(Killed):
        train(CROMA, pairs, str(tmp_path / "run"))
    monkeypatch.setattr(loop, "_learn", learn)
    _fresh()
    monkeypatch.setenv("ACCELERATE_USE_CPU", str(other == "cpu").lower())
    rows = train(CROMA, pairs, str(tmp_path / "run"), resume=True)
    assert [row["batch_hash"] for row in rows] == [row["batch_hash"] for row in calm]
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in calm], rel=2e-3)


def test_micro_batches_are_the_whole_batch(run: Any, data: Store, tmp_path: Path) -> None:
    whole = train(run, data, str(tmp_path / "whole"))
    _fresh()
    pieces = train(run, data, str(tmp_path / "pieces"), micro_batch=2)
    assert pieces[0]["loss"] == pytest.approx(whole[0]["loss"], rel=2e-5)
    assert pieces[0]["grad_norm"] == pytest.approx(whole[0]["grad_norm"], rel=1e-3)


def test_features_are_those_of_a_cpu(pairs: Store, tmp_path: Path) -> None:
    train(CROMA, pairs, str(tmp_path / "run"))
    encoder, found = open_encoder(str(tmp_path / "run"), None, None), {}
    for device in ("cuda", "cpu"):
        encoder.module.to(device)
        out = str(tmp_path / f"{device}.parquet")
        asked = Request(
            data=pairs.url, out=out, splits=("train",), sensor="joint", pooling="pooled", batch=4, threads=2
        )
        embed(encoder, asked, lambda _: None)
        found[device] = torch.tensor(pq.read_table(out)["feature"].to_pylist())
    torch.testing.assert_close(found["cuda"], found["cpu"], rtol=1e-4, atol=1e-5)


def _fresh() -> None:
    """Accelerate's state is global."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


def test_utilisation_is_told_in_shares(pairs: Store, tmp_path: Path) -> None:
    rows = train(dataclasses.replace(CROMA, precision="bf16"), pairs, str(tmp_path / "run"))
    assert all(0 <= row["pace"]["mfu"] < 1 for row in rows), "of a model this small it rounds to 0"
    assert rows[-1]["pace"]["memory_mb"] > 1


def _launched(file: str, data: Store, out: Path) -> list[dict[str, Any]]:
    launch = (sys.executable, "infra/accelerate/launch.py", "--config_file", f"infra/accelerate/{file}.yaml")
    asked = (
        "train/croma.py",
        "--recipe",
        "tiny",
        "--data",
        data.url,
        "--out",
        str(out),
        "--batch",
        "8",
        "--steps",
        "4",
    )
    command = (*launch, "--num_processes", "1", *asked)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    return read_rows(Store.at(out))


@pytest.mark.parametrize("file", ["gpu-one-node", "fsdp2"])
def test_a_group_of_one_rank_is_no_group(file: str, pairs_at: Callable[..., Store], tmp_path: Path) -> None:
    """The launchers' files and NCCL, as far as one GPU can tell."""
    data = pairs_at(str(tmp_path / "data"), chip_px=120, shards=(("train", 16),))
    alone, grouped = _launched("gpu-one", data, tmp_path / "alone"), _launched(file, data, tmp_path / "grouped")
    for name in ("batch_hash", "loss"):
        assert [row[name] for row in grouped] == [row[name] for row in alone], name

"""SatMAE from shards to checkpoint in this process: every variant learns, and a stopped run resumes to the bit."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.store import Store
from train import checkpoint
from train.job import fit
from train.meter import read_rows, steady
from train.models.satmae_config import SatmaeConfig
from train.objective import SatmaeObjective
from train.optim import OptimConfig
from train.options import Options
from train.recipes.satmae import SatmaeRun
from train.release import Request, export
from train.stream.config import StreamConfig
from train.stream.transforms import Augment

pytestmark = pytest.mark.train
SMALL: dict[str, Any] = {
    "encoder_dim": 32,
    "depth": 2,
    "heads": 4,
    "decoder_dim": 16,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "image_px": 16,
    "patch": 4,
    "slot_dim": 8,
    "decoder_slot_dim": 4,
}
OPTIM = OptimConfig(base_lr=0.3, betas=(0.9, 0.95), weight_decay=0.05, decay_tokens=True, warmup=0.1)
RESIZED = Augment(area=(0.3, 1.0), symmetries=2)


def run_of(model: SatmaeConfig, **stream: Any) -> SatmaeRun:
    side = model.image_px * 2**model.upscales
    data = StreamConfig(global_batch=8, s2_bands=model.bands, image_px=side, **stream)
    return SatmaeRun(name="test", model=model, stream=data, optim=OPTIM, steps=16, precision="no")


BANDS = ("B02", "B03", "B05", "B08")
GROUP = SatmaeConfig(bands=BANDS, groups=(("B02", "B03", "B08"), ("B05",)), **SMALL)
RUNS = {
    "group": run_of(GROUP, augment=RESIZED, scale="uint8"),
    "consistent": run_of(dataclasses.replace(GROUP, consistent=True)),
    "larger": run_of(dataclasses.replace(GROUP, upscales=1, image_px=8), augment=RESIZED),
    "plain": run_of(SatmaeConfig(variant="plain", bands=BANDS, **SMALL), scale="standard"),
    "temporal": run_of(
        SatmaeConfig(variant="temporal", bands=("B04", "B03"), frames=3, norm_pix=True, **SMALL), kind="stack", frames=3
    ),
}


def train(run: SatmaeRun, data: Store, out: Store, **options: Any) -> None:
    asked = Options(data=data.url, out=out.url, checkpoint_every=4, threads=2, **options)
    fit(run, asked, objective=lambda: SatmaeObjective(run.model, seed=run.seed))


def weights(out: Store, step: int) -> bytes:
    return out.read(f"{checkpoint.folder(step)}/{checkpoint.MODEL_NAME}")


@pytest.mark.parametrize("name", RUNS)
def test_every_variant_learns(name: str, pairs: Store, stacks: Store) -> None:
    run, out = RUNS[name], Store.at(f"memory://satmae-{name}")
    train(run, stacks if name == "temporal" else pairs, out)
    losses = [row["loss"] for row in read_rows(out)]
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])


@pytest.mark.parametrize("name", ["group", "temporal"])
def test_interrupted_and_resumed_equals_undisturbed(name: str, pairs: Store, stacks: Store) -> None:
    run, data = RUNS[name], stacks if name == "temporal" else pairs
    calm, stormy = Store.at(f"memory://satmae-calm-{name}"), Store.at(f"memory://satmae-stormy-{name}")
    train(run, data, calm)

    class Dying(SatmaeObjective):
        left = 7

        def losses(self, *args: Any) -> Any:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
            return super().losses(*args)

    asked = Options(data=data.url, out=stormy.url, checkpoint_every=4, threads=2)
    with pytest.raises(KeyboardInterrupt):
        fit(run, asked, objective=lambda: Dying(run.model, seed=run.seed))
    train(run, data, stormy, resume=True)
    assert weights(calm, run.steps) == weights(stormy, run.steps)
    assert [steady(row) for row in read_rows(calm)] == [steady(row) for row in read_rows(stormy)]


def test_a_run_may_begin_with_released_weights(pairs: Store, tmp_path: Path) -> None:
    """Out in the released layout, back in by --init: the first step's loss is that of the weights."""
    run, first = RUNS["group"], Store.at(str(tmp_path / "first"))
    train(run, pairs, first)
    export(Request(source=first.url, layout="official", out=str(tmp_path / "released.pth")), lambda _: None)
    seen: list[dict[str, torch.Tensor]] = []

    class Watching(SatmaeObjective):
        def losses(self, *args: Any) -> Any:
            seen.append({name: x.clone() for name, x in self.module.state_dict().items()})
            return super().losses(*args)

    asked = Options(data=pairs.url, out=str(tmp_path / "second"), threads=2, init=str(tmp_path / "released.pth"))
    fit(dataclasses.replace(run, steps=1), asked, objective=lambda: Watching(run.model, seed=0))
    wanted = checkpoint.load(first, run.steps).model
    assert seen[0].keys() == wanted.keys()
    assert all(torch.equal(seen[0][name], wanted[name]) for name in wanted)

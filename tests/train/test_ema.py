"""The moving average is a plain loop over the weights of every step, resumed to the bit, of no effect on the training.
Run as a script, this file is one rank."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.errors import StreamError, UsageError
from pipeline.store import Store
from train import checkpoint, embedding, probing, restore, sharded_checkpoint
from train.ema import Ema, decay_at
from train.features import open_encoder
from train.job import fit
from train.meter import PROBES_NAME, read_rows, steady
from train.models import weights
from train.models.croma import Croma, CromaConfig
from train.objective import CromaObjective
from train.optim import OptimConfig, adamw, set_lr
from train.options import Options
from train.probes.spectrum import rank_me
from train.recipes.croma import CromaRun
from train.release import Request, export
from train.sharding import cut, mesh_of, shard, whole
from train.stream.config import StreamConfig

pytestmark = pytest.mark.train
PX, DECAY = 24, 0.3
"""So low that the decay's beginning is over after three of nine steps."""
MODEL = CromaConfig(encoder_dim=16, depth=2, heads=2, patch=4, image_px=PX, decoder_dim=12, decoder_heads=3)
RUN = CromaRun(
    name="test",
    model=MODEL,
    stream=StreamConfig(global_batch=250, s1_bands=S1_NAMES, s2_bands=S2_NAMES, image_px=PX, lanes=5),
    optim=OptimConfig(base_lr=0.05, grad_clip=1.0),
    steps=9,
    precision="no",
    ema=DECAY,
)
SKIPPED = 5


class Killed(BaseException):
    """What a test throws where a kill would strike."""


class Watched(CromaObjective):
    """Keeps the first weights; gives no number at `SKIPPED`; dies at a given batch of its life."""

    def __init__(self, first: dict[str, Tensor] | None = None, *, dies: int = 0, skips: int = SKIPPED) -> None:
        super().__init__(MODEL, seed=0)
        self._first, self._dies, self._skips, self._seen = first, dies, skips, 0

    def losses(self, *args: Any, **more: Any) -> Any:
        if not self._seen and self._first is not None:
            self._first |= {name: value.clone() for name, value in self.module.state_dict().items()}
        self._seen += 1
        if self._seen == self._dies:
            raise Killed
        losses = super().losses(*args, **more)
        skipped = self._seen == self._skips
        return dataclasses.replace(losses, total=losses.total * torch.nan) if skipped else losses


def train(data: Store, out: str, run: CromaRun = RUN, *, make: Callable | None = None, **options: Any) -> Store:
    asked = Options(data=data.url, out=out, **{"checkpoint_every": 1, "keep": 99, "threads": 2, **options})
    fit(run, asked, objective=make or Watched)
    return Store.at(out)


@pytest.fixture(scope="module")
def first() -> dict[str, Tensor]:
    return {}


@pytest.fixture(scope="module")
def calm(pairs: Store, tmp_path_factory: pytest.TempPathFactory, first: dict[str, Tensor]) -> Store:
    out = str(tmp_path_factory.mktemp("ema") / "run")
    return train(pairs, out, make=lambda: Watched(first), probe_every=9)


def averages(out: Store, step: int) -> dict[str, Tensor]:
    tensors = checkpoint.load(out, step).optimizer
    return {name.removeprefix("ema/"): value for name, value in tensors.items() if name.startswith("ema/")}


def test_it_is_the_average_of_the_weights_of_every_step(calm: Store, first: dict[str, Tensor]) -> None:
    assert [row["skipped"] for row in read_rows(calm)] == [step == SKIPPED for step in range(1, 10)]
    parameters = [name for name, _ in Croma(MODEL).named_parameters()]
    wanted = {name: first[name].double() for name in parameters}
    for step in range(1, 10):
        model, found = checkpoint.load(calm, step).model, averages(calm, step)
        count = step * 250 / 256
        decay = min(DECAY, (1 + count) / (10 + count)) ** (250 / 256)
        for name in parameters:
            if step != SKIPPED:
                wanted[name] = decay * wanted[name] + (1 - decay) * model[name].double()
            torch.testing.assert_close(found[name].double(), wanted[name], rtol=1e-5, atol=1e-7)
        assert found.keys() == {*parameters}
    moved = [name for name in parameters if not torch.allclose(found[name], model[name], rtol=1e-3)]
    assert len(moved) > len(parameters) / 2


def test_the_training_does_not_notice(calm: Store, pairs: Store) -> None:
    plain = train(pairs, "memory://ema-none", dataclasses.replace(RUN, ema=None), checkpoint_every=9)
    assert [steady(row) for row in read_rows(plain)] == [steady(row) for row in read_rows(calm)]
    last = f"{checkpoint.folder(RUN.steps)}/{checkpoint.MODEL_NAME}"
    assert plain.read(last) == calm.read(last)


def test_killed_and_resumed_equals_undisturbed(calm: Store, pairs: Store) -> None:
    url = "memory://ema-stormy"
    with pytest.raises(Killed):
        train(pairs, url, make=lambda: Watched(dies=8), checkpoint_every=3)
    stormy = train(pairs, url, make=lambda: Watched(skips=0), resume=True, checkpoint_every=3)
    for name in (checkpoint.MODEL_NAME, checkpoint.OPTIM_NAME):
        last = f"{checkpoint.folder(RUN.steps)}/{name}"
        assert stormy.read(last) == calm.read(last)


def test_a_run_with_another_average_is_not_resumed(calm: Store, pairs: Store) -> None:
    for ema in (None, 0.5):
        with pytest.raises(StreamError, match=r"ema: 0\.3 then"):
            train(pairs, calm.url, dataclasses.replace(RUN, ema=ema), resume=True)


def test_the_batch_does_not_change_its_reach() -> None:
    late = {"decay": 0.999, "samples": 10**7}
    assert decay_at(**late, batch=512) == pytest.approx(decay_at(**late, batch=64) ** 8)
    assert decay_at(**late, batch=256) == pytest.approx(0.999)
    assert decay_at(256, decay=0.999, batch=256) == pytest.approx(2 / 11)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, 2.0])
def test_a_decay_that_is_no_share_is_refused(decay: float) -> None:
    with pytest.raises(UsageError, match="use 0 to 1"):
        dataclasses.replace(RUN, ema=decay)


def test_it_is_exported_and_embedded_where_asked_for(calm: Store, pairs: Store, tmp_path: Path) -> None:
    """And it is what the probes of the run have looked at."""
    found = {}
    for which in ("model", "ema"):
        out = tmp_path / which / "weights.safetensors"
        said = export(Request(source=calm.url, layout="safetensors", out=str(out), weights=which), lambda _: None)
        assert ("moving average" in said) == (which == "ema")
        state = weights.read(out).state
        wanted = {**checkpoint.load(calm, 9).model, **(averages(calm, 9) if which == "ema" else {})}
        assert all(torch.equal(state[name], wanted[name]) for name in wanted)
        request = embedding.Request(
            data=pairs.url,
            out=str(tmp_path / f"{which}.parquet"),
            splits=("val",),
            sensor="s2",
            pooling="pooled",
            batch=4,
            threads=2,
        )
        embedding.embed(open_encoder(calm.url, None, None, which), request, lambda _: None)
        found[which] = rank_me(probing.read(request.out, None).values_ND)
    probed = read_rows(calm, PROBES_NAME)[-1]["values"]["rank_me/s2"]
    assert probed == pytest.approx(found["ema"], rel=1e-6)
    assert probed != pytest.approx(found["model"], rel=1e-6)


def test_runs_without_one_are_read_as_ever(pairs: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes of earlier releases do not even have the field."""
    out = train(pairs, "memory://ema-without", dataclasses.replace(RUN, ema=None, steps=1), make=Watched)
    with pytest.raises(UsageError, match="keeps no moving average"):
        open_encoder(out.url, None, None, "ema")
    with pytest.raises(UsageError, match="keeps no moving average"):
        export(Request(source=out.url, layout="safetensors", out="memory://x/y.safetensors", weights="ema"), print)
    real = restore.latest

    def older(*args: Any) -> checkpoint.Checkpoint:
        found = real(*args)
        return dataclasses.replace(found, recipe={name: x for name, x in found.recipe.items() if name != "ema"})

    monkeypatch.setattr(restore, "latest", older)
    assert open_encoder(out.url, None, None).run.ema is None


def built(seed: int, *, in_shards: bool) -> tuple[nn.Module, torch.optim.Optimizer, Ema]:
    torch.manual_seed(seed)
    module = Croma(MODEL)
    if in_shards:
        shard(module, mesh=mesh_of(torch.device("cpu")))
    optimizer = adamw(module, OptimConfig(base_lr=1.0))
    set_lr(optimizer, 1e-2)
    return module, optimizer, Ema(module, decay=DECAY, batch=64)


def averaged(*, in_shards: bool) -> tuple[nn.Module, torch.optim.Optimizer, Ema]:
    """After three steps of the same data on all ranks."""
    module, optimizer, ema = built(0, in_shards=in_shards)
    draw = torch.Generator().manual_seed(1)
    for step in range(1, 4):
        s1, s2 = (torch.rand(4, bands, PX, PX, generator=draw) for bands in (2, 12))
        noises = {f"noise_{name}_BL": torch.rand(4, 36, generator=draw) for name in ("s1", "s2")}
        optimizer.zero_grad()
        module(s1, s2, **noises).total.backward()
        optimizer.step()
        ema.update(module, samples=64 * step, skip=torch.tensor(step == 2))
    return module, optimizer, ema


def _one_rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    module, optimizer, ema = averaged(in_shards=True)
    save_file({name: whole(value).clone() for name, value in ema.tensors().items()}, folder / f"{rank}.safetensors")
    store = Store.at(str(folder / "run"))
    at = store.within(checkpoint.folder(3))
    sharded_checkpoint.save(at, module=module, optimizer=optimizer, others={}, averages=ema.tensors())
    dist.barrier()
    read = sharded_checkpoint.read(at, sharded_checkpoint.OPTIM)
    again, _, its = built(7, in_shards=True)
    others = its.load(cut(read, again))
    assert not any(name.startswith("ema/") for name in others)
    assert all(torch.equal(whole(value), whole(ema.tensors()[name])) for name, value in its.tensors().items())
    assert all(torch.equal(read[name], whole(value)) for name, value in ema.tensors().items())
    dist.destroy_process_group()


@pytest.mark.slow
def test_averages_in_shards_are_those_of_whole_weights(tmp_path: Path) -> None:
    """And go through a checkpoint to the bit. Both ranks have the same rows, so their mean loss is one rank's."""
    harness.run_ranks(__file__, tmp_path)
    _, _, ema = averaged(in_shards=False)
    begun = dict(built(0, in_shards=False)[0].named_parameters())
    for rank in range(2):
        found = load_file(tmp_path / f"{rank}.safetensors")
        assert found.keys() == ema.tensors().keys()
        for name, value in ema.tensors().items():
            way = (value - begun[name.removeprefix("ema/")]).norm().item()
            assert (found[name] - value).norm().item() <= 2e-2 * way, name


if __name__ == "__main__":
    _one_rank(int(sys.argv[1]), Path(sys.argv[2]))

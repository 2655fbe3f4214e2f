"""One rank in this process: stopped and resumed equals undisturbed, to the bit; NaN is not learned; errors are told."""

import dataclasses
import itertools
import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import MODEL, RUN, Failing, Killed, train
from torch import nn

from pipeline.errors import CorruptShard, PretrainError, SourceError, StreamError, UsageError
from pipeline.store import Store
from train import checkpoint, croma, door, launch, ranks
from train.batch import Batch, Losses
from train.fence import claim
from train.meter import Meter, read_rows, steady
from train.objective import CromaObjective
from train.optim import lr_at, peak_lr
from train.recipes.croma import CromaRun
from train.stop import Stopped

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def calm(pairs: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An undisturbed run."""
    out = Store.at(str(tmp_path_factory.mktemp("calm") / "run"))
    train(pairs, out.url)
    return out


def files(out: Store) -> list[bytes]:
    return [
        out.read(f"{checkpoint.folder(RUN.steps)}/{name}") for name in (checkpoint.MODEL_NAME, checkpoint.OPTIM_NAME)
    ]


def test_an_undisturbed_run(calm: Store) -> None:
    rows = read_rows(calm)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert [row["samples"] for row in rows] == list(range(5, 65, 5))
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert set(rows[0]["parts"]) == {"contrastive", "mae", "mae_optical", "mae_sar"}
    assert rows[0]["batch_hash"] != rows[1]["batch_hash"]
    assert checkpoint.steps(calm) == [11, 12]


@pytest.mark.slow
@pytest.mark.parametrize(("every", "lives"), [(1, (2, 2, 2, 3, 4)), (4, (3, 7))])
def test_killed_and_resumed_equals_undisturbed(
    calm: Store, pairs: Store, tmp_path: Path, *, every: int, lives: tuple[int, ...]
) -> None:
    """Three times within an epoch and once on its border; before a first checkpoint, and behind one."""
    out = Store.at(str(tmp_path / "stormy"))
    for life in lives:
        with pytest.raises(Killed):
            train(pairs, out.url, make=lambda life=life: Failing(life), resume=True, checkpoint_every=every)
    train(pairs, out.url, resume=True, checkpoint_every=every)
    assert files(out) == files(calm)
    assert [steady(row) for row in read_rows(out)] == [steady(row) for row in read_rows(calm)]


def test_an_object_store_gives_the_same(calm: Store, pairs: Store) -> None:
    out = Store.at("memory://loop-run")
    with pytest.raises(Killed):
        train(pairs, out.url, make=lambda: Failing(7), checkpoint_every=3)
    train(pairs, out.url, resume=True, checkpoint_every=3)
    assert files(out) == files(calm)
    assert [steady(row) for row in read_rows(out)] == [steady(row) for row in read_rows(calm)]


def test_a_finished_run_is_left_alone(calm: Store, pairs: Store) -> None:
    before = {name: calm.read(name) for name in ("metrics.jsonl", "run.json")}
    train(pairs, calm.url, resume=True)
    assert {name: calm.read(name) for name in before} == before


def test_chips_that_are_too_small_leave_nothing_behind(pairs_at: Callable[..., Store], tmp_path: Path) -> None:
    small = pairs_at(str(tmp_path / "small"), chip_px=8)
    with pytest.raises(UsageError, match="too small"):
        train(small, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_what_is_not_finite_is_not_learned(pairs: Store, tmp_path: Path) -> None:
    out = Store.at(str(tmp_path / "run"))
    train(pairs, out.url, dataclasses.replace(RUN, steps=3), make=lambda: Failing(3, nans=1), keep=3)
    rows = read_rows(out)
    assert [row["skipped"] for row in rows] == [False, False, True]
    assert math.isnan(rows[2]["loss"])
    two, three = (checkpoint.load(out, step) for step in (2, 3))
    assert three.stream.samples_consumed == 15
    for was, now in ((two.model, three.model), (two.optimizer, three.optimizer)):
        assert all(torch.equal(was[name], now[name]) for name in was)
    told = json.loads(out.read("skipped/step-00000003.json"))
    assert len(told["keys"]) == len(told["sample_ids"]) == 5


def test_a_run_that_keeps_diverging_ends_with_what_repeats_it(pairs: Store, tmp_path: Path) -> None:
    out = Store.at(str(tmp_path / "run"))
    run = dataclasses.replace(RUN, optim=dataclasses.replace(RUN.optim, skips=3))
    with pytest.raises(StreamError, match=r"step 6 gave .*nan.*3 steps in a row"):
        train(pairs, out.url, run, make=lambda: Failing(4, nans=99))
    assert out.names("skipped") == [f"step-0000000{step}.json" for step in (4, 5, 6)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_asked_to_stop_it_saves_and_goes_on_as_if_nothing_was(
    calm: Store, pairs: Store, tmp_path: Path, number: signal.Signals
) -> None:
    class Asked(Failing):
        def losses(self, wrapped: nn.Module, batch: Batch, **more: Any) -> Losses:
            if self._left == 1:
                os.kill(os.getpid(), number)
            self._left = max(self._left, 2)
            return super().losses(wrapped, batch, **more)

    out = Store.at(str(tmp_path / "run"))
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match="step 5 is saved") as caught:
        train(pairs, out.url, make=lambda: Asked(5), checkpoint_every=100)
    assert caught.value.exit_code == 75
    assert signal.getsignal(number) is before
    assert checkpoint.steps(out) == [5]
    train(pairs, out.url, resume=True, checkpoint_every=100)
    assert files(out) == files(calm)
    assert [steady(row) for row in read_rows(out)] == [steady(row) for row in read_rows(calm)]


def test_an_earlier_attempt_writes_nothing_more(pairs: Store, tmp_path: Path) -> None:
    """A zombie: it still trains when the run that replaced it has begun, whatever the clocks say."""
    out = Store.at(str(tmp_path / "run"))

    class Replaced(Failing):
        def losses(self, wrapped: nn.Module, batch: Batch, **more: Any) -> Losses:
            losses = super().losses(wrapped, batch, **more)
            if self._left == 0:
                claim(out, say=lambda _: None)
                os.utime(tmp_path / "run/attempts/000002.json", (0, 0))
            return losses

    with pytest.raises(StreamError, match=r"attempt 2 at .* has begun since, and this is attempt 1"):
        train(pairs, out.url, make=lambda: Replaced(5, nans=-1))
    assert checkpoint.latest(out, lambda _: None).step in (3, 4)


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", ["exact", "official"])
def test_micro_batches_learn_what_the_batch_does(pairs: Store, tmp_path: Path, rows: int, mode: str) -> None:
    model = dataclasses.replace(MODEL, mode=mode)
    run = dataclasses.replace(RUN, model=model, steps=4)
    whole, parts = Store.at(str(tmp_path / "whole")), Store.at(str(tmp_path / "parts"))
    train(pairs, whole.url, run)
    train(pairs, parts.url, run, micro_batch=rows)
    for was, now in zip(read_rows(whole), read_rows(parts), strict=True):
        for name in ("loss", "grad_norm"):
            assert now[name] == pytest.approx(was[name], rel=2e-4)
        assert now["parts"] == pytest.approx(was["parts"], rel=2e-4)
        assert now["batch_hash"] == was["batch_hash"]
    first = [read_rows(store)[0] for store in (whole, parts)]
    assert first[1]["grad_norm"] == pytest.approx(first[0]["grad_norm"], rel=1e-5)


def test_a_run_is_not_overwritten(calm: Store, pairs: Store) -> None:
    with pytest.raises(UsageError, match="--resume"):
        train(pairs, calm.url)


def test_another_recipe_or_data_is_told(calm: Store, pairs_at: Callable) -> None:
    other = pairs_at("memory://loop-other", shards=(("train", 30),))
    run = dataclasses.replace(RUN, seed=1, optim=dataclasses.replace(RUN.optim, base_lr=0.4))
    with pytest.raises(StreamError) as caught:
        train(other, calm.url, run, resume=True)
    for part in ("optim.base_lr: 0.2 then, 0.4 now", "seed: 0 then, 1 now", "data.index_sha256"):
        assert part in str(caught.value)


def test_damaged_data_stops_the_run(pairs_at: Callable, tmp_path: Path) -> None:
    data = pairs_at(str(tmp_path / "data"))
    for path in (tmp_path / "data" / "shards" / "train").iterdir():
        path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CorruptShard):
        train(data, str(tmp_path / "run"))


def test_loaders_and_schedulers_stay_out_of_accelerate() -> None:
    accelerator = ranks.start("no")
    ranks.guard(accelerator)
    accelerator.prepare(torch.utils.data.DataLoader([1, 2]))
    with pytest.raises(StreamError, match="module only"):
        ranks.guard(accelerator)


def test_lone_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("ACCELERATE_USE_CPU", "True")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UsageError, match="several processes"):
        ranks.start("no")


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match=r"2 processes .* 1 GPUs.*--num_processes"):
        ranks.start("no")


def test_a_rank_takes_no_more_threads_than_its_caller_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    ranks.start("no")
    chosen = torch.get_num_threads()
    torch.set_num_threads(before)
    assert chosen == 1


def test_hashes_of_all_ranks_add_up_without_order() -> None:
    ranks.start("no")
    hashes = torch.tensor([2**63 - 1, -1, 5, -(2**62)])
    totals = {
        ranks.exchange(torch.stack(order), damaged=3, failed=False, stop=False)
        for order in itertools.permutations(hashes)
    }
    assert totals == {(sum(hashes.tolist()) % 2**64, 3, False, False)}
    assert ranks.exchange(torch.zeros(0, dtype=torch.int64), damaged=0, failed=True, stop=True)[2:] == (True, True)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_command_gives_one_message_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: int
) -> None:
    command = ["croma.py", "--recipe", "tiny", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", command)
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    assert croma.main() == PretrainError.exit_code == 2
    heard = capsys.readouterr().err
    assert heard == "" if rank else heard.startswith("error: ")
    assert "Traceback" not in heard
    assert heard.count("\n") == 1 - rank
    assert not (tmp_path / "out").exists()


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["croma.py", "--recipe", "tiny", "--data", "x", "--out", "y"])
    monkeypatch.setattr(door, "check", _interrupt)
    assert croma.main() == 130
    assert capsys.readouterr().err == "interrupted\n"
    monkeypatch.setattr(door, "check", lambda _: None)
    monkeypatch.setattr(launch, "fit", _interrupt)
    assert croma.main() == 130
    assert capsys.readouterr().err == "interrupted: the same command with --resume goes on from the last checkpoint\n"


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


class Watching(CromaObjective):
    """Remembers the weights before the first step, and the noise of each batch."""

    def __init__(self, seen: list[dict[str, torch.Tensor]]) -> None:
        super().__init__(MODEL, seed=0)
        self._seen = seen

    def losses(self, wrapped: nn.Module, batch: Batch) -> Losses:
        if not self._seen:
            self._seen.append({name: x.clone() for name, x in self.module.state_dict().items()})
        return super().losses(wrapped, batch)


def first_weights(data: Store, out: str, run: CromaRun = RUN, **options: object) -> dict[str, torch.Tensor]:
    seen: list[dict[str, torch.Tensor]] = []
    train(data, out, dataclasses.replace(run, steps=1), make=lambda: Watching(seen), **options)
    return seen[0]


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_first_weights_follow_the_seed(pairs: Store) -> None:
    found = [
        first_weights(pairs, f"memory://loop-seed-{number}", dataclasses.replace(RUN, seed=seed))
        for number, seed in enumerate((3, 3, 4))
    ]
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_a_run_may_begin_with_given_weights(calm: Store, pairs: Store) -> None:
    file = f"{calm.url}/{checkpoint.folder(RUN.steps)}/{checkpoint.MODEL_NAME}"
    wanted = checkpoint.load(calm, RUN.steps).model
    assert same(first_weights(pairs, "memory://loop-init", init=file), dict(wanted))
    with pytest.raises(PretrainError, match="nowhere"):
        train(pairs, "memory://loop-init-none", init="nowhere.safetensors")
    assert not Store.at("memory://loop-init-none").names()


def test_a_checkpoint_comes_before_given_weights(calm: Store, pairs: Store, tmp_path: Path) -> None:
    out = Store.at(str(tmp_path / "run"))
    with pytest.raises(Killed):
        train(pairs, out.url, make=lambda: Failing(7), checkpoint_every=3)
    train(pairs, out.url, resume=True, init="nowhere.safetensors", checkpoint_every=3)
    assert files(out) == files(calm)


def test_the_rate_and_the_clipped_gradient_are_what_is_applied(
    pairs: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied, real = [], torch.optim.AdamW.step

    def step(optimizer: torch.optim.AdamW, *call: object) -> object:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        applied.append((optimizer.param_groups[0]["lr"], torch.nn.utils.get_total_norm(gradients).item()))
        return real(optimizer, *call)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    run = dataclasses.replace(RUN, optim=dataclasses.replace(RUN.optim, grad_clip=0.01))
    train(pairs, str(tmp_path / "run"), run)
    for row, (rate, norm) in zip(read_rows(Store.at(str(tmp_path / "run"))), applied, strict=True):
        peak = peak_lr(run.optim, 5)
        assert rate == row["lr"] == lr_at(row["samples"], total=60, peak=peak, config=run.optim)
        assert norm == pytest.approx(0.01, rel=1e-3)
        assert row["grad_norm"] > 0.01


def test_rows_are_readable_before_a_checkpoint_counts(pairs: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Store.at("memory://loop-rows-first")
    real, known = checkpoint.save, []

    def save(store: Store, made: checkpoint.Checkpoint, **more: Any) -> None:
        known.append((made.step, len(read_rows(store)) >= made.step))
        real(store, made, **more)

    monkeypatch.setattr(checkpoint, "save", save)
    train(pairs, out.url, checkpoint_every=4)
    assert known == [(4, True), (8, True), (12, True)]


@pytest.mark.parametrize("every", [12, 3])
def test_a_full_disk_under_the_rows_stops_the_run(
    pairs: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Told at the next exchange; a checkpoint that is due first is not written over missing rows."""
    written = []

    def write(self: Meter, row: object) -> None:
        written.append(row)
        if len(written) == 3:
            raise SourceError("metrics.jsonl failed: no space left")

    monkeypatch.setattr(Meter, "write", write)
    with pytest.raises(SourceError, match="no space"):
        train(pairs, str(tmp_path / "run"), checkpoint_every=every)
    assert len(written) == 3
    assert not checkpoint.steps(Store.at(str(tmp_path / "run")))


def test_masks_of_the_two_sensors_are_independent(pairs: Store) -> None:
    noises = []

    def wrapped(*_: object, noise_s1_BL: torch.Tensor, noise_s2_BL: torch.Tensor, contrast: None) -> None:
        noises.extend((noise_s1_BL, noise_s2_BL))

    zeros = torch.zeros(3, dtype=torch.int64)
    batch = Batch(
        images=dict.fromkeys(("s1", "s2"), zeros),
        dates_BT3=None,
        keys=(),
        hashes_B=zeros,
        sample_ids_B=zeros + 5,
        epochs_B=zeros,
        valid_B=zeros == 0,
    )
    CromaObjective(MODEL, seed=0).losses(wrapped, batch)
    s1, s2 = noises
    assert torch.equal(s1[0], s1[1])
    assert abs(torch.corrcoef(torch.stack((s1[0], s2[0])))[0, 1]) < 0.9
    assert not torch.equal(s1, s2)


def test_ranks_that_differ_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks.start("no")
    ranks.check_equal(("recipe", 1))
    monkeypatch.setattr(ranks, "gather_object", lambda mine: [*mine, "('recipe', 2)"])
    with pytest.raises(StreamError, match="rank 1 has"):
        ranks.check_equal(("recipe", 1))

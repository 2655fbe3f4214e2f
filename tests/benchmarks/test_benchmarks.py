"""The benchmarks run and their numbers are numbers; how large they are is nobody's test."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from benchmarks import attention, feed, grouprec, machine, optimizer, scaling, step, stream
from torch.nn.attention.flex_attention import flex_attention

from train.models.blocks import explicit_attention
from train.models.positions import alibi_bias
from train.recipes import croma

pytestmark = pytest.mark.train


def checked(printed: str) -> list[dict[str, Any]]:
    found = json.loads(printed)
    assert {"date", "hardware", "torch", "threads", "load"} <= set(found)
    rows: list[dict[str, Any]] = found["rows"]
    assert all(math.isfinite(x) and x > 0 for row in rows for x in row.values() if type(x) is float)
    return rows


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    def run(benchmark: ModuleType, *flags: str) -> list[dict[str, Any]]:
        monkeypatch.setattr(sys, "argv", ["", "--steps", "1", "--device", "cpu", "--json", *flags])
        benchmark.main()
        return checked(capsys.readouterr().out)

    return run


@pytest.mark.slow
def test_a_step_is_measured(told: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "PRODUCTS_S", 0.01)
    plain, temporal = told(step, "--recipe", "tiny", "tiny_temporal", "--batch", "2")
    (recomputed,) = told(step, "--recipe", "tiny", "--batch", "2", "--recompute")
    assert [row["recipe"] for row in (plain, temporal)] == ["tiny", "tiny_temporal"]
    assert recomputed["activations MB/sample"] < plain["activations MB/sample"]
    assert plain["peak memory MB"] > 0


def test_a_batch_that_fits_is_sought_on_gpus_only(told: Callable[..., list[dict[str, Any]]]) -> None:
    with pytest.raises(SystemExit, match="--fit needs a GPU"):
        told(step, "--fit")


def test_ways_of_attention_are_measured(told: Callable[..., list[dict[str, Any]]]) -> None:
    rows = told(attention, "--recipe", "tiny", "tiny_plain", "--batch", "2")
    assert [row["attention"] for row in rows] == ["explicit", "recomputed", "fused"] * 2
    assert all(float(row["error"]) < 1e-4 for row in rows)


def test_ways_of_adamw_are_measured(told: Callable[..., list[dict[str, Any]]]) -> None:
    assert [row["AdamW"] for row in told(optimizer, "--recipe", "tiny")] == ["fused", "foreach", "loop"]


@pytest.mark.slow
def test_training_from_shards_is_measured(told: Callable[..., list[dict[str, Any]]]) -> None:
    (row,) = told(feed, "--batch", "4", "--chip-px", "120", "--samples", "64", "--threads", "1")
    assert 0 <= row["data_wait_share"] <= 1
    assert (row["mfu"], row["readers"]) == (None, 1)


def test_readers_are_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--peers", "--json", "--steps", "1", "--samples", "8", "--chip-px", "8", "--batch", "4", "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["", *tiny])
    stream.main()
    costs, orders, plans = map(checked, capsys.readouterr().out.splitlines())
    assert [row["reader"] for row in costs] == ["floor", "ours", "ours normalised"] * 2
    assert [row["reader"] for row in orders] == ["ours"]
    assert orders[0]["missing"] == orders[0]["twice"] == orders[0]["smaller batches"] == "0, 0"
    assert all(orders[0][f"resumed 4 to {world}"] == "11 of 11 the same, 0 missing, 0 twice" for world in (4, 2, 8))
    assert plans[0]["samples"] == 100_000_000


@pytest.mark.ingest
def test_readers_of_chips_are_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ingest = pytest.importorskip("benchmarks.ingest")
    monkeypatch.setattr(ingest.images, "SIDE", 900)
    few = ["--peers", "--json", "--delay", "0", "--scenarios", "grid", "sparse", "edge", "--blocks", "512"]
    monkeypatch.setattr(sys, "argv", ["", *few])
    ingest.main()
    rows = checked(capsys.readouterr().out)
    assert [row["reader"] for row in rows] == ["floor", "ours", "floor", "ours", "ours"]
    assert all(row["wrong"] == 0 for row in rows)


@pytest.mark.slow
def test_weak_scaling_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--json", "--tables", "stream", "paper", "--processes", "1", "2", "--samples", "64", "--chip-px", "8"]
    monkeypatch.setattr(sys, "argv", ["", *few, "--steps", "1"])
    scaling.main()
    printed = capsys.readouterr().out.splitlines()
    measured, paper = checked(printed[0]), json.loads(printed[1])["rows"]
    assert [(row["processes"], row["samples each"]) for row in measured] == [(1, 64), (2, 64)]
    assert [row["ranks"] for row in paper] == [1, 8, 64, 240, 1000] * 2


def test_what_ranks_ask_for_is_plain_arithmetic() -> None:
    """A ring of four sends 2 * 3/4 of what it reduces, 3/4 of what it gathers."""
    four = scaling.Demand(ranks=4, numbers=1000, width=10, batch=8, rate=16.0, sample_bytes=100.0)
    assert four.step_s == 0.5
    assert four.read_bytes_s == 4 * 16 * 100
    assert four.reduce_bytes == 6000
    assert four.feature_bytes == (3 / 4 + 6 / 4) * 2 * 32 * 10 * 4
    assert four.logit_bytes == 4 * (8 * 32) * 4
    assert four.saved_bytes == 12_000


@pytest.mark.ingest
def test_whole_builds_are_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ingest = pytest.importorskip("benchmarks.ingest")
    monkeypatch.setattr(ingest.ends, "EARTH", (15.10, 47.90, 15.14, 47.93))
    monkeypatch.setattr(ingest.ends, "AREA", (15.10, 47.90, 15.14, 47.93))
    monkeypatch.setattr(ingest.ends, "CELLS", {"all cells": []})
    monkeypatch.setattr(ingest.ends, "SIZE", 120)
    monkeypatch.setattr(sys, "argv", ["", "--peers", "--json", "--delay", "0", "--tables", "ends"])
    ingest.main()
    (row,) = checked(capsys.readouterr().out)
    assert (row["builder"], row["as ours"]) == ("ours", "all")
    assert row["samples"] > 0
    assert row["requests"] > 15  # bands of a pair, each by its own


@pytest.mark.ingest
def test_planning_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ingest = pytest.importorskip("benchmarks.ingest")
    monkeypatch.setattr(sys, "argv", ["", "--json", "--tables", "plan", "--chips", "500"])
    ingest.main()
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert 300 < row["chips"] < 1000


@pytest.mark.slow
@pytest.mark.parametrize("script", ["step", "attention", "optimizer", "stream", "ingest", "scaling"])
def test_each_is_a_script(script: str) -> None:
    command = [sys.executable, str(Path(__file__).with_name(f"{script}.py")), "--help"]
    assert "--json" in subprocess.check_output(command, text=True, timeout=120)


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 37, 64, 1000])
def test_the_largest_batch_is_found_to_a_sixteenth(limit: int) -> None:
    found = machine.largest(lambda batch: batch <= limit)
    assert limit - limit / 16 <= found <= limit


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_bias_from_coordinates_inside_the_kernel_is_the_same() -> None:
    qkv, yx_BL2, slopes_N = attention.inputs(croma.tiny(), 2, device=torch.device("cpu"), dtype=torch.float32)
    bias = alibi_bias(yx_BL2, yx_BL2, slopes_N)
    found = attention.flexible(flex_attention, yx_BL2, slopes_N)(*(x.detach() for x in qkv), bias=None)
    torch.testing.assert_close(found, explicit_attention(*qkv, bias=bias).detach(), atol=1e-5, rtol=1e-5)


def test_grouprec_measures_sizes_and_the_released_codes_epoch() -> None:
    small, row = grouprec.scale(300), grouprec.reference("planted:users=50,items=30,groups=2,per_user=5", 1)
    assert small["interactions"] > 1000
    assert all(math.isfinite(value) and value > 0 for value in small.values())
    assert row["epoch_cpu_s"] > 0

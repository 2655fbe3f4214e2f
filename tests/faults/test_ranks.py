"""What one rank meets, both stop for, with one message."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness
import pytest
from tiny_pairs import write_pairs

from pipeline import index
from pipeline.store import Store
from train.meter import read_rows
from train.quarantine import FILE_NAME
from train.stream.lanes import LanePlan

pytestmark = [pytest.mark.train, pytest.mark.slow]


STEPS = 4


def flip(data: Path, row: int) -> dict[str, Any]:
    """Damage a sample of a finished data set; its row of the index."""
    table = index.from_parquet((data / "index.parquet").read_bytes(), where="index")
    known = {name: table[name][row].as_py() for name in table.column_names}
    path = data / known["shard"]
    damaged = bytearray(path.read_bytes())
    damaged[known["s2_offset"] + 100] ^= 1
    path.write_bytes(damaged)
    return known


def test_damage_that_one_rank_meets_stops_both_with_one_message(tmp_path: Path) -> None:
    bad, out = tmp_path / "data", tmp_path / "run"
    write_pairs(str(bad), chip_px=120)
    known = flip(bad, 0)
    flags = ["--recipe", "tiny", "--data", str(bad), "--out", str(out), "--steps", "8"]
    command = [sys.executable, *harness.LAUNCH, "train/croma.py", *flags]
    done = subprocess.run(
        command,
        cwd=harness.ROOT,
        env=harness.ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        start_new_session=True,
    )
    harness.wait_for_end(out)
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert known["key"] in told[0]
    assert known["shard"] in told[0]
    assert f"byte {known['s2_offset']}" in told[0]
    assert 'train/croma.py", line' not in done.stderr, "a rank printed a traceback"


def test_what_the_other_rank_meets_is_stood_in_for_alike_and_told_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_pairs(str(data), chip_px=120)
    known = flip(data, 14)
    plan = LanePlan(shard_sizes=(7, 1, 12, 5), lanes=16, global_batch=16, seed=0)
    assert not any(11 in plan.batch(step, 0, 2)[0] for step in range(STEPS)), "rank 0 meets it, too"
    flags = ["--recipe", "tiny", "--data", str(data), "--steps", str(STEPS), "--on-corrupt", "quarantine"]
    said = {}
    for name, launch in (("one", ()), ("two", harness.LAUNCH)):
        said[name] = harness.run(*launch, "train/croma.py", *flags, "--out", str(tmp_path / name)).stderr
    one, two = (read_rows(Store.at(str(tmp_path / name))) for name in ("one", "two"))
    assert len(one) == STEPS
    assert sum(row["quarantined"] for row in one) > 0
    for was, now in zip(one, two, strict=True):
        assert (now["batch_hash"], now["quarantined"]) == (was["batch_hash"], was["quarantined"])
        assert now["loss"] == pytest.approx(was["loss"], rel=1e-3)
    (listed,) = (json.loads(line) for line in (tmp_path / "two" / FILE_NAME).read_text().splitlines())
    assert listed == {"sample_id": 11, **{name: known[name] for name in ("key", "shard")}, "offset": known["s2_offset"]}
    assert (tmp_path / "one" / FILE_NAME).read_bytes() == (tmp_path / "two" / FILE_NAME).read_bytes()
    assert said["one"].count(known["key"]) == said["two"].count(known["key"]) == 1

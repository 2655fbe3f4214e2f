"""What one rank meets, both stop for, with one message."""

import subprocess
import sys
from pathlib import Path

import harness
import pytest
from tiny_pairs import write_pairs

from pipeline import index

pytestmark = [pytest.mark.train, pytest.mark.slow]


def test_damage_that_one_rank_meets_stops_both_with_one_message(tmp_path: Path) -> None:
    bad, out = tmp_path / "data", tmp_path / "run"
    write_pairs(str(bad), chip_px=120)
    table = index.from_parquet((bad / "index.parquet").read_bytes(), where="index")
    shard, key, offset = (table[name][0].as_py() for name in ("shard", "key", "s2_offset"))
    damaged = bytearray((bad / shard).read_bytes())
    damaged[offset + 100] ^= 1
    (bad / shard).write_bytes(damaged)
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
    assert key in told[0]
    assert shard in told[0]
    assert 'train/croma.py", line' not in done.stderr, "a rank printed a traceback"

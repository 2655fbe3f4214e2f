"""The same commands against an S3 store: the same bytes as on disk, and a run that goes on from its checkpoint."""

import hashlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import harness
import pytest
from tiny_earth import Tiny
from tiny_pairs import make_sample, write_pairs

from pipeline.bands import S1_NAMES, S2_NAMES

pytestmark = [pytest.mark.ingest, pytest.mark.train, pytest.mark.slow]


BUCKET = "import s3fs; s3fs.S3FileSystem().mkdir('bucket')"


@pytest.fixture(scope="module", params=["moto", "ceph_rgw"])
def s3(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of a client of a store with one bucket: a simulator, and a real store where it is installed."""
    environment: dict[str, str] = request.getfixturevalue(request.param)
    harness.run("-c", BUCKET, env=environment)
    return environment


@pytest.fixture(scope="session")
def moto() -> Iterator[dict[str, str]]:
    """A simulator on a free port of this machine."""
    pytest.importorskip("moto", reason="needs the dev extra")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    keys = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_DEFAULT_REGION": "us-east-1"}
    try:
        _wait_for(port)
        yield {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", **keys}
    finally:
        harness.end(server)


def _wait_for(port: int) -> None:
    end_s = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < end_s, "the store did not start"
            time.sleep(0.1)
        else:
            return


def _objects(folder: str, env: dict[str, str]) -> dict[str, str]:
    code = (
        "import hashlib, s3fs; fs = s3fs.S3FileSystem()\n"
        f"for path in fs.find('{folder}'):\n"
        f"    print(path.removeprefix('{folder}/'), hashlib.sha256(fs.cat_file(path)).hexdigest())"
    )
    return dict(line.split() for line in harness.run("-c", code, env=env).stdout.splitlines())


def test_ranges_are_the_file_s_bytes(s3: dict[str, str]) -> None:
    code = (
        "import os; from pipeline.store import Store\n"
        "store, data = Store.at('s3://bucket/ranges'), os.urandom(9_000_000)\n"
        "store.publish('whole', data)\n"
        "assert store.read('whole') == data\n"
        "ranges = (0, 1), (511, 5000), (4_999_999, 8_388_609), (8_999_990, 9_000_000), (8_999_990, 9_900_000)\n"
        "for start, stop in ranges:\n"
        "    assert store.read_range('whole', start, stop) == data[start:stop], (start, stop)\n"
        "store.publish('whole', b'new')\n"
        "assert store.read('whole') == b'new' and store.names() == ['whole']\n"
        "try: store.read_range('none', 0, 1)\n"
        "except FileNotFoundError: pass\n"
        "else: raise AssertionError('it is not there')"
    )
    harness.run("-c", code, env=s3)


def test_a_build_writes_the_bytes_that_it_writes_to_disk(tiny: Tiny, tmp_path: Path, s3: dict[str, str]) -> None:
    what = ["--aoi", tiny.aoi, "--catalog", str(tiny.root), "--chip-px", "24", "--workers", "0"]
    harness.run("-m", "ingest.cli", "build-shards", *what, "--out", str(tmp_path / "data"))
    said = harness.run("-m", "ingest.cli", "build-shards", *what, "--out", "s3://bucket/data", env=s3)
    assert "hunter2" not in said.stdout + said.stderr
    assert _objects("bucket/data", s3) == harness.tree(tmp_path / "data")


def test_a_run_reads_from_and_resumes_on_the_store(tmp_path: Path, s3: dict[str, str]) -> None:
    write_pairs(str(tmp_path / "pairs"), chip_px=120)
    code = f"import s3fs; s3fs.S3FileSystem().put({str(tmp_path / 'pairs')!r}, 'bucket/pairs', recursive=True)"
    harness.run("-c", code, env=s3)
    run = ["train/croma.py", "--recipe", "tiny", "--data", "s3://bucket/pairs", "--out", "s3://bucket/run", "--resume"]
    more = [*run, "--steps", "40", "--checkpoint-every", "4"]
    done = "import sys, s3fs; sys.exit(not s3fs.S3FileSystem().glob('bucket/run/step-*/COMMIT.json'))"

    def committed() -> bool:
        return not subprocess.run(
            [sys.executable, "-c", done], env={**harness.ENVIRONMENT, **s3}, check=False, timeout=60
        ).returncode

    assert harness.run_and_kill(*more, when=committed, env=s3)
    said = harness.run(*more, env=s3)
    assert re.search(r"done_steps +[1-9][0-9]*$", said.stdout + said.stderr, re.MULTILINE), "it began anew"
    objects = _objects("bucket/run", s3)
    assert "step-00000040/COMMIT.json" in objects
    assert hashlib.sha256(b"").hexdigest() not in objects.values()


def test_foreign_tars_are_read_where_they_lie(tmp_path: Path, s3: dict[str, str]) -> None:
    store = write_pairs(str(tmp_path / "pairs"), codec="npy")
    code = (
        f"import s3fs; s3fs.S3FileSystem().put({str(tmp_path / 'pairs' / 'shards')!r}, 'bucket/theirs', recursive=True)"
    )
    harness.run("-c", code, env=s3)
    sensors = {"s2": S2_NAMES, "s1": S1_NAMES}
    content = {name: {"suffix": f"{name}.npy", "bands": bands} for name, bands in sensors.items()}
    (tmp_path / "map.json").write_text(json.dumps(content | {"split": {"val_tars": ["*/val/*"]}}))
    tars = [f"s3://bucket/theirs/{split}/*.tar" for split in ("train", "val")]
    index = ["train/index.py", "--tars", *tars, "--map", str(tmp_path / "map.json"), "--out"]
    for out, first in (
        ("s3://bucket/theirs", "train/u00000"),
        (str(tmp_path / "away"), "s3://bucket/theirs/train/u00000"),
    ):
        harness.run(*index, out, env=s3)
        code = (
            "from pipeline.store import Store; from train.stream.samples import open_samples; import hashlib\n"
            f"one = open_samples(Store.at({out!r}), 'train', kind='pair', bands={sensors})\n"
            "print(one.shards[0], hashlib.sha256(one.read(24).images['s1'].tobytes()).hexdigest())"
        )
        name, digest = harness.run("-c", code, env=s3).stdout.split()
        assert name == f"{first}-0000.tar"
        assert digest == hashlib.sha256(make_sample(24, 24).s1.tobytes()).hexdigest()
    assert store.names() == ["index.parquet", "manifest.json", "shards", "stats.json"]


def test_a_killed_build_goes_on_with_worker_processes(tiny: Tiny, tmp_path: Path, s3: dict[str, str]) -> None:
    """The driver lists the receipts before its workers write more: it must see theirs at the end."""
    what = ["--aoi", tiny.aoi, "--catalog", str(tiny.root), "--chip-px", "24"]
    build = ["-m", "ingest.cli", "build-shards", *what, "--out", "s3://bucket/killed"]
    harness.run(*build, "--workers", "0", env=s3)
    wanted = _objects("bucket/killed", s3)
    gone = ["manifest.json", "receipts/u00001.json", "receipts/u00002.json"]
    harness.run("-c", f"import s3fs; s3fs.S3FileSystem().rm(['bucket/killed/' + n for n in {gone}])", env=s3)
    harness.run(*build, "--workers", "1", env=s3)
    assert _objects("bucket/killed", s3) == wanted

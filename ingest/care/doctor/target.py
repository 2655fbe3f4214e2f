"""Can the data set be written where it shall go? An object is written, read back and removed; nothing stays."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from ingest import probe
from ingest.care.doctor.check import Check
from ingest.cost import Cost
from pipeline.store import Store


def check_target(store: Store) -> Iterator[Check]:
    """Write, list, read and remove an object; try whether the store refuses to overwrite when it is asked to.

    Raises:
        PretrainError: it may not be written to, or fails.
    """
    name = probe.new_name()
    folder_was_there = store.is_local and Path(store.path("")).exists()
    try:
        wrong = probe.faults(store, name) + (["what was written cannot be removed"] if store.exists(name) else [])
        if wrong:
            yield Check(
                status="fail", name="target", said=f"{store.url}: {'; '.join(wrong)}", todo="Give another --out"
            )
        else:
            said = f"{store.url}: an object was written twice, listed, read by ranges and removed"
            yield Check(status="ok", name="target", said=said)
        yield _once(store, f"{name}-once")
    finally:
        if store.is_local and not folder_was_there and Path(store.path("")).is_dir():
            Path(store.path("")).rmdir()


def _once(store: Store, name: str) -> Check:
    if store.creates_once(name):
        return Check(status="ok", name="conditional put", said="the store honours it: of two writers one wins")
    said = "the store ignores it or does not know it"
    return Check(status="warn", name="conditional put", said=said, todo="Let only one command at a time write there")


def check_room(store: Store, cost: Cost, *, workers: int) -> Iterator[Check]:
    """Free disk and memory against what the plan expects."""
    if store.is_local:
        yield _disk(store, cost.bytes_shards + cost.bytes_cube)
    free, needed = _free_memory(), cost.memory_bytes * max(1, workers)
    if free is not None:
        short = needed > free
        said = f"{free / 1e9:.1f} GB are free, {workers} workers take up to {needed / 1e9:.1f} GB"
        todo = "Use fewer --workers" if short else ""
        yield Check(status="warn" if short else "ok", name="memory", said=said, todo=todo)


def _disk(store: Store, needed: int) -> Check:
    path = Path(store.path(""))
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    short = needed > free
    said = f"{free / 1e9:.1f} GB are free, about {needed / 1e9:.2f} GB will be written"
    return Check(status="fail" if short else "ok", name="disk", said=said, todo="Make room" if short else "")


def _free_memory() -> int | None:
    """Bytes that programs may still take; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)

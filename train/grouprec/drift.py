"""Today's run begins from yesterday's: known users and items keep their vectors, and only who changed is grouped anew.

A finished run leaves its users' names with a mark of what each had, and its items' names. Numbers change from day to
day, names do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.store import Store
from train import checkpoint
from train.grouprec import identify, pretext, saving
from train.grouprec.fit import Trainer
from train.grouprec.identify import PseudoGroups
from train.grouprec.interactions import Dataset, Ints
from train.grouprec.modes import FitConfig
from train.grouprec.state import Array

USERS_NAME, ITEMS_NAME = "users.parquet", "items.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Yesterday:
    """A run that has finished."""

    url: str
    """For messages."""
    users: Sequence[str]
    """Names, in the order of its vectors."""
    marks_U: Ints
    """What each had, as a number."""
    items: Sequence[str]
    """Names."""
    arrays: Mapping[str, Array]
    """Of the epoch that was kept."""


def leave(store: Store, data: Dataset) -> None:
    """Write what the run of the day after needs beside the checkpoints."""
    names = [str(name) for name in data.names.users.tolist()]
    store.publish(USERS_NAME, _parquet(pa.table({"user": names, "mark": marks(data)})))
    store.publish(ITEMS_NAME, _parquet(pa.table({"item": [str(name) for name in data.names.items.tolist()]})))


def read(store: Store) -> Yesterday:
    """What a finished run left.

    Raises:
        UsageError: there is none.
    """
    found = checkpoint.latest(store, lambda _: None)
    if found is None or not store.exists(ITEMS_NAME):
        raise UsageError(f"{store.url} holds no finished run. Give --from a folder MODE-seed-N of another OUT.")
    users, items = (pq.read_table(pa.BufferReader(store.read(name))) for name in (USERS_NAME, ITEMS_NAME))
    return Yesterday(
        url=store.url,
        users=users["user"].to_pylist(),
        marks_U=users["mark"].to_numpy(),
        items=items["item"].to_pylist(),
        arrays=saving.kept(found),
    )


def inherited(config: FitConfig) -> FitConfig:
    """A run that keeps the groups it begins with."""
    grouping = config.grouping
    return config if grouping is None else replace(config, grouping=replace(grouping, warmup=config.epochs))


def begin(trainer: Trainer, before: Yesterday, *, seed: int) -> None:
    """Give a new run the vectors and groups of the one before.

    Raises:
        UsageError: the vectors are of another width or scorer.
    """
    state, data, was = trainer.state, trainer.data, before.arrays
    if was["table"].shape[1] != trainer.config.width or was["head"].shape != state.head_1W.shape:
        raise UsageError(
            f"--from {before.url}: its vectors are {was['table'].shape[1]} wide, or its scorer is another. "
            "Use the same --mode and --scorer."
        )
    users = _numbers(data.names.users, before.users)
    items = _numbers(data.names.items, before.items)
    rows = np.concatenate([users, np.where(items >= 0, items + len(before.users), -1)])
    state.table_ND[rows >= 0] = was["table"][rows[rows >= 0]]
    state.head_1W = was["head"].copy()
    grouping = trainer.config.grouping
    if grouping is None:
        return
    changed_U = (users < 0) | (marks(data) != np.where(users >= 0, before.marks_U[users], 0))
    vectors_UD = trainer.vectors()[0]
    found = identify.drifted(
        _renumbered(was, users), vectors_UD, changed_U & trainer.warm_U, grouping.identify, seed=seed
    )
    state.center_GD, state.assignment_U = found.centers_GD, found.assignment_U
    if len(found.centers_GD):
        state.targets = pretext.make_targets(found, vectors_UD, trainer.positives, grouping.pretext)


def marks(data: Dataset) -> Ints:
    """(U,) A number for each user's set of items by name, whatever their order."""
    hashes = [int.from_bytes(blake2b(str(name).encode(), digest_size=8).digest()) for name in data.names.items.tolist()]
    users, items = data.user_items.split()
    total = np.zeros(data.n_users, np.uint64)
    np.add.at(total, users, np.array(hashes, np.uint64)[items])
    return total.view(np.int64)


def _renumbered(was: Mapping[str, Array], users: Ints) -> PseudoGroups:
    """The groups of the day before, over the users of today."""
    assignment = was["assignment"]
    own = np.where(users >= 0, assignment[users], -1) if len(assignment) else np.full(len(users), -1)
    return PseudoGroups(centers_GD=was["centers"], assignment_U=own)


def _numbers(names: NDArray[np.object_] | Ints, before: Sequence[str]) -> Ints:
    """Yesterday's number of each name, -1 for new ones."""
    number_of = {name: number for number, name in enumerate(before)}
    return np.array([number_of.get(str(name), -1) for name in names.tolist()], np.int64)


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data

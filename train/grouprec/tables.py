"""Plain tables of interactions (CSV, Parquet) with any ids → a data set with a held-out item per user.

Columns `user` and `item`; where there is a column `rating`, only rows above 0 are positives. A second table may name
the members of groups (`group`, `user`): they are recommended to, never trained on.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from pipeline.errors import UsageError
from pipeline.store import Store
from train.grouprec.interactions import Cases, Dataset, Ints, Names, Pairs, no_cases


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coded:
    """Ids as numbers."""

    numbers: Ints
    names: Any


def read(url: str, members_url: str | None, *, seed: int) -> Dataset:
    """The data set of a table, with one item of each user who has two or more held out for the test.

    Args:
        url: of interactions, `.csv` or `.parquet`.
        members_url: of groups' members, or None.
        seed: of what is held out.

    Raises:
        UsageError: a table or column is missing, an id is, or a line is malformed.
    """
    users, items = _coded(positives(url), ("user", "item"), url)
    shape = (len(users.names), len(items.names))
    held, kept = hold_out(Pairs.of(users.numbers, items.numbers, shape), seed=seed)
    groups, members = _members(members_url, users.names)
    return Dataset(
        user_items=kept,
        members=members,
        group_items=Pairs.of(np.zeros(0, np.int64), np.zeros(0, np.int64), (len(groups), shape[1])),
        user_cases=held,
        group_cases=no_cases(),
        names=Names(users=users.names, items=items.names, groups=groups),
    )


def hold_out(pairs: Pairs, *, seed: int) -> tuple[Cases, Pairs]:
    """One random item of each row that has two or more, without listed negatives; and the rest."""
    rows = np.flatnonzero(pairs.counts > 1)
    at = pairs.starts[rows] + (np.random.default_rng(seed).random(len(rows)) * pairs.counts[rows]).astype(np.int64)
    dropped = np.zeros(len(pairs), np.bool_)
    dropped[at] = True
    cases = Cases(
        ids_R=rows, positives_R=pairs.keys_E[at] % pairs.n_columns, negatives_RN=np.zeros((len(rows), 0), np.int64)
    )
    return cases, pairs.without(dropped)


def positives(url: str) -> pa.Table:
    """Rows of a table of interactions that are rated above 0, or all where there are no ratings."""
    table = _table(url)
    if "rating" not in table.column_names:
        return table
    try:
        liked = pc.greater(pc.cast(table["rating"], pa.float64()), 0)
    except pa.ArrowInvalid as error:
        raise UsageError(f"{url}, column rating: {error}. Write numbers, or leave the column out.") from error
    return table.filter(liked)


def _members(url: str | None, users: Any) -> tuple[Any, Pairs]:
    if url is None:
        empty = np.zeros(0, np.int64)
        return empty, Pairs.of(empty, empty, (0, len(users)))
    groups, members = _coded(_table(url), ("group", "user"), url)
    number_of = {name: number for number, name in enumerate(users.tolist())}
    known = np.array([number_of.get(name, -1) for name in members.names.tolist()], np.int64)[members.numbers]
    if (known < 0).any():
        stranger = members.names[members.numbers[int(np.argmax(known < 0))]]
        raise UsageError(f"{url}: member {stranger!r} is no user of the interactions. Remove it, or add what it has.")
    return groups.names, Pairs.of(groups.numbers, known, (len(groups.names), len(users)))


def _coded(table: pa.Table, columns: tuple[str, str], url: str) -> tuple[_Coded, _Coded]:
    for name in columns:
        if name not in table.column_names:
            raise UsageError(f"{url} has no column {name!r}, but {table.column_names}. Rename the one that is meant.")
        if table[name].null_count:
            row = int(np.argmax(table[name].is_null().to_numpy()))
            raise UsageError(f"{url}, row {row + 1}: {name} is missing: {table.slice(row, 1).to_pylist()}. Remove it.")
    first, second = (_code(table[name]) for name in columns)
    return first, second


def _code(column: pa.ChunkedArray) -> _Coded:
    names, numbers = np.unique(column.to_numpy(zero_copy_only=False), return_inverse=True)
    return _Coded(numbers=numbers.astype(np.int64), names=names)


def _table(url: str) -> pa.Table:
    folder, _, name = url.rpartition("/")
    try:
        data = pa.py_buffer(Store.at(folder or ".").read(name))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UsageError(f"{url} is not there. Give a .csv or .parquet file, or a benchmark's folder.") from error
    try:
        return pq.read_table(pa.BufferReader(data)) if name.endswith(".parquet") else _csv(data, url)
    except pa.ArrowInvalid as error:
        raise UsageError(f"{url} cannot be read: {error}. Give CSV with a head line, or Parquet.") from error


def _csv(data: pa.Buffer, url: str) -> pa.Table:
    bad: list[csv.InvalidRow] = []

    def refuse(row: csv.InvalidRow) -> str:
        bad.append(row)
        return "skip"

    table = csv.read_csv(
        pa.BufferReader(data),
        read_options=csv.ReadOptions(use_threads=False),  # only so do rows know their number
        parse_options=csv.ParseOptions(invalid_row_handler=refuse),
        convert_options=csv.ConvertOptions(strings_can_be_null=True),
    )
    if bad:
        raise UsageError(
            f"{url}, line {bad[0].number}: {bad[0].text[:80]!r} has {bad[0].actual_columns} columns, not "
            f"{bad[0].expected_columns}. Correct or remove the line."
        )
    return table

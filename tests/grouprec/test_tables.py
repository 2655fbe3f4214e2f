"""Tables of any ids: round trip through CSV and Parquet, what is held out, errors that name the row."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from pipeline.errors import UsageError
from train.grouprec import tables
from train.grouprec.interactions import Dataset

pytestmark = pytest.mark.train
ROWS = [("ann", 700, 5.0), ("ann", 3, 1.0), ("bob", 700, 0.0), ("cy", 12, 2.0), ("ann", 3, 4.0), ("cy", 9, 1.0)]


def _table() -> pa.Table:
    return pa.table({name: [row[at] for row in ROWS] for at, name in enumerate(("user", "item", "rating"))})


def _pairs(data: Dataset) -> set[tuple[str, int]]:
    rows, columns = data.user_items.split()
    held = zip(data.user_cases.ids_R, data.user_cases.positives_R, strict=True)
    return {
        (data.names.users[user], int(data.names.items[item]))
        for user, item in [*zip(rows, columns, strict=True), *held]
    }


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_positives_come_back_under_their_names(tmp_path: Path, suffix: str) -> None:
    path = str(tmp_path / f"t.{suffix}")
    csv.write_csv(_table(), path) if suffix == "csv" else pq.write_table(_table(), path)
    data = tables.read(path, None, seed=0)
    assert _pairs(data) == {("ann", 700), ("ann", 3), ("cy", 12), ("cy", 9)}
    assert (data.n_users, data.n_items, data.n_groups) == (2, 4, 0)


def test_one_item_is_held_out_of_users_with_two(tmp_path: Path) -> None:
    path = str(tmp_path / "t.parquet")
    pq.write_table(pa.table({"user": [1, 1, 1, 5, 9, 9], "item": [1, 2, 3, 1, 1, 2]}), path)
    data = tables.read(path, None, seed=1)
    assert data.names.users[data.user_cases.ids_R].tolist() == [1, 9]
    assert data.user_items.counts.tolist() == [2, 1, 1]
    assert not data.user_items.has(data.user_cases.ids_R, data.user_cases.positives_R).any()


def test_the_seed_decides_what_is_held_out(tmp_path: Path) -> None:
    path = str(tmp_path / "t.parquet")
    pq.write_table(pa.table({"user": np.repeat(np.arange(50), 4), "item": np.tile(np.arange(4), 50)}), path)
    first, again, other = (tables.read(path, None, seed=seed).user_cases.positives_R.tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_members_are_users(tmp_path: Path) -> None:
    path, members = str(tmp_path / "t.csv"), str(tmp_path / "m.csv")
    csv.write_csv(_table(), path)
    Path(members).write_text("group,user\nfamily,ann\nfamily,cy\nwork,cy\n")
    data = tables.read(path, members, seed=0)
    assert data.names.groups.tolist() == ["family", "work"]
    assert [data.names.users[data.members.row(group)].tolist() for group in (0, 1)] == [["ann", "cy"], ["cy"]]
    Path(members).write_text("group,user\nfamily,dan\n")
    with pytest.raises(UsageError, match="member 'dan' is no user"):
        tables.read(path, members, seed=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item\na,1\nb,2,3\n", "line 3: 'b,2,3' has 3 columns, not 2"),
        ("user,item\na,1\n,2\n", "row 2: user is missing"),
        ("user,thing\na,1\n", "no column 'item'"),
        ("user,item,rating\na,1,good\n", "column rating"),
        ("", "cannot be read"),
    ],
)
def test_bad_tables_say_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        tables.read(str(path), None, seed=0)


def test_a_missing_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there"):
        tables.read(str(tmp_path / "t.csv"), None, seed=0)

"""The day after: users and items are known by name, and whoever did not change keeps vector and group."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.store import Store
from train.grouprec import drift, planted
from train.grouprec.fit import Trainer
from train.grouprec.interactions import Dataset, Names, Pairs
from train.grouprec.job import Options, Surroundings, fit
from train.grouprec.modes import FitConfig, recommended
from train.grouprec.peers import Peers
from train.grouprec.planted import Planted
from train.grouprec.source import Source

pytestmark = pytest.mark.train
CONFIG: FitConfig = replace(recommended("planted"), width=8, batch=256, epochs=8, lr=1e-2)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return planted.dataset(Planted(users=120, items=60, groups=3, per_user=10))[0]


def _run(data: Dataset, store: Store, config: FitConfig, before: drift.Yesterday | None = None) -> Trainer:
    around = Surroundings(peers=Peers(), say=lambda _: None, asked_to_stop=lambda: False, before=before)
    source = Source(name="planted", data=data, defects=None, truth_U=None)
    assert fit(source, config, store, Options(protocols=("full",)), seed=0, around=around) is not None
    trainer = Trainer(data, config, seed=0)
    if before is not None:
        drift.begin(trainer, before, seed=0)
    return trainer


def _shuffled(data: Dataset, seed: int) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """The same people and things under other numbers."""
    random = np.random.default_rng(seed)
    users, items = random.permutation(data.n_users), random.permutation(data.n_items)
    rows, columns = data.user_items.split()
    names = Names(users=np.argsort(users), items=np.argsort(items), groups=data.names.groups)
    pairs = Pairs.of(users[rows], items[columns], (data.n_users, data.n_items))
    return replace(data, user_items=pairs, names=names), users, items


def test_marks_know_names_and_not_numbers(data: Dataset) -> None:
    other, users, _ = _shuffled(data, 1)
    assert np.array_equal(drift.marks(other)[users], drift.marks(data))
    less = replace(data, user_items=data.user_items.without(np.arange(len(data.user_items)) == 0))
    changed = drift.marks(less) != drift.marks(data)
    assert np.flatnonzero(changed).tolist() == [0]


def test_who_did_not_change_keeps_vector_and_group(data: Dataset, tmp_path: Path) -> None:
    _run(data, Store.at(str(tmp_path / "monday")), CONFIG)
    before = drift.read(Store.at(str(tmp_path / "monday")))
    other, users, items = _shuffled(data, 2)
    trainer = _run(other, Store.at(str(tmp_path / "tuesday")), drift.inherited(CONFIG), before)
    was = before.arrays
    assert np.array_equal(trainer.state.table_ND[users], was["table"][:120])
    assert np.array_equal(trainer.state.table_ND[120 + items], was["table"][120:])
    assert np.array_equal(trainer.state.assignment_U[users], was["assignment"])
    assert np.array_equal(trainer.state.center_GD, was["centers"])
    assert trainer.state.targets is not None


def test_new_users_join_or_found_groups_and_the_rest_stays(data: Dataset, tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "monday"))
    _run(data, store, CONFIG)
    before = drift.read(store)
    rows, columns = data.user_items.split()
    names = Names(users=np.arange(125), items=data.names.items, groups=data.names.groups)
    more = Pairs.of(np.concatenate([rows, [120, 121, 122]]), np.concatenate([columns, [0, 3, 6]]), (125, 60))
    members = Pairs.of(*data.members.split(), (3, 125))
    grown = replace(data, user_items=more, names=names, members=members)
    trainer = Trainer(grown, drift.inherited(CONFIG), seed=0)
    drift.begin(trainer, before, seed=0)
    assert np.array_equal(trainer.state.assignment_U[:120], before.arrays["assignment"])
    warm = trainer.warm_U[120:]
    assert (trainer.state.assignment_U[120:][warm] >= 0).all()
    assert (trainer.state.assignment_U[120:][~warm] == -1).all()


def test_other_widths_and_unfinished_runs_are_refused(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no finished run"):
        drift.read(Store.at(str(tmp_path / "nothing")))
    store = Store.at(str(tmp_path / "monday"))
    _run(data, store, CONFIG)
    with pytest.raises(UsageError, match="8 wide"):
        drift.begin(Trainer(data, replace(CONFIG, width=4), seed=0), drift.read(store), seed=0)

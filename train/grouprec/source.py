"""What `--data` names: a benchmark's folder, a table, or planted groups."""

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UsageError
from train.grouprec import benchmark, planted, tables
from train.grouprec.defects import Defects
from train.grouprec.interactions import Dataset, Ints
from train.grouprec.planted import Planted

_PLANTED = Planted(users=2000, items=500, groups=5, per_user=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Data, and what is known of it."""

    name: str
    """Short: the folder's or file's name."""
    data: Dataset
    """Interactions."""
    defects: Defects | None
    """Of a benchmark."""
    truth_U: Ints | None
    """Groups that were planted."""

    @property
    def sha256(self) -> str:
        """Of the training positives: a run is resumed on these only."""
        shape = f"{self.data.n_users} {self.data.n_items}".encode()
        return hashlib.sha256(shape + self.data.user_items.keys_E.tobytes()).hexdigest()


def read(url: str, members: str | None, *, seed: int) -> Source:
    """The data at a path or URL; `planted` or `planted:users=2000,groups=5` makes some.

    Args:
        url: of the data.
        members: table of groups' members, for a table of interactions.
        seed: of what a table's test holds out.

    Raises:
        UsageError: it cannot be read.
    """
    if url.partition(":")[0] == "planted" and not url.startswith("planted://"):
        if members is not None:
            raise UsageError(
                f"--members {members} goes with a table; planted data has groups of its own. Leave it out."
            )
        data, truth = planted.dataset(_plan(url.partition(":")[2]))
        return Source(name="planted", data=data, defects=None, truth_U=truth)
    name = url.rstrip("/").rpartition("/")[2]
    if name.endswith((".csv", ".parquet")):
        return Source(name=name, data=tables.read(url, members, seed=seed), defects=None, truth_U=None)
    if members is not None:
        raise UsageError(f"--members {members} goes with a table; {url} has members of its own. Leave it out.")
    data, defects = benchmark.read(url)
    return Source(name=name, data=data, defects=defects, truth_U=None)


def _plan(text: str) -> Planted:
    fields = {field.name: field.type for field in dataclasses.fields(Planted)}
    changes: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            changes[name] = float(value) if fields[name] is float else int(value)
        except (KeyError, ValueError) as error:
            raise UsageError(f"planted data: {part!r} is none of {sorted(fields)} with a number.") from error
    plan = dataclasses.replace(_PLANTED, **changes)
    if not (plan.users >= 1 and 1 <= plan.groups <= plan.items and plan.per_user >= 1 and 0 <= plan.noise <= 1):
        raise UsageError(
            f"planted data: {plan} cannot be. Use at least one user, no more groups than items, and noise from 0 to 1."
        )
    return plan

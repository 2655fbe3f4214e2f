"""One thing that is wrong with a data set, and what to do about it."""

from dataclasses import dataclass

COPY = "Copy it again from where it came"
REBUILD = f"{COPY}, or remove it and manifest.json and run the same build-shards again: it is written from the receipts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong."""

    where: str
    """Object, relative to the data set."""
    problem: str
    """What is wrong, with the values."""
    remedy: str
    """What to do."""

    def __str__(self) -> str:
        """As a person reads it."""
        return f"{self.where}: {self.problem}. {self.remedy}."


def make_again(unit_id: str) -> str:
    """How to make a unit anew."""
    return (
        f"{COPY}, or remove receipts/{unit_id}.json and manifest.json and run the same build-shards again: "
        "it makes this unit anew, with the same bytes"
    )

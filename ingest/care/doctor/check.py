"""One check: a line that says whether something will work, and what to do where it will not."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import PretrainError, redact

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one check found."""

    status: Status
    """`fail`: a build would not work. `warn`: it would, but look at it."""
    name: str
    """What was checked."""
    said: str
    """What was found, with the values."""
    todo: str = ""
    """What to do; empty where nothing is."""

    def __str__(self) -> str:
        """As a person reads it."""
        return f"{self.status:<4}  {self.name}: {self.said}{'. ' + self.todo if self.todo else ''}"


@contextmanager
def failing(checks: list[Check], name: str, todo: str) -> Iterator[None]:
    """What goes wrong inside becomes a failed check: one broken part does not hide the others."""
    try:
        yield
    except PretrainError as error:
        checks.append(Check(status="fail", name=name, said=redact(str(error))))
    except Exception as error:  # noqa: BLE001  whatever other people's servers and files make libraries raise
        said = f"{type(error).__name__}: {redact(str(error)).splitlines()[0] if str(error) else 'no message'}"
        checks.append(Check(status="fail", name=name, said=said, todo=todo))

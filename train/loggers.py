"""Where a run's curves and pictures go beside its files: TensorBoard, and services that are asked for by name.

Each logger lives on a thread of its own. One that fails, or that hangs, ends alone: the training does not wait for it,
and the rows in the run's folder are the truth. The services' packages are imported only where they are asked for; they
take addresses, accounts and projects from the environment variables that they know themselves.
"""

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError

Pictures = Mapping[str, NDArray[np.uint8]]
"""(rows, H, W, 3) each, by name."""
PROJECT = "sentinel-pretrain"
_WAITING = 1000
"""Rows that may wait for a logger before new ones are left out."""
_CLOSING_S = 30.0
"""Seconds that the end of a run waits for a logger."""


class Logger(Protocol):
    """Takes what a run tells; its methods may raise what they like."""

    def write(self, curves: Mapping[str, float], step: int) -> None:
        """Add a step to some curves."""

    def draw(self, pictures: Pictures, step: int) -> None:
        """Add pictures to a step, the rows of each below each other."""

    def close(self) -> None:
        """Finish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What services are told of a run."""

    name: str
    """For people."""
    key: str
    """The same for all attempts at a run: by it they go on with what the first one began."""
    config: Mapping[str, Any]
    """Recipe and versions, as JSON."""


class Board:
    """TensorBoard, in a local folder."""

    def __init__(self, folder: Path, resumed_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only rank 0 needs it

        self._writer: Any = SummaryWriter(str(folder), purge_step=resumed_step + 1)

    def write(self, curves: Mapping[str, float], step: int) -> None:
        """As the protocol says."""
        for name, value in curves.items():
            self._writer.add_scalar(name, value, step)

    def draw(self, pictures: Pictures, step: int) -> None:
        """As the protocol says."""
        for name, rows in pictures.items():
            self._writer.add_image(name, _tall(rows), step, dataformats="HWC")

    def close(self) -> None:
        """As the protocol says."""
        self._writer.close()


class Wandb:
    """Weights & Biases: `WANDB_PROJECT`, `WANDB_MODE` and the rest."""

    def __init__(self, about: About) -> None:
        self._wandb: Any = importlib.import_module("wandb")
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        self._run = self._wandb.init(
            project=project, name=about.name, id=about.key, config=dict(about.config), resume="allow"
        )

    def write(self, curves: Mapping[str, float], step: int) -> None:
        """As the protocol says; steps behind the one that was resumed are known already, and refused there."""
        self._run.log(dict(curves), step=step)

    def draw(self, pictures: Pictures, step: int) -> None:
        """As the protocol says."""
        self._run.log({name: self._wandb.Image(_tall(rows)) for name, rows in pictures.items()}, step=step)

    def close(self) -> None:
        """As the protocol says."""
        self._run.finish()


class Mlflow:
    """MLflow: `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME` and the rest."""

    def __init__(self, about: About) -> None:
        self._mlflow: Any = importlib.import_module("mlflow")
        experiment = self._mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        tag, ids = f"{PROJECT}.key", [experiment.experiment_id]
        mine = f"tags.`{tag}` = '{about.key}'"
        known = self._mlflow.search_runs(ids, filter_string=mine, max_results=1, output_format="list")
        if known:
            self._mlflow.start_run(run_id=known[0].info.run_id)
        else:
            self._mlflow.start_run(run_name=about.name, tags={tag: about.key})
            self._mlflow.log_params(dict(_flat(about.config)))

    def write(self, curves: Mapping[str, float], step: int) -> None:
        """As the protocol says."""
        self._mlflow.log_metrics({_plain(name): value for name, value in curves.items()}, step=step)

    def draw(self, pictures: Pictures, step: int) -> None:
        """As the protocol says."""
        for name, rows in pictures.items():
            self._mlflow.log_image(_tall(rows), key=_plain(name), step=step)

    def close(self) -> None:
        """As the protocol says."""
        self._mlflow.end_run()


class Trackio:
    """Trackio: `TRACKIO_SPACE_ID`, `TRACKIO_DIR` and the rest. It knows runs by name, so the key is part of it."""

    def __init__(self, about: About) -> None:
        self._trackio: Any = importlib.import_module("trackio")
        name = f"{about.name}-{about.key}"
        self._trackio.init(project=PROJECT, name=name, config=dict(about.config), resume="allow", embed=False)

    def write(self, curves: Mapping[str, float], step: int) -> None:
        """As the protocol says."""
        self._trackio.log(dict(curves), step=step)

    def draw(self, pictures: Pictures, step: int) -> None:
        """As the protocol says."""
        self._trackio.log({name: self._trackio.Image(_tall(rows)) for name, rows in pictures.items()}, step=step)

    def close(self) -> None:
        """As the protocol says."""
        self._trackio.finish()


SERVICES: Mapping[str, Callable[[About], Logger]] = {"wandb": Wandb, "mlflow": Mlflow, "trackio": Trackio}
"""By the name of their package, which is also that of the extra."""


def check(names: Sequence[str]) -> None:
    """Raise UsageError unless the packages of these services are here."""
    for name in names:
        if name not in SERVICES:
            raise UsageError(f"--log {name}: there is no such logger. Choose from {', '.join(SERVICES)}.")
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UsageError(
                f"--log {name}: {error}. Install it with `pip install '{PROJECT}[{name}]'`, or leave --log {name} out."
            ) from error


class Beside:
    """A logger on a thread of its own; a failure ends it and not the run."""

    def __init__(self, name: str, begin: Callable[[], Logger], say: Callable[[str], None]) -> None:
        """Begin at once; `say` is told, once, why it is off. What `begin` imports is better imported already."""
        self._name, self._say, self._off = name, say, False
        self._waiting: Queue[Callable[[Logger], None] | None] = Queue(_WAITING)
        # A daemon: where a service hangs, the process ends without it.
        self._thread = Thread(target=self._work, args=(begin,), name=name, daemon=True)
        self._thread.start()

    def write(self, curves: Mapping[str, float], step: int) -> None:
        """Add a step to some curves, soon."""
        self._put(lambda logger: logger.write(curves, step))

    def draw(self, pictures: Pictures, step: int) -> None:
        """Add pictures to a step, soon."""
        self._put(lambda logger: logger.draw(pictures, step))

    def close(self) -> None:
        """Finish what waits, if that does not take too long."""
        self._put(None)
        self._thread.join(_CLOSING_S)
        if self._thread.is_alive():
            self._end(f"did not finish within {_CLOSING_S:.0f} s")

    def _put(self, action: Callable[[Logger], None] | None) -> None:
        if self._off:
            return
        try:
            self._waiting.put_nowait(action)
        except Full:
            self._end(f"is {_WAITING} rows behind")

    def _work(self, begin: Callable[[], Logger]) -> None:
        try:
            logger = begin()
            while (action := self._waiting.get()) is not None:
                action(logger)
            logger.close()
        except Exception as error:  # noqa: BLE001 - whatever it is, curves are not worth a run
            self._end(f"failed: {error!r}")

    def _end(self, why: str) -> None:
        if not self._off:
            self._off = True
            self._say(f"{self._name} {why}. It is off; the rows in the run's folder go on.")


def _tall(rows_RHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return rows_RHWC.reshape(-1, *rows_RHWC.shape[2:])


def _plain(name: str) -> str:
    """Without the one character of our names that MLflow refuses."""
    return name.replace("@", "_at_")


def _flat(value: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for name, part in value.items():
        if isinstance(part, Mapping):
            yield from _flat(part, f"{at}{name}.")
        else:
            yield f"{at}{name}", part

"""What a run is told that does not change its result: where from and to, how often, on how much of the machine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import UsageError
from train.choices import OnCorrupt

RANK_TIMEOUT_S = 600.0
"""Seconds that ranks wait for each other by default: longer than a rank that reads tries a store that is away."""
_LONGEST_S = 10_000_000
"""Seconds: four months, which a wait of every library can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What does not change the result."""

    data: str
    """URL of a finished data set."""
    out: str
    """URL of the run's folder."""
    resume: bool = False
    """Go on from the last checkpoint; begin where there is none."""
    dry_run: bool = False
    """Say what would run; write nothing."""
    checkpoint_every: int = 100
    """Steps."""
    keep: int = 2
    """How many of the newest checkpoints stay."""
    keep_every: int | None = None
    """Steps. Besides, checkpoints of every so many steps stay."""
    micro_batch: int | None = None
    """Samples of each rank that are in memory at once; None: all of a step."""
    threads: int = 4
    """Readers of each rank, or of each of its processes that read."""
    reader_processes: int = 0
    """That read beside each rank; 0: threads of its own do."""
    compile: bool = False
    """Compile each layer."""
    recompute: bool = False
    """Keep only the layers' inputs for the backward pass."""
    shard: bool = False
    """Share parameters, gradients and the optimizer's state over the ranks."""
    cache: str | None = None
    """Folder of this machine for shards of stores elsewhere; None: the one for temporary files."""
    cache_gb: float | None = None
    """Gigabytes. Its limit; None: half of what is free, 0: no cache."""
    on_corrupt: OnCorrupt = "stop"
    """What a sample does whose bytes are damaged in the store."""
    init: str | None = None
    """URL of weights of any published layout to begin with; not looked at when a checkpoint is there."""
    probe_every: int | None = None
    """Steps. The model is probed on the validation split every so many, and at the end; None: never."""
    probe_samples: int = 2048
    """Samples of a split that probes look at, at most."""
    rank_timeout: float = RANK_TIMEOUT_S
    """Seconds that a rank waits for the others before it takes them for lost."""
    log: Sequence[str] = ()
    """Services that curves and pictures also go to, of `loggers.SERVICES`."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        counts = ("checkpoint_every", "keep", "keep_every", "micro_batch", "threads", "probe_every", "probe_samples")
        for name in counts:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value}: use 1 or more.")
        if self.shard and self.micro_batch is not None:
            raise UsageError("--shard and --micro-batch do not go together yet: use more ranks, or --recompute.")
        if self.reader_processes < 0:
            raise UsageError(f"--reader-processes {self.reader_processes}: use 0 or more.")
        if not 1 <= self.rank_timeout <= _LONGEST_S:
            raise UsageError(f"--rank-timeout {self.rank_timeout}: use 1 to {_LONGEST_S:,} seconds.")
        if self.cache_gb is not None and not 0 <= self.cache_gb < math.inf:
            raise UsageError(f"--cache-gb {self.cache_gb}: use 0 or more.")

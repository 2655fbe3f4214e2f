"""What flags may choose from. Nothing here needs numpy, so that `--help` is answered at once."""

from typing import Literal, get_args

Mode = Literal["paper", "reference", "recommended", "ungrouped", "bpr"]
"""Of `modes.MODES`."""
MODE_NAMES: tuple[Mode, ...] = get_args(Mode)
ScorerName = Literal["dot", "mlp", "mlp_sigmoid"]
"""Inner product · small network on the product · the same behind a sigmoid, which saturates: to reproduce."""
SCORERS: tuple[ScorerName, ...] = get_args(ScorerName)
Identifier = Literal["gim", "hdbscan", "kmeans"]
"""What finds groups."""
IDENTIFIERS: tuple[Identifier, ...] = get_args(Identifier)
Protocol = Literal["listed", "clean", "full"]
"""As the files list them · without the positive's copies, training items and repeats · all items but training ones."""
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

"""What flags may choose from. Nothing here needs torch, so that `--help` is answered at once."""

from typing import Literal, get_args

CROMA_RECIPES = ("tiny", "base", "large")
"""Names of `recipes.croma.RECIPES`."""
SATMAE_RECIPES = (
    "tiny_group",
    "tiny_temporal",
    "tiny_plain",
    "group_base",
    "group_large",
    "group_large_pp",
    "temporal_large",
    "plain_large",
)
"""Names of `recipes.satmae.RECIPES`."""
Mode = Literal["exact", "official"]
"""The paper's mathematics · what the released code computes, defects included."""
MODES: tuple[Mode, ...] = get_args(Mode)
OnCorrupt = Literal["stop", "quarantine"]
"""What a sample does whose bytes are damaged in the store: end the run · let another one stand in its place."""
ON_CORRUPT: tuple[OnCorrupt, ...] = get_args(OnCorrupt)
Which = Literal["model", "ema"]
"""The last step's weights · their moving average."""
WHICH: tuple[Which, ...] = get_args(Which)
Sensor = Literal["s1", "s2", "joint"]
"""Whose features."""
SENSORS: tuple[Sensor, ...] = get_args(Sensor)
Pooling = Literal["pooled", "projected", "cls", "tokens"]
"""`projected`: what CROMA's contrastive loss compares. `cls`: SatMAE's class token."""
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
PROBES = ("knn", "linear", "mlp", "kmeans", "retrieval")
"""Of frozen features."""
SERVICES = ("mlflow", "trackio", "wandb")
"""That take curves and pictures; names of `loggers.SERVICES`."""

"""Where clouds are: the scene classification, a product's own probability, and a model that the user brings.

The classification comes first and always counts. A probability adds pixels at or above a threshold. A model is any
function `(bands, pixels, valid) -> probability`: names of the C bands; (C, H, W) uint16 digital numbers, reflectance =
DN x 1e-4, 0 where there is no data; (H, W) bool. It returns (H, W) from 0 to 1.
"""

import importlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ingest.pixels.mosaic import Image
from pipeline.errors import UsageError

Model = Callable[[Sequence[str], NDArray[np.uint16], NDArray[np.bool_]], NDArray[np.floating]]
_LIKE = "Give module:function of a function (bands, pixels, valid) that returns (H, W) from 0 to 1."


def load(text: str) -> Model:
    """The function that `module:function` names.

    Raises:
        UsageError: there is no such module or function.
    """
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise UsageError(f"--cloud-model {text!r} is not module:function. {_LIKE}")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"--cloud-model {text!r} cannot be loaded: {error}. Is its folder on PYTHONPATH, for workers too? {_LIKE}"
        ) from error
    if not callable(found):
        raise UsageError(f"--cloud-model {text!r} is a {type(found).__name__}. {_LIKE}")
    model: Model = found
    return model


def cloudy(image: Image, bands: Sequence[str], *, model: str, threshold_percent: float) -> NDArray[np.bool_] | None:
    """(H, W) where a probability of cloud reaches the threshold; None where there is none.

    Args:
        image: optical pixels, and the product's probability where it was read.
        bands: their names.
        model: `module:function` of the user's model; empty for none.
        threshold_percent: percent.

    Raises:
        UsageError: the model returns something else than a probability a pixel.
    """
    found = [] if image.cloud_percent is None else [np.asarray(image.cloud_percent >= threshold_percent)]
    if model:
        share = np.asarray(load(model)(tuple(bands), image.data.astype(np.uint16), image.valid.copy()))
        found.append(_checked(share, image.valid, model) >= threshold_percent / 100)
    return np.logical_or.reduce(found) & image.valid if found else None


def _checked(share: NDArray[np.generic], valid: NDArray[np.bool_], model: str) -> NDArray[np.float64]:
    if share.shape != valid.shape or share.dtype.kind not in "fiub":
        raise UsageError(f"--cloud-model {model} returned {share.dtype} {share.shape} for {valid.shape}. {_LIKE}")
    seen = share.astype(np.float64)[valid]
    if seen.size and not (np.isfinite(seen).all() and seen.min() >= 0 and seen.max() <= 1):
        raise UsageError(f"--cloud-model {model} returned values from {seen.min()} to {seen.max()}. {_LIKE}")
    return share.astype(np.float64)

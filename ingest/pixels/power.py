"""Is a radar image linear power? Products come as dB, as coded integers and as raw amplitudes under the same names.

The quick test looks at the median: power is far below 1 nearly everywhere, dB are below 0 nearly everywhere, and codes
are integers of tens to thousands.
"""

import numpy as np
from numpy.typing import NDArray

LOWEST_MEDIAN = -0.5
"""Linear power that noise was subtracted from is hardly below 0; dB are -5 to -30."""
HIGHEST_MEDIAN = 100.0
"""Linear power. 20 dB: single targets reach it, no area does."""
_CODES_FROM = 10.0
_ENOUGH = 4096
"""Pixels. A median of more says nothing new."""


class NotPowerError(ValueError):
    """An image has another unit than linear power."""


def check_power(values: NDArray[np.generic], nodata: float | None) -> None:
    """Pass where `values` can be linear power; too few to tell pass.

    Args:
        values: any shape; radar pixels as they lie in the file.
        nodata: its tag.

    Raises:
        NotPowerError: in words, what they are instead.
    """
    values = values.ravel()[:: max(1, values.size // _ENOUGH)]
    measured = np.isfinite(values) & (values != 0) & (values != -32768)
    if nodata is not None:
        measured &= values != nodata
    if not measured.any():
        return
    seen = values[measured].astype(np.float64)
    median = float(np.median(seen))
    if median < LOWEST_MEDIAN:
        raise NotPowerError("values are dB where linear power is expected")
    if median >= _CODES_FROM and (seen == np.floor(seen)).all():
        raise NotPowerError("values are digital numbers where linear power is expected")
    if median > HIGHEST_MEDIAN:
        raise NotPowerError("values are too large for linear power")

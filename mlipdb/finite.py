"""Whether all numbers of a small array are finite: asked several times for each of millions of frames."""

import numpy as np
from jaxtyping import Num


def all_finite(values: Num[np.ndarray, "..."]) -> bool:
    """What ``np.isfinite(values).all()`` says, at half its time for the few numbers of a frame."""
    return b"\0" not in np.isfinite(values).tobytes()

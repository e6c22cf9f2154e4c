"""Float64 arrays of record format 1, which is read but no longer written.

RAW is little-endian float64; SINGLE float32; DECIMAL int32 counts of 1e-8; DECIMAL_NEAR adds an int8 distance in ulps
from that decimal; DECIMAL_MIXED adds float64 for the values that are no such number.
"""

import numpy as np
from jaxtyping import Float64

RAW, SINGLE, DECIMAL, DECIMAL_NEAR, DECIMAL_MIXED = range(5)
SCALE = 1e8  # k / 1e8 is the double nearest to the decimal number, as a correct parser gives it
ESCAPE = -128  # an ulp distance that means: the value stands in full after the others


def decode_floats(form: int, data: bytes, start: int, count: int) -> tuple[Float64[np.ndarray, " n"], int]:
    """The array of `count` values that begins at byte `start`, and the byte after it."""
    if form == RAW:
        return np.frombuffer(data, "<f8", count, start).copy(), start + 8 * count
    if form == SINGLE:
        return np.frombuffer(data, "<f4", count, start).astype(np.float64), start + 4 * count
    values = np.frombuffer(data, "<i4", count, start) / SCALE
    start += 4 * count
    if form == DECIMAL:
        return values, start
    near = np.frombuffer(data, np.int8, count, start)
    start += count
    values.view(np.int64)[...] += near
    if form == DECIMAL_NEAR:
        return values, start
    if form != DECIMAL_MIXED:
        raise ValueError(f"float form {form} is unknown")
    far = near == ESCAPE
    extra = int(np.count_nonzero(far))
    values[far] = np.frombuffer(data, "<f8", extra, start)
    return values, start + 8 * extra

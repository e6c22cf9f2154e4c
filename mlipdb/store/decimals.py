"""Float64 arrays as few bytes as they need: source data are mostly decimal numbers with eight places or float32."""

import numpy as np
from jaxtyping import Float64

RAW, SINGLE, DECIMAL, DECIMAL_NEAR, DECIMAL_MIXED = range(5)
SCALE = 1e8  # k / 1e8 is the double nearest to the decimal number, as a correct parser gives it
ESCAPE = -128  # an ulp distance that means: the value stands in full after the others
LARGEST = float(2**31 - 1)


def encode_floats(values: Float64[np.ndarray, " n"]) -> tuple[int, bytes]:
    """The shortest lossless form of a finite or non-finite flat array: (form, bytes).

    RAW is little-endian float64; SINGLE float32; DECIMAL int32 counts of 1e-8; DECIMAL_NEAR adds an int8 distance in
    ulps from that decimal; DECIMAL_MIXED adds float64 for the values that are no such number. -0.0 is kept by ulps.
    """
    if np.abs(values).max(initial=0.0) < LARGEST / SCALE:  # False for NaN and infinity
        form, data = _encode_decimal(values, np.rint(values * SCALE) + 0.0)  # + 0.0: no count is -0.0
        if form != RAW:
            return form, data
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        single = values.astype("<f4")
    if (single.astype("<f8").view(np.int64) == values.view(np.int64)).all():
        return SINGLE, single.tobytes()
    return RAW, values.astype("<f8").tobytes()


def _encode_decimal(values: Float64[np.ndarray, " n"], counts: Float64[np.ndarray, " n"]) -> tuple[int, bytes]:
    """The decimal form, or RAW where more than half of the values are not near a decimal."""
    distance = values.view(np.int64) - (counts / SCALE).view(np.int64)
    head = counts.astype("<i4").tobytes()
    if not distance.any():
        return DECIMAL, head
    far = (distance > 127) | (distance < -127)
    if not far.any():
        return DECIMAL_NEAR, head + distance.astype(np.int8).tobytes()
    if 2 * int(far.sum()) > len(values):
        return RAW, b""
    near = np.where(far, ESCAPE, distance).astype(np.int8)
    head = np.where(far, 0, counts).astype("<i4").tobytes()
    return DECIMAL_MIXED, head + near.tobytes() + values[far].astype("<f8").tobytes()


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

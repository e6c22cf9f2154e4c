"""The layouts that a reader has met, numbered, with what they say as tables that numpy can look up."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64

from mlipdb.store.layout import SCALARS, Layout, layout_of

MOST = 20_000  # signatures that are kept; a source has some hundred


class KnownLayouts:
    """Grows with each signature that is new. The tables' last axis is the layout's number.

    arrays has for each of ARRAYS the 13 numbers of Layout.table; full and atomic_numbers are places as in Layout;
    scalars says which of SCALARS a layout has.
    """

    arrays: Int64[np.ndarray, "13 fields layouts"]
    full: Int64[np.ndarray, "4 1 layouts"]
    atomic_numbers: Int64[np.ndarray, "4 1 layouts"]
    has_structure: Bool[np.ndarray, " layouts"]
    has_rows: Bool[np.ndarray, " layouts"]
    scalars: Bool[np.ndarray, "7 layouts"]

    def __init__(self) -> None:
        self.layouts: list[Layout] = []
        self._numbers: dict[bytes, int] = {}

    def number(self, signatures: Sequence[bytes]) -> Int64[np.ndarray, " records"]:
        """The layout of each signature, by its number."""
        try:
            return np.array(list(map(self._numbers.__getitem__, signatures)), np.int64)
        except KeyError:
            self._learn(signatures)
            return self.number(signatures)

    def _learn(self, signatures: Sequence[bytes]) -> None:
        if len(self.layouts) > MOST:
            self.layouts, self._numbers = [], {}
        for signature in dict.fromkeys(signatures):
            if signature not in self._numbers:
                self.layouts.append(layout_of(signature))
                self._numbers[signature] = len(self.layouts) - 1
        known = self.layouts
        self.arrays = np.stack([layout.table for layout in known]).transpose(2, 1, 0).copy()
        self.full = np.array([layout.full for layout in known], np.int64).T[:, None].copy()
        starts = [(0, 0, 0, 0) if layout.atomic_numbers is None else layout.atomic_numbers[0] for layout in known]
        self.atomic_numbers = np.array(starts, np.int64).T[:, None].copy()
        self.has_structure = np.array([layout.atomic_numbers is not None for layout in known])
        self.has_rows = np.array([layout.row_numbers is not None for layout in known])
        self.scalars = np.array([[name in layout.scalars for layout in known] for name in SCALARS])

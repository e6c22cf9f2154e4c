"""Do the energies of a source belong together? A fit by composition shows frames of another level of theory."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mlipdb.ingest.checks.finding import Finding
from mlipdb.ingest.checks.groups import VolumePairs, VolumeSample, quiet, volume_pairs
from mlipdb.ingest.checks.samples import Rows, RowSample
from mlipdb.ingest.checks.summaries import ELEMENTS, FrameSummaries
from mlipdb.structures import SYMBOLS

CAPACITY = 20_000  # frames that are held
GAP = 4.0  # eV per atom without a frame in between; no chemistry at one level of theory leaves that
JUMP = 0.1  # eV per atom between frames that are nearly the same
JUMPS = 0.2  # share of such pairs that makes it no accident
OUTLIER = 6.0  # eV per atom below the fit, or as many above beyond 25 robust deviations
CALM_FORCE = 10.0  # eV/Å
CALM_PRESSURE = 0.3  # eV/Å³, about 50 GPa
SPARSE = 100.0  # Å³ per atom; beyond it atoms are nearly free and no fit by composition holds
SQUEEZED = 0.06  # eV/Å³ (10 GPa); from there pV shows
FEW = 10


class EnergyChecks:
    """Holds a sample of frames with their compositions and energies per atom."""

    def __init__(self, volumes: VolumeSample) -> None:
        self._volumes = volumes
        self._sample = RowSample(CAPACITY, seed=1)

    def add(self, summaries: FrameSummaries) -> None:
        """Take the frames that have an energy."""
        s = summaries
        told = np.isfinite(s.energy)
        counts = np.zeros((len(s), ELEMENTS), dtype=np.uint16)
        counts[s.atom_frames, s.atom_numbers] = s.atom_counts
        rows: Rows = {
            "shares": counts,  # divided when they are looked at: small numbers take less memory
            "natoms": s.natoms,
            "energy": s.energy / s.natoms,
            "volume": s.volume / s.natoms,
            "pressure": -s.stress_mean,
            "force": np.nan_to_num(s.max_force),
            "isolated": s.isolated,
            "method": s.methods,
            "key": np.array(s.keys, dtype=object),
        }
        self._sample.add({name: values[told] for name, values in rows.items()})

    def findings(self) -> list[Finding]:
        """Mixed levels of theory, outliers, enthalpies and elements whose E0 stays open."""
        rows = self._sample.rows()
        if not len(rows.get("energy", ())):
            return []
        rows["shares"] = rows["shares"] / rows["natoms"][:, None]
        found = [*_open_e0(rows)]
        dense = ~rows["isolated"] & ~(rows["volume"] > SPARSE)
        for method in np.unique(rows["method"]):
            found += _of_method({name: values[dense & (rows["method"] == method)] for name, values in rows.items()})
        frames = self._volumes.rows()
        pairs = volume_pairs(frames)
        found += [*_jumps(frames, pairs), *_two_pressures(pairs)]
        return list({finding.check: finding for finding in found}.values())  # one a check


def _of_method(rows: Rows) -> list[Finding]:
    if len(rows["energy"]) < FEW:
        return []
    residuals = robust_residuals(rows["shares"], rows["energy"])
    return [*(_gap(rows, residuals) or _outliers(rows, residuals)), *_squeezed(rows)]


def robust_residuals(
    shares: Float64[np.ndarray, "frames elements"], energy: Float64[np.ndarray, " frames"]
) -> Float64[np.ndarray, " frames"]:
    """Energy per atom minus a fit by composition that few frames far off do not pull at (least absolute deviations).

    A frame has few of the elements. Sums over those alone take a tenth of the time of products of whole matrices, whose
    threads would also wait for the cores that the workers of an ingest keep busy.
    """
    used = shares[:, shares.any(axis=0)]
    frames, elements = np.nonzero(used)
    values, number = used[frames, elements], used.shape[1]
    first, second = _entries_of_a_frame(frames)
    products, places = values[first] * values[second], elements[first] * number + elements[second]
    weights = np.ones(len(energy))
    residuals = energy
    for _ in range(15):
        gram = np.bincount(places, products * weights[frames[first]], minlength=number * number)
        right = np.bincount(elements, values * (weights * energy)[frames], minlength=number)
        e0 = np.linalg.lstsq(gram.reshape(number, number), right, rcond=1e-10)[0]
        residuals = energy - np.bincount(frames, values * e0[elements], minlength=len(energy))
        weights = 1 / np.maximum(np.abs(residuals), 0.3 * _scale(residuals) + 1e-6)
    return residuals


def _entries_of_a_frame(
    frames: Int64[np.ndarray, " entries"],
) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " pairs"]]:
    """Every pair of entries of one frame, an entry with itself as well; frames ascend."""
    counts = np.bincount(frames)
    partners, starts = counts[frames], (np.cumsum(counts) - counts)[frames]
    first = np.repeat(np.arange(len(frames)), partners)
    return first, starts[first] + np.arange(len(first)) - (np.cumsum(partners) - partners)[first]


def _scale(values: Float64[np.ndarray, " frames"]) -> float:
    """Standard deviation by the median, for a normal distribution."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _gap(rows: Rows, residuals: Float64[np.ndarray, " frames"]) -> list[Finding]:
    """Two clusters of residuals with nothing between them."""
    order = np.argsort(residuals)
    gaps = np.diff(residuals[order])
    gaps[:2] = gaps[max(len(gaps) - 2, 0) :] = 0  # three frames at least on either side
    place = int(np.argmax(gaps))
    groups = order[: place + 1], order[place + 1 :]
    few = min(groups, key=len)
    calm = rows["force"][few] < CALM_FORCE
    calm &= ~(np.abs(rows["pressure"][few]) > CALM_PRESSURE)  # what is squeezed or torn apart may have any energy
    if gaps[place] < GAP or np.ptp(residuals[few]) > gaps[place] or not calm.all():
        return []
    shift = float(np.median(residuals[few]) - np.median(residuals[max(groups, key=len)]))
    names = [str(key) for key in rows["key"][few[:3]]]
    message = (
        f"energies of two levels of theory: a fit by composition leaves {len(few)} of {len(residuals)} frames "
        f"{shift:+.1f} eV/atom beside the others with nothing in between ({', '.join(names)}…); they are of another "
        "functional, code or set of pseudopotentials. Ingest them as a source of their own with their own --method"
    )
    details = {"frames": len(few), "of": len(residuals), "shift_ev_per_atom": shift, "ids": names}
    return [Finding("mixed_levels", "error", message, details)]


def _outliers(rows: Rows, residuals: Float64[np.ndarray, " frames"]) -> list[Finding]:
    far = (residuals < -OUTLIER) | (residuals > OUTLIER + 25 * _scale(residuals)) if len(residuals) else residuals > 0
    if not far.any():
        return []
    worst = int(np.argmax(np.abs(residuals)))
    message = (
        f"{int(far.sum())} of {len(residuals)} frames have an energy far from what their composition says (worst "
        f"{residuals[worst]:+.1f} eV/atom in {rows['key'][worst]}): a failed calculation, another level of theory, or "
        "a total energy of other atoms; look at it with `mlipdb show`, and leave it out of subsets"
    )
    details = {"frames": int(far.sum()), "of": len(residuals), "worst_ev_per_atom": float(residuals[worst])}
    return [Finding("energy_outliers", "warning", message, details | {"worst_id": str(rows["key"][worst])})]


def _jumps(frames: Rows, pairs: VolumePairs) -> list[Finding]:
    """Nearly the same crystal, quite another energy: two methods under one name."""
    near = pairs.where(quiet(frames, pairs) & (np.abs(pairs.swelling) < 0.02) & (np.abs(pairs.work) < JUMP))
    jumps = np.abs(near.energy) - np.abs(near.work) > JUMP
    if jumps.sum() < FEW or jumps.mean() < JUMPS:
        return []
    worst = int(np.argmax(np.abs(near.energy)))
    keys = [str(frames["key"][side[worst]]) for side in (near.first, near.second)]
    typical = float(np.median(np.abs(near.energy[jumps])))
    message = (
        f"energies of several levels of theory: {int(jumps.sum())} of {len(jumps)} pairs of nearly equal crystals "
        f"differ by more than {JUMP} eV/atom (typically {typical:.2f}; {keys[0]} and {keys[1]} by "
        f"{abs(near.energy[worst]):.2f}); ingest each functional as a source of its own with its own --method"
    )
    details: dict[str, Any] = {"pairs": int(jumps.sum()), "of": len(jumps), "typical_ev_per_atom": typical, "ids": keys}
    return [Finding("mixed_levels", "error", message, details)]


def _two_pressures(pairs: VolumePairs) -> list[Finding]:
    """The same material at two pressures: an energy changes by work, an enthalpy by work and the change of pV."""
    near = pairs.where(pairs.same_material & (np.abs(pairs.pressure_volume) > 0.3))
    as_energy = _misfit(near.energy, near.work)
    as_enthalpy = _misfit(near.energy, near.work + near.pressure_volume)
    agree, other = int((as_enthalpy < 0.2).sum()), int((as_energy < 0.2).sum())
    if agree < max(FEW, len(near) / 2, 4 * other):
        return []
    message = (
        f"the energies are enthalpies E + pV: between two pressures they change by work and pV in {agree} of "
        f"{len(near)} pairs of frames of one material, by work alone in {other}. Subtract pV before ingest; forces "
        "and stress go with E"
    )
    return [Finding("enthalpies", "error", message, {"pairs": len(near), "agree": agree, "agree_as_energy": other})]


def _misfit(one: Float64[np.ndarray, " pairs"], other: Float64[np.ndarray, " pairs"]) -> Float64[np.ndarray, " pairs"]:
    return np.asarray(np.abs(one - other) / (np.abs(one) + np.abs(other) + 1e-9))


def _squeezed(rows: Rows) -> list[Finding]:
    """All frames at one high pressure: what is stable there has least enthalpy, so energy falls where pV rises."""
    known = np.isfinite(rows["pressure"])
    if known.sum() < 10 * FEW:
        return []
    pressure = rows["pressure"][known]
    low, middle, high = np.percentile(pressure, (10, 50, 90))
    if middle < SQUEEZED or high - low > 0.2 * middle:
        return []
    shares, energy, product = rows["shares"][known], rows["energy"][known], pressure * rows["volume"][known]
    one, other = robust_residuals(shares, product), robust_residuals(shares, energy)
    usual = np.abs(one) < 5 * _scale(one)
    slope = float(one[usual] @ other[usual] / (one[usual] @ one[usual]))
    error = float(np.sqrt(np.mean(np.square(other[usual] - slope * one[usual])) / (one[usual] @ one[usual])))
    if slope < max(-0.1, 5 * error - 0.5):
        return []
    message = (
        f"the energies look like enthalpies E + pV: all frames are at about {middle * 160.2:.0f} GPa, and at equal "
        f"composition the energy changes {slope:+.2f} times as pV does (energies: about -0.6, enthalpies: 0 and "
        "above). Subtract pV before ingest; forces and stress go with E"
    )
    details = {"slope": slope, "standard_error": error, "pressure_ev_per_cubic_angstrom": float(middle)}
    return [Finding("enthalpies", "error", message, details)]


def _open_e0(rows: Rows) -> list[Finding]:
    """Elements whose E0 neither isolated atoms nor compositions decide."""
    numbers = np.flatnonzero(rows["shares"].any(axis=0))
    frames, elements = np.nonzero(rows["shares"][:, numbers])
    values = rows["shares"][frames, numbers[elements]]
    values = values / np.sqrt(np.bincount(elements, values * values))[elements]  # a rare element counts as much
    first, second = _entries_of_a_frame(frames)
    places = elements[first] * len(numbers) + elements[second]
    gram = np.bincount(places, values[first] * values[second], minlength=len(numbers) ** 2)
    strengths, directions = np.linalg.eigh(gram.reshape(len(numbers), len(numbers)))
    decided = strengths > 1e-12 * strengths[-1]
    rank = int(decided.sum())
    open_ones: Bool[np.ndarray, " elements"] = (np.abs(directions[:, ~decided]) > 1e-6).any(axis=1)
    if not open_ones.any():
        return []
    names = [SYMBOLS[number] for number in numbers[open_ones]]
    message = (
        f"no isolated-atom energies for {', '.join(names)}, and the compositions do not decide them (rank {rank} of "
        f"{len(numbers)} elements): a least-squares E0 is one of many. Ingest the isolated atoms of this source, too, "
        "or give E0s (mlipdb subset stats --e0 FILE)"
    )
    return [Finding("open_e0", "note", message, {"elements": names, "rank": rank, "of": len(numbers)})]

"""Make the overview of what a filter matches."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate

from sqlalchemy.orm import Session

from mlipdb.catalog import MethodRow, Source, StructureRow
from mlipdb.catalog.label_facets import FORCE_EDGES
from mlipdb.database import Database
from mlipdb.labels import ARRAYS, ENERGY_KINDS
from mlipdb.query.spacegroups import short_symbols
from mlipdb.stats import counts
from mlipdb.stats.components import force_components
from mlipdb.stats.counts import Coverage, Energies, Numbers, energy_kinds
from mlipdb.stats.histogram import by_edges, merged, of_sizes
from mlipdb.stats.overview import (
    ElementCount,
    FindingSummary,
    MethodSummary,
    SourceSummary,
    SpaceGroupCount,
    Statistics,
)
from mlipdb.stats.packed import packed_numbers
from mlipdb.structures import SYMBOLS

SAMPLE = 500  # structures of each method whose forces are read


def statistics(db: Database, filter: str = "all", *, sample: int = SAMPLE, seed: int = 0) -> Statistics:
    """Count what a filter matches, from facets where each shard has them, else by SQL.

    Force components alone are of a sample of structures, which are read: sample is how many of each method (0: none),
    seed which. Raises QueryError.
    """
    with db.session() as session:
        scope = counts.scope_of(session, filter)
        numbers = packed_numbers(session, scope) or counts.numbers(session, scope)
        total = numbers.sizes.total()
        found = Statistics(
            filter=filter,
            structures=total,
            atoms=sum(atoms * count for atoms, count in numbers.sizes.items()),
            materials=counts.distinct(session, scope, StructureRow.material_id),
            contents=counts.distinct(session, scope, StructureRow.content_hash),
            sizes=of_sizes(numbers.sizes),
            smallest=min(numbers.sizes, default=None),
            median_size=_median(numbers.sizes),
            largest=max(numbers.sizes, default=None),
            nelements=dict(sorted(numbers.nelements.items())),
            periodic_directions=_periodic(numbers.pbc),
            elements=tuple(ElementCount(SYMBOLS[z], n, atoms) for z, n, atoms in numbers.elements),
            space_groups=_space_groups(numbers.space_groups),
            without_space_group=numbers.space_groups.get(None, 0),
            sources=tuple(
                _source(row, numbers.sources) for row in counts.sources(session) if row.id in numbers.sources
            ),
            methods=_methods(counts.methods(session), numbers),
            unlabelled=total - numbers.labelled,
            tags=counts.tags(session, scope),
            fingerprints=counts.fingerprints(session, scope),
            findings=_findings(session, set(numbers.sources)),
        )
        chosen = {m.id: numbers.sample(m.id, count=sample, seed=seed, array="forces") for m in found.methods if sample}
    return _with_components(db, found, chosen)


def _median(sizes: Mapping[int, int]) -> int | None:
    """The lower median of a count by value."""
    order, total = sorted(sizes), sum(sizes.values())
    reached = accumulate(sizes[size] for size in order)
    return next((size for size, seen in zip(order, reached, strict=True) if 2 * seen >= total), None)


def _periodic(masks: Mapping[int, int]) -> dict[int, int]:
    directions: Counter[int] = Counter()
    for mask, count in masks.items():
        directions[mask.bit_count()] += count
    return dict(sorted(directions.items()))


def _space_groups(groups: Mapping[int | None, int]) -> tuple[SpaceGroupCount, ...]:
    """The commonest first."""
    known = [(number, count) for number, count in groups.items() if number is not None]
    ordered = sorted(known, key=lambda group: (-group[1], group[0]))
    return tuple(SpaceGroupCount(number, short_symbols()[number], count) for number, count in ordered)


def _sources(rows: list[Source], structures: Mapping[int, int]) -> tuple[SourceSummary, ...]:
    return tuple(_source(row, structures) for row in rows if row.id in structures)


def _source(row: Source, structures: Mapping[int, int]) -> SourceSummary:
    same = ("id", "name", "version", "reader", "licence", "state", "duplicates", "quarantined")
    return SourceSummary(**{name: getattr(row, name) for name in same}, structures=structures[row.id])


def _findings(session: Session, source_ids: set[int]) -> tuple[FindingSummary, ...]:
    return tuple(
        FindingSummary(source=name, check=row.check_name, severity=row.severity, message=row.message)
        for name, row in counts.findings(session, source_ids)
    )


def _methods(rows: list[MethodRow], numbers: Numbers) -> tuple[MethodSummary, ...]:
    """What each method gave, for those that have a label here."""
    covered: dict[int, list[Coverage]] = {}
    for part in numbers.coverage:
        covered.setdefault(part.method_id, []).append(part)
    kinds = energy_kinds(numbers.coverage)
    return tuple(
        _method(
            row,
            covered[row.id],
            rows=numbers.hessian_rows.get(row.id, (0, 0)),
            kind=kinds[row.id],
            energies=numbers.energies.get(row.id),
            forces=numbers.largest_forces.get(row.id),
        )
        for row in rows
        if row.id in covered
    )


def _method(
    row: MethodRow,
    parts: list[Coverage],
    *,
    rows: tuple[int, int],
    kind: str,
    energies: Energies | None,
    forces: Mapping[int, int] | None,
) -> MethodSummary:
    facts = ("id", "name", "kind", "code", "functional", "weights_sha256", "package", "package_version")
    return MethodSummary(
        **{name: getattr(row, name) for name in facts},
        structures=sum(part.count for part in parts if part.status == "done"),
        failed=sum(part.count for part in parts if part.status == "failed"),
        quantities=_quantities(parts, rows=rows[0]),
        hessian_rows=rows[1],
        energy_kind=kind or None,
        energy_mean=energies.mean if energies else None,
        energy_deviation=energies.deviation if energies else None,
        energy_lowest=energies.lowest if energies else None,
        energy_highest=energies.highest if energies else None,
        energy_per_atom=merged(energies.fine, counts.ENERGY_WIDTH, unit="eV/atom") if energies else None,
        max_force=by_edges(forces, FORCE_EDGES, unit="eV/Å") if forces else None,
    )


def _quantities(parts: list[Coverage], *, rows: int) -> dict[str, int]:
    """How many structures have each quantity; those that none has are left out."""
    found = {kind: sum(part.scalars[kind] for part in parts) for kind in (*ENERGY_KINDS, "band_gap")}
    found.update((name, sum(part.count for part in parts if name in part.arrays)) for name in ARRAYS)
    found["hessian_rows"] = rows  # of every part, not of the first alone
    return {name: count for name, count in found.items() if count}


def _with_components(db: Database, found: Statistics, chosen: Mapping[int, list[int]]) -> Statistics:
    """The same with histograms of the force components of a sample of each method's structures."""
    methods = []
    for method in found.methods:
        ids = chosen.get(method.id, [])
        components = force_components(db, ids, method_id=method.id)
        methods.append(replace(method, force_components=components, sampled=len(ids)))
    return replace(found, methods=tuple(methods))

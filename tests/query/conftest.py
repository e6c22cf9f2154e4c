"""A small random catalog with every kind of gap in it, and the same data as plain Python objects."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from mlipdb.catalog import (
    Base,
    Disagreement,
    LabelRow,
    Material,
    MethodRow,
    ShardRow,
    Source,
    StructureDisagreement,
    StructureElement,
    StructureRow,
    StructureTag,
    Subset,
    SubsetMember,
    Tag,
)
from mlipdb.catalog.facets import fill_facets
from mlipdb.query import select_structure_ids, structure_ids
from mlipdb.structures import ATOMIC_NUMBERS, chemical_system, reduced_formula

METHODS = {1: ("PBE", "dft"), 2: ("r2SCAN", "dft"), 3: ("nequix-mp-1", "teacher"), 4: ("mace_mp", "teacher")}
SUBSETS = {"first": 1, "second_half": 2, "nobody": 3}
DISAGREEMENTS = {"pair": 1, "three_of_them": 2}
TAGS = [("subset", "SPICE Dipeptides"), ("subset", "µ=1"), ("split", "train"), ("split", "test")]
SYMBOLS = ["Li", "Fe", "O", "Y", "Zr", "P"]
GROUPS = [None, 1, 5, 8, 62, 194, 221]


@dataclass
class FakeLabel:
    method: str
    kind: str
    part: int
    status: str = "done"
    energy: float | None = None
    corrected: float | None = None
    gap: float | None = None
    force: float | None = None
    arrays: tuple[str, ...] = ()
    rows: int = 0


@dataclass
class FakeStructure:
    id: int
    source: str
    material: str
    external_id: str
    counts: dict[str, int]
    group: int | None
    volume: float | None
    pbc: int
    charge: float | None
    spin: int | None
    tags: dict[str, str]
    labels: list[FakeLabel] = field(default_factory=list)
    subsets: list[str] = field(default_factory=list)
    disagreements: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)  # forces, energy

    @property
    def composition(self) -> dict[int, int]:
        return {ATOMIC_NUMBERS[symbol]: count for symbol, count in self.counts.items()}


class FakeCatalog:
    """Not a dataclass: Hypothesis would print every structure of it."""

    def __init__(self, structures: list[FakeStructure], engine: Engine, subsets: dict[str, int]) -> None:
        self.structures, self.engine, self.subsets = structures, engine, subsets

    def ids(self, text: str) -> list[int]:
        with Session(self.engine) as session:
            return list(session.scalars(select_structure_ids(text, subsets=self.subsets, disagreements=DISAGREEMENTS)))

    def found(self, text: str) -> list[int]:
        """From facets where they can answer."""
        with Session(self.engine) as session:
            return structure_ids(session, text).tolist()

    def matching(self, condition: Callable[[FakeStructure], bool | None]) -> list[int]:
        return [structure.id for structure in self.structures if condition(structure)]


def random_structure(draw: random.Random, number: int) -> FakeStructure:
    chosen = draw.sample(SYMBOLS, draw.randint(1, 4))
    periodic = draw.choice([7, 7, 7, 0, 3, 4])
    return FakeStructure(
        id=number,
        source=draw.choice(["mptrj", "own_set", "100%"]),
        material=f"mp-{draw.randint(1, 12)}",
        external_id=draw.choice(["Frame_%03d", "frame-%d", 'q"%d', "µ%d", "back\\%d"]) % number,
        counts={symbol: draw.randint(1, 4) for symbol in chosen},
        group=draw.choice(GROUPS) if periodic == 7 else None,
        volume=draw.choice([10.0, 33.25, 100.0]) if periodic == 7 else None,
        pbc=periodic,
        charge=draw.choice([None, -1.0, 0.0, 0.5]),
        spin=draw.choice([None, 1, 3]),
        tags={name: value for name, value in draw.sample(TAGS, 2) if draw.random() < 0.7},
        labels=[label for method in METHODS for label in random_parts(draw, method)],
        subsets=[name for name in ("first", "second_half") if draw.random() < 0.4],
        disagreements={
            name: (draw.choice([None, 0.05, 2.5]), draw.choice([None, 0.05]))
            for name in DISAGREEMENTS
            if draw.random() < 0.6
        },
    )


def random_parts(draw: random.Random, method: int) -> Iterator[FakeLabel]:
    """No label, a failed one, or one of up to three parts."""
    name, kind = METHODS[method]
    if draw.random() < 0.5:
        return
    if draw.random() < 0.15:
        yield FakeLabel(name, kind, 0, status="failed")
        return
    maybe = lambda values: draw.choice([None, *values])  # noqa: E731
    arrays = tuple(each for each in ("forces", "stress", "magmoms", "atomic_energies") if draw.random() < 0.5)
    yield FakeLabel(
        *(name, kind, 0, "done", maybe([-10.5, -7.0, 0.0]), maybe([-11.0]), maybe([0.0, 1.5, 5.0, 7.25])),
        *(maybe([0.0, 0.05, 2.0]), arrays, draw.choice([0, 2])),
    )
    for part in range(1, draw.randint(1, 3)):
        yield FakeLabel(name, kind, part, arrays=("hessian_rows",), rows=draw.choice([1, 4]))


def insert(session: Session, structures: list[FakeStructure]) -> None:
    """Rows as Database.append and the subsets would write them."""
    when = datetime(2026, 1, 1, tzinfo=UTC)
    sources = {name: number for number, name in enumerate(sorted({s.source for s in structures}), 1)}
    materials = {name: number for number, name in enumerate(sorted({s.material for s in structures}), 1)}
    base = {"reader": "extxyz", "uri": "-", "options": {}, "state": "complete", "created_at": when}
    session.add_all(Source(id=number, name=name, **base) for name, number in sources.items())
    session.add_all(Material(id=number, key=name) for name, number in materials.items())
    session.add_all(
        MethodRow(id=i, hash=str(i), kind=kind, name=name, settings={}) for i, (name, kind) in METHODS.items()
    )
    shard = {"kind": "structures", "records": 1, "bytes": 1, "sha256": "-", "format_version": 1}
    session.add(ShardRow(id=1, path="-", first_structure_id=1, last_structure_id=150, sealed_at=when, **shard))
    frozen = {"filter": "-", "hash": "-", "size": 0, "split_by": "material", "fractions": "90/5/5", "seed": 0}
    session.add_all(Subset(id=number, name=name, created_at=when, **frozen) for name, number in SUBSETS.items())
    shown = {"filter": "all", "constants": {}, "updated_at": when}
    session.add_all(Disagreement(id=number, name=name, **shown) for name, number in DISAGREEMENTS.items())
    session.add_all(Tag(id=number, name=name, value=value) for number, (name, value) in enumerate(TAGS, 1))
    session.flush()
    for structure in structures:
        session.add(structure_row(structure, source=sources[structure.source], material=materials[structure.material]))
        session.flush()
        session.add_all(dependent_rows(structure))
    session.commit()


def structure_row(structure: FakeStructure, *, source: int, material: int) -> StructureRow:
    return StructureRow(
        id=structure.id,
        source_id=source,
        material_id=material,
        external_id=structure.external_id,
        content_hash=structure.id.to_bytes(16, "big"),
        nsites=sum(structure.counts.values()),
        nelements=len(structure.counts),
        chemical_formula_reduced=reduced_formula(structure.composition),
        chemical_system=chemical_system(structure.composition),
        space_group_it_number=structure.group,
        space_group_symbol=None if structure.group is None else "-",
        volume=structure.volume,
        pbc=structure.pbc,
        charge=structure.charge,
        spin_multiplicity=structure.spin,
        shard_id=1,
    )


def dependent_rows(structure: FakeStructure) -> Iterator[Base]:
    for number, count in structure.composition.items():
        yield StructureElement(atomic_number=number, structure_id=structure.id, count=count)
    numbers = {name: number for number, (name, _) in METHODS.items()}
    for label in structure.labels:
        yield LabelRow(
            structure_id=structure.id,
            method_id=numbers[label.method],
            part=label.part,
            status=label.status,
            energy_uncorrected=label.energy,
            energy_corrected=label.corrected,
            band_gap=label.gap,
            max_force=label.force,
            arrays=" ".join(label.arrays),
            hessian_rows=label.rows,
            shard_id=None if label.status == "failed" else 1,
        )
    for tag in structure.tags.items():
        yield StructureTag(tag_id=TAGS.index(tag) + 1, structure_id=structure.id)
    for name, (forces, energy) in structure.disagreements.items():
        row = {"disagreement_id": DISAGREEMENTS[name], "structure_id": structure.id, "labels": bytes(16)}
        yield StructureDisagreement(forces=forces, energy=energy, **row)
    for name in structure.subsets:
        yield SubsetMember(subset_id=SUBSETS[name], structure_id=structure.id, split="train")


def fill(engine: Engine) -> FakeCatalog:
    """150 random structures, always the same."""
    draw = random.Random(20260101)
    structures = [random_structure(draw, number) for number in range(1, 151)]
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        insert(session, structures)
        fill_facets(session)
        session.commit()
    return FakeCatalog(structures, engine, SUBSETS)


@pytest.fixture(scope="session")
def catalog() -> Iterator[FakeCatalog]:
    """150 random structures in SQLite."""
    engine = create_engine("sqlite://")
    yield fill(engine)
    engine.dispose()


@pytest.fixture
def postgresql_catalog(postgresql_url: str) -> Iterator[FakeCatalog]:
    """The same structures in PostgreSQL."""
    engine = create_engine(postgresql_url)
    yield fill(engine)
    engine.dispose()

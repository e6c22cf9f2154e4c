"""The public fields of the filter language: name, type, unit, what it means, where it is in the catalog."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from sqlalchemy.orm import InstrumentedAttribute

from mlipdb.catalog import LabelRow, Material, Source, StructureDisagreement, StructureRow
from mlipdb.query.facets import (
    ArrayFacet,
    CodedFacet,
    ColumnFacet,
    ElementsFacet,
    FacetRelation,
    GapFacet,
    IdFacet,
    SourceFacet,
    SystemFacet,
)
from mlipdb.query.formulas import stored_formula, stored_system
from mlipdb.query.lists import Elements, ListRelation, Methods, Subsets, Tags
from mlipdb.query.relations import Coded, HasArray, HessianRows, Named, OfDisagreement, OfLabel, Relation, Scalar
from mlipdb.query.spacegroups import short_symbols, space_group_number
from mlipdb.structures import ATOMIC_NUMBERS

# OPTIMADE's fields that the catalog does not hold; a filter on one is refused with this fact instead of a guess.
NOT_STORED = {
    *("chemical_formula_anonymous", "chemical_formula_descriptive", "chemical_formula_hill", "elements_ratios"),
    *("dimension_types", "lattice_vectors", "cartesian_site_positions", "species", "species_at_sites", "assemblies"),
    *("structure_features", "immutable_id", "last_modified", "type", "space_group_symbol_hall"),
    *("space_group_symbol_hermann_mauguin_extended", "space_group_symmetry_operations_xyz"),
}

NOTHING: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Spelling:
    """How a value is written in the catalog: stored gives that spelling, or None for what can never match."""

    kind: str
    stored: Callable[[str], str | None]
    choices: Collection[str] = ()


@dataclass(frozen=True)
class Field:
    """One field. type is integer, float, string, boolean or list; a list has items, every other type a relation.

    facet is the faster way to the same answer, for the fields that have one; choices are the names of the fields that
    say which one is meant, where a name alone could mean several.
    """

    name: str
    type: str
    description: str
    unit: str | None = None
    relation: Relation | None = None
    items: ListRelation | None = None
    spelling: Spelling | None = None
    facet: FacetRelation | None = None
    choices: tuple[str, ...] = ()


def fields(subsets: Mapping[str, int], disagreements: Mapping[str, int] = NOTHING) -> dict[str, Field]:
    """Every field by name; subsets are the frozen subsets and their ids, disagreements the stored ones and theirs."""
    every = [*_optimade(), *_of_structure(), *_of_labels(), *_of_disagreements(disagreements), *_lists(subsets)]
    return {field.name: field for field in every}


def _optimade() -> list[Field]:
    return [*_optimade_composition(), *_optimade_lattice()]


def _optimade_composition() -> list[Field]:
    structure = StructureRow
    return [
        Field(
            "id", "integer", "the structure's number in this database", relation=Scalar(structure.id), facet=IdFacet()
        ),
        Field(
            "elements",
            "list",
            "chemical elements of the structure",
            items=Elements(),
            spelling=Spelling("element", _known_element, choices=ATOMIC_NUMBERS),
            facet=ElementsFacet(),
        ),
        Field(
            "nelements",
            "integer",
            "number of different elements",
            relation=Scalar(structure.nelements),
            facet=ColumnFacet("nelements"),
        ),
        Field("nsites", "integer", "number of atoms", relation=Scalar(structure.nsites), facet=ColumnFacet("nsites")),
        Field(
            "chemical_formula_reduced",
            "string",
            "reduced formula, elements in alphabetical order; = takes any order",
            relation=Scalar(structure.chemical_formula_reduced),
            spelling=Spelling("formula", stored_formula),
        ),
    ]


def _optimade_lattice() -> list[Field]:
    structure, group = StructureRow, StructureRow.space_group_it_number
    directions = {mask: mask.bit_count() for mask in range(8)}
    return [
        Field(
            "nperiodic_dimensions",
            "integer",
            "number of periodic directions",
            relation=Coded(structure.pbc, directions),
            facet=CodedFacet("pbc", directions),
        ),
        Field(
            "space_group_it_number",
            "integer",
            "space group, 1 to 230; unknown where none was found",
            relation=Scalar(group, nullable=True),
            facet=ColumnFacet("space_group"),
        ),
        Field(
            "space_group_symbol_hermann_mauguin",
            "string",
            "short symbol of that space group, as P6_3/mmc; = takes it with spaces or without underscores, too",
            relation=Coded(group, short_symbols()),
            spelling=Spelling("space-group symbol", _stored_symbol, choices=short_symbols().values()),
            facet=CodedFacet("space_group", short_symbols()),
        ),
    ]


def _of_structure() -> list[Field]:
    structure = StructureRow
    source = Named(structure.source_id, Source.id, Source.name)
    material = Named(structure.material_id, Material.id, Material.key)
    system = Spelling("chemical system", stored_system)
    volume, charge = Scalar(structure.volume, nullable=True), Scalar(structure.charge, nullable=True)
    per_atom = Scalar(structure.volume / structure.nsites, nullable=True)
    spin = Scalar(structure.spin_multiplicity, nullable=True)
    return [
        Field("_mlipdb_source", "string", "name of the source it came from", relation=source, facet=SourceFacet()),
        Field("_mlipdb_material", "string", "what its frames belong to, as mp-1234", relation=material),
        Field("_mlipdb_external_id", "string", "its id in the source", relation=Scalar(structure.external_id)),
        Field(
            "_mlipdb_chemical_system",
            "string",
            "its elements joined by dashes, as Fe-Li-O; = takes any order",
            relation=Scalar(structure.chemical_system),
            spelling=system,
            facet=SystemFacet(),
        ),
        Field("_mlipdb_volume", "float", "volume of the cell", unit="Å³", relation=volume),
        Field("_mlipdb_volume_per_atom", "float", "that volume over nsites", unit="Å³", relation=per_atom),
        Field("_mlipdb_charge", "float", "total charge", unit="e", relation=charge),
        Field("_mlipdb_spin_multiplicity", "integer", "2S+1", relation=spin),
    ]


def _of_labels() -> list[Field]:
    energy, corrected = OfLabel(LabelRow.energy_uncorrected), OfLabel(LabelRow.energy_corrected)
    per_atom = OfLabel(LabelRow.energy_uncorrected, per_atom=True)
    gap, force = OfLabel(LabelRow.band_gap), OfLabel(LabelRow.max_force)
    rows = "most Hessian rows that one method gave, DFT or teacher; 0 where none"
    atomic = HasArray("atomic_energies", dft_only=False)
    return [
        Field(
            "_mlipdb_band_gap",
            "float",
            "band gap (DFT); `gap` for short",
            unit="eV",
            relation=gap,
            facet=GapFacet(),
        ),
        Field("_mlipdb_energy", "float", "total energy, uncorrected (DFT)", unit="eV", relation=energy),
        Field("_mlipdb_energy_per_atom", "float", "that energy over nsites", unit="eV", relation=per_atom),
        Field(
            "_mlipdb_energy_corrected",
            "float",
            "total energy after a scheme such as MP2020 (DFT)",
            unit="eV",
            relation=corrected,
        ),
        Field(
            "_mlipdb_max_force",
            "float",
            "length of the largest force (DFT)",
            unit="eV/Å",
            relation=force,
            facet=ColumnFacet("max_force"),
        ),
        _has("forces", "a DFT label has forces"),
        _has("stress", "a DFT label has a stress"),
        _has("magmoms", "a DFT label has magnetic moments"),
        Field("_mlipdb_has_atomic_energies", "boolean", "a label, DFT or teacher, has them", relation=atomic),
        Field("_mlipdb_n_hessian_rows", "integer", rows, relation=HessianRows()),
    ]


def _of_disagreements(known: Mapping[str, int]) -> list[Field]:
    forces = "spread of the forces of several methods, where it is largest; see below"
    energy = "spread of their energies per atom, a constant per element taken off"
    return [
        *_of_disagreement("_mlipdb_disagreement", StructureDisagreement.forces, known, unit="eV/Å", says=forces),
        *_of_disagreement(
            "_mlipdb_energy_disagreement", StructureDisagreement.energy, known, unit="eV/atom", says=energy
        ),
    ]


def _of_disagreement(
    name: str, column: InstrumentedAttribute[float | None], known: Mapping[str, int], *, unit: str, says: str
) -> list[Field]:
    """A number of each stored disagreement by its name; without a name it is that of the only one."""
    named = {f"{name}_{each}": number for each, number in known.items()}
    only = next(iter(known.values())) if len(known) == 1 else None
    plain = Field(name, "float", says, unit=unit, relation=OfDisagreement(only, column))
    others = [Field(each, "float", says, unit, OfDisagreement(number, column)) for each, number in named.items()]
    return [replace(plain, choices=tuple(named)) if len(named) > 1 else plain, *others]


def _has(array: str, description: str) -> Field:
    relation, facet = HasArray(array), ArrayFacet(array)
    return Field(f"_mlipdb_has_{array}", "boolean", description, relation=relation, facet=facet)


def _lists(subsets: Mapping[str, int]) -> list[Field]:
    frozen = Spelling("frozen subset", lambda name: name if name in subsets else None, choices=subsets)
    return [
        Field("_mlipdb_method", "list", "names of the methods that labelled it", items=Methods()),
        Field("_mlipdb_teacher", "list", "names of the teachers among them", items=Methods("teacher")),
        Field("_mlipdb_subset", "list", "frozen subsets that it is in", items=Subsets(subsets), spelling=frozen),
        Field(
            "_mlipdb_tags",
            "list",
            "words that its source gave it, as subset=SPICE Dipeptides; `tags` for short",
            items=Tags(),
            spelling=Spelling("tag, which is written name=value", _stored_tag),
        ),
    ]


def _known_element(symbol: str) -> str | None:
    return symbol if symbol in ATOMIC_NUMBERS else None


def _stored_tag(text: str) -> str | None:
    return text if "=" in text else None


def _stored_symbol(symbol: str) -> str | None:
    number = space_group_number(symbol)
    return None if number is None else short_symbols()[number]

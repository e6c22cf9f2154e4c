"""Rows of the catalog from whole shards."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from mlipdb.catalog.facets import add_label_facets
from mlipdb.catalog.label import LabelRow
from mlipdb.catalog.rows import add_shard, add_structures, label_values, method_id, now, symmetry_id
from mlipdb.catalog.source import Source
from mlipdb.catalog.structure import StructureRow
from mlipdb.labels import Label, Method
from mlipdb.records import NewStructure
from mlipdb.store.codec import Encoded
from mlipdb.store.facts import ShardFacts
from mlipdb.store.found import FoundShard
from mlipdb.store.prepared import Prepared, describe
from mlipdb.structures import Structure, reduced_formula

LOST = "lost"  # name of the source of structures whose shard does not say where they came from


class Restorer:
    """Adds shards to a catalog; losses says what a shard could not give back, ignored what is there already."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.losses: list[str] = []
        self.ignored: list[str] = []
        self.added = 0

    def add(self, shard: FoundShard) -> None:
        """Add the rows of a shard; structures before labels of them."""
        if shard.sealed.kind == "structures":
            self._add_structures(shard)
        else:
            self._add_labels(shard)

    def _add_structures(self, shard: FoundShard) -> None:
        facts = shard.facts or self._unknown(shard)
        source = self._source(facts.source)
        methods = self._methods(facts)
        records = []
        for place, (identity, record) in enumerate(shard.records()):
            assert record.structure is not None
            maker = facts.label_methods[place] if shard.facts else None
            records.append(
                _prepared(
                    facts,
                    place,
                    record.structure,
                    record.label,
                    method=None if maker is None else methods[maker],
                    name=facts.external_ids[place] if shard.facts else f"{LOST}-{identity}",
                )
            )
        add_structures(
            self._session,
            records,
            first_id=shard.sealed.first_structure_id,
            shard=add_shard(self._session, shard.sealed),
            source=source,
            method=None if shard.facts else self._lost_method(),
            symmetry=symmetry_id(self._session, facts.symmetry) if facts.symmetry else None,
        )
        taken = update(Source).where(Source.id == source).values(taken=Source.taken + len(records))
        self._session.execute(taken)
        self.added += 1

    def _unknown(self, shard: FoundShard) -> ShardFacts:
        self.losses.append(
            f"{shard.sealed.path} is of format 1 and does not say where its structures came from: they are now "
            f"'{LOST}-ID' of source {LOST!r}, their material is their formula, their labels are of method {LOST!r}"
        )
        return ShardFacts(source={"name": LOST, "reader": "none", "uri": shard.sealed.path, "options": {}})

    def _lost_method(self) -> int:
        return method_id(self._session, Method(kind="dft", name=LOST))

    def _source(self, facts: Mapping[str, Any]) -> int:
        """The id of the source that a shard names, made where it is not there."""
        found = self._session.scalar(select(Source.id).where(Source.name == facts["name"]))
        if found is not None:
            return found
        row = Source(**facts, state="stopped", taken=0, duplicates=0, quarantined=0, created_at=now())
        self._session.add(row)
        self._session.flush()
        return row.id

    def _methods(self, facts: ShardFacts) -> list[int]:
        return [method_id(self._session, Method(**method)) for method in facts.methods]

    def _add_labels(self, shard: FoundShard) -> None:
        facts = shard.facts
        if facts is None:
            self.losses.append(f"{shard.sealed.path} is of format 1 and does not say who made its labels: not taken")
            return
        [method] = self._methods(facts)
        known = set(self._session.scalars(select(StructureRow.id)))
        there = self._labelled(shard, method)
        given = [
            (identity, part, record.label)
            for part, (identity, record) in zip(facts.parts, shard.records(), strict=True)
            if record.label is not None
        ]
        wanted = [(identity, part, label) for identity, part, label in given if identity in known]
        taken = [(identity, part, label) for identity, part, label in wanted if (identity, part) not in there]
        if len(wanted) < shard.sealed.records:
            gone = shard.sealed.records - len(wanted)
            self.losses.append(f"{shard.sealed.path}: {gone} labels are of structures whose shard is missing")
        if len(taken) < len(wanted):
            self.ignored.append(_why_doubled(shard, len(wanted) - len(taken), left=not taken))
        if taken or not wanted:
            self._insert_labels(shard, method, taken)

    def _labelled(self, shard: FoundShard, method: int) -> set[tuple[int, int]]:
        """Structures and parts of a shard's range whose label by a method is there already; failures do not count."""
        rows = select(LabelRow.structure_id, LabelRow.part).where(
            LabelRow.method_id == method,
            LabelRow.status == "done",
            LabelRow.structure_id.between(shard.sealed.first_structure_id, shard.sealed.last_structure_id),
        )
        return {(identity, part) for identity, part in self._session.execute(rows)}

    def _insert_labels(self, shard: FoundShard, method: int, taken: Sequence[tuple[int, int, Label]]) -> None:
        place = add_shard(self._session, shard.sealed)
        values = [
            label_values(label, structure_id=identity, method=method, shard=place, part=part)
            for identity, part, label in taken
        ]
        for row in values:  # what had failed was tried again
            failed = {name: row[name] for name in ("structure_id", "method_id", "part")}
            self._session.query(LabelRow).filter_by(**failed, status="failed").delete()
        if values:
            self._session.execute(insert(LabelRow.__table__), values)  # type: ignore[arg-type]  # declared wider
        add_label_facets(self._session, values, shard=place)
        self.added += 1


def _why_doubled(shard: FoundShard, count: int, *, left: bool) -> str:
    if left:
        return (
            f"{shard.sealed.path}: all its labels are in another shard, so it is the leftover of a crash "
            f"(`mlipdb gc` removes it)"
        )
    return (
        f"{shard.sealed.path}: {count} of its {shard.sealed.records} labels are in another shard; the others are taken"
    )


def _prepared(
    facts: ShardFacts, place: int, structure: Structure, label: Label | None, *, method: int | None, name: str
) -> Prepared:
    """What an append would have been given for a record of a shard."""
    new = NewStructure(
        structure=structure,
        label=label,
        external_id=name,
        material=facts.materials[place] if facts.materials else reduced_formula(structure.composition),
        space_group=facts.space_groups[place] if facts.space_groups else None,
        method_id=method,
        tags=facts.tags[place] if facts.tags else {},
        row=facts.rows[place] if facts.rows else None,
    )
    return describe(new, Encoded(b""))

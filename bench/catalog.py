"""Counts and freezing in a catalog as large as MPtrj, and ASE db beside it at the size it can bear.

    python bench/catalog.py SAMPLE.json                                    20,000 structures in SQLite: a smoke test
    python bench/catalog.py SAMPLE.json --structures 1580000 --keep DIR    MPtrj's size; DIR is made once and used again
    python bench/catalog.py SAMPLE.json --structures 10000000 --postgresql on a private server, started for the run

The sample is a file in the MPtrj layout. It is ingested for real; then its rows, and its rows alone, are repeated under
new ids with slightly changed band gaps, straight into the tables. There are no shards behind those rows.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import ase.db
from ase import Atoms
from sqlalchemy import create_engine, func, select, text

import mlipdb
from mlipdb import subsets
from mlipdb.catalog import Material, ShardRow, StructureRow
from mlipdb.catalog.facets import drop_facets, fill_facets
from mlipdb.ingest import IngestSettings, ingest
from mlipdb.query import count_structures, structure_ids
from mlipdb.testing.postgresql import postgresql_programs, private_server

SHARD = 32768  # records of one shard, as `mlipdb ingest` makes them
LIMIT = {"sqlite": 0.050, "postgresql": 0.200}
FREEZE_LIMIT = {"sqlite": 2.0, "postgresql": 8.0}
FILTERS = [
    "O", "Y", "Pm-3m", "space_group_it_number>=195", "gap>=5", "gap>=0.5", "NOT gap>=0.5", "gap IS KNOWN",
    "O AND Pm-3m", "O AND gap>=2", "O AND NOT gap>=2", "Y AND gap>=5", "Pm-3m AND gap>=2", "NOT O AND Pm-3m",
    "O AND Pm-3m AND gap>=2", "O AND Sr AND gap>=2", "(O OR F) AND space_group_it_number>=195 AND gap<1",
    'elements HAS ALL "O","Sr","Hf"', 'elements HAS ONLY "O","Sr","Hf"', "Hf-O-Sr", "Hf-O-Sr AND gap>=2",
    "nelements=3", "nsites<=20", "nsites>20 AND nsites<=40 AND O", "nelements>=4 AND O AND NOT gap>=1",
    '_mlipdb_source="mptrj" AND O', "_mlipdb_max_force<0.05", "all",
]  # fmt: skip
INDEXES = [
    ("structure", "chemical_formula_reduced"), ("structure", "chemical_system"), ("structure", "content_hash"),
    ("structure", "material_id"), ("structure", "space_group_it_number"),
    ("structure_element", "structure_id_atomic_number", "structure_id, atomic_number"),
    ("label", "band_gap", "band_gap, method_id, structure_id"),
    ("label", "method_id_structure_id", "method_id, structure_id"),
]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sample", type=Path)
    parser.add_argument("--structures", type=int, default=20_000)
    parser.add_argument("--postgresql", action="store_true", help="on a private server instead of SQLite")
    parser.add_argument("--keep", type=Path, help="SQLite database directory to make, or to use when it is there")
    parser.add_argument("--freeze", type=int, default=100_000)
    parser.add_argument("--ase", type=int, default=20_000, help="structures in the ASE db; 0 for none")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        db = open_or_build(stack, chosen, scratch)
        show_queries(db)
        show_freeze(db, chosen.freeze)
        db.close()
        if chosen.ase:
            show_ase(chosen.sample, chosen.ase, scratch)


def open_or_build(stack, chosen, scratch):
    if chosen.keep and (chosen.keep / "mlipdb.toml").exists():
        return mlipdb.open(chosen.keep)
    catalog = stack.enter_context(postgresql_catalog()) if chosen.postgresql else "catalog.sqlite"
    db = mlipdb.create(chosen.keep or scratch / "db", catalog=catalog)
    ingest(db, [chosen.sample], settings=IngestSettings(reader="mptrj", name="mptrj", batch=SHARD))
    with clock(f"rows of {chosen.structures:,} structures"):
        multiply(db, chosen.structures)
    with clock("their facets, which an ingest writes as it goes"), db.write() as session:
        drop_facets(session)
        fill_facets(session)
    return db


@contextmanager
def postgresql_catalog():
    programs = postgresql_programs()
    if programs is None:
        raise SystemExit("PostgreSQL is not installed (apt-get install postgresql)")
    with private_server(programs) as folder:
        url = f"postgresql+psycopg://mlipdb@/postgres?host={folder}"
        admin = create_engine(url, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text("CREATE DATABASE bench"))
        admin.dispose()
        yield url.replace("/postgres?", "/bench?")


@contextmanager
def clock(what):
    start = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - start:.1f} s", flush=True)


def multiply(db, wanted):
    """Repeat the rows of the sample until there are enough, then the rows of shards and the side tables."""
    sqlite = db.engine.dialect.name == "sqlite"
    with db.session() as session:
        size, materials = (
            session.scalar(select(func.max(StructureRow.id))),
            session.scalar(select(func.max(Material.id))),
        )
    with db.engine.begin() as connection:
        connection.execute(text("PRAGMA cache_size=-400000" if sqlite else "SET session_replication_role = replica"))
        make_shards(connection, wanted)
        for table, name, *_ in INDEXES:
            connection.execute(text(f"DROP INDEX ix_{table}_{name}"))
        for table in ("material", "structure", "structure_element", "label"):
            connection.execute(text(f"CREATE TEMPORARY TABLE sample_{table} AS SELECT * FROM {table}"))
        for copy in range(1, -(-wanted // size)):
            values = {"copy": copy, "step": copy * size, "materials": materials, "last": wanted}
            for statement in copies(sqlite):
                connection.execute(text(statement), values)
        for table, name, *columns in INDEXES:
            connection.execute(text(f"CREATE INDEX ix_{table}_{name} ON {table} ({columns[0] if columns else name})"))
        connection.execute(text("ANALYZE"))


def copies(sqlite):
    """The statements that copy the sample's rows once."""
    step, copy = "CAST(:step AS BIGINT)", "CAST(:copy AS BIGINT) * :materials"  # psycopg sends small types
    number = "random()" if sqlite else "(random() * 1e9)::bigint"
    digest = "randomblob(16)" if sqlite else f"decode(md5(({number})::text), 'hex')"
    mixed = f"1 + ((s.id + {step}) * 7919 % 1000) * 1e-6"
    gap = f"round(l.band_gap * ({mixed}), 4)" if sqlite else f"round((l.band_gap * ({mixed}))::numeric, 4)::float8"
    name, shard = "CAST(:copy AS TEXT)", f"1 + (s.id + {step} - 1) / {SHARD}"
    same = (
        "nsites, nelements, chemical_formula_reduced, chemical_system, space_group_it_number, space_group_symbol, "
        "symmetry_setting_id, volume, pbc, charge, spin_multiplicity, source_row"
    )
    of_label = (
        "method_id, part, status, reason, energy_uncorrected, energy_corrected, free_energy, energy_zero, max_force, "
        "arrays, hessian_rows, content_hash"
    )
    return (
        f"INSERT INTO material (id, key) SELECT id + {copy}, key || '-' || {name} FROM sample_material",
        f"INSERT INTO structure (id, shard_id, source_id, material_id, external_id, content_hash, {same}) "
        f"SELECT id + {step}, {shard}, source_id, material_id + {copy}, external_id || '-' || {name}, "
        f"{digest}, {same} "
        f"FROM sample_structure AS s WHERE id + {step} <= :last",
        "INSERT INTO structure_element (atomic_number, structure_id, count) "
        f"SELECT atomic_number, structure_id + {step}, count FROM sample_structure_element "
        f"WHERE structure_id + {step} <= :last ORDER BY atomic_number, structure_id",
        f"INSERT INTO label (structure_id, shard_id, band_gap, {of_label}) SELECT s.id + {step}, {shard}, {gap}, "
        f"{', '.join('l.' + column for column in of_label.split(', '))} FROM sample_label AS l "
        f"JOIN sample_structure AS s ON s.id = l.structure_id WHERE s.id + {step} <= :last ORDER BY s.id",
    )


def make_shards(connection, wanted):
    """A row for each shard that an ingest of as many records would have sealed."""
    shard = ShardRow.__table__
    first = dict(connection.execute(select(shard).limit(1)).mappings().one())
    connection.execute(shard.update().values(last_structure_id=min(SHARD, wanted), records=min(SHARD, wanted)))
    for number, start in enumerate(range(SHARD, wanted, SHARD), start=2):
        last = min(start + SHARD, wanted)
        row = {
            "id": number,
            "path": f"shards/none-{number}",
            "first_structure_id": start + 1,
            "last_structure_id": last,
        }
        connection.execute(shard.insert(), first | row | {"records": last - start})


def show_queries(db):
    """First answer in a fresh session, then the median of five."""
    dialect = db.engine.dialect.name
    with db.session() as session:
        count_structures(session, "H")  # parsers and drivers are imported once in a process
        total = session.scalar(select(func.count()).select_from(StructureRow))
    print(f"\n{total:,} structures, {dialect}; limit {LIMIT[dialect] * 1000:.0f} ms")
    print(f"{'count of':58s} {'found':>9s} {'first':>8s} {'median':>8s}")
    for filter in FILTERS:
        db.close()
        seconds = []
        for _ in range(6):
            start = time.perf_counter()
            with db.session() as session:
                found = count_structures(session, filter)
            seconds.append(time.perf_counter() - start)
        median = statistics.median(seconds[1:])
        flag = "" if median < LIMIT[dialect] else "  over the limit"
        print(f"{filter:58s} {found:9,d} {seconds[0] * 1e3:6.1f}ms {median * 1e3:6.1f}ms{flag}", flush=True)


def show_freeze(db, members):
    """Freeze about so many members; each time under a new name."""
    with db.session() as session:
        ids = structure_ids(session, "O")
    last = ids[min(members, len(ids)) - 1]
    filter = f"O AND id<={last}"
    seconds = []
    for number in range(3):
        start = time.perf_counter()
        frozen = subsets.freeze(db, f"bench-{time.time_ns()}-{number}", filter=filter)
        seconds.append(time.perf_counter() - start)
    limit = FREEZE_LIMIT[db.engine.dialect.name]
    each = ", ".join(f"{second:.2f}" for second in seconds)
    print(f"\nfreezing {len(frozen.ids):,} members: {statistics.median(seconds):.2f} s ({each}); limit {limit:.0f} s")


def show_ase(sample, size, scratch):
    """The same structures in an ASE db, with the gap as a key-value pair."""
    source = mlipdb.create(scratch / "sample")
    ingest(source, [sample], settings=IngestSettings(reader="mptrj", symprec=None))
    everything = source.query("all")
    atoms = [Atoms(s.atomic_numbers, s.positions, cell=s.cell, pbc=s.pbc) for s in everything]
    gaps = [label.band_gap for _, label in source.read(everything.ids)]
    path = scratch / "peer.db"
    with clock(f"\nASE db: {size:,} structures written"), ase.db.connect(path) as peer:
        for number in range(size):
            place = number % len(atoms)
            peer.write(atoms[place], **({} if gaps[place] is None else {"gap": gaps[place]}))
    peer = ase.db.connect(path)
    for selection in ("O", "Y", "gap>=5", "O,gap>=2", "Sr,O,Hf", "natoms<=20"):
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            found = peer.count(selection)
            seconds.append(time.perf_counter() - start)
        print(f"ASE db, count of {selection:20s} {found:9,d} {statistics.median(seconds) * 1e3:6.1f}ms")


if __name__ == "__main__":
    main()

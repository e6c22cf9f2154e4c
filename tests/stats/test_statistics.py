import json

import pytest
from sqlalchemy.orm import Session

import mlipdb
from mlipdb.catalog import FindingRow
from mlipdb.catalog.rows import now
from mlipdb.errors import QueryError
from mlipdb.stats import compare_methods, statistics


def counts(histogram):
    return {bin.name: bin.count for bin in histogram.bins}


def test_structures_are_counted_by_everything_that_they_are(database):
    found = statistics(database)
    assert (found.structures, found.atoms, found.materials, found.contents) == (7, 15, 4, 7)
    assert (found.smallest, found.median_size, found.largest) == (2, 2, 3)
    assert counts(found.sizes) == {"2": 6, "3 to 4": 1}
    assert found.nelements == {2: 7}
    assert found.periodic_directions == {0: 1, 3: 6}
    by_element = {element.symbol: (element.structures, element.atoms) for element in found.elements}
    assert by_element == {
        "H": (1, 2), "O": (1, 1), "Na": (2, 2), "Cl": (4, 4), "K": (4, 4), "Br": (2, 2)
    }  # fmt: skip
    assert found.tags == {"split": {"train": 4, "test": 2}}
    assert (found.without_space_group, found.unlabelled) == (7, 1)


def test_each_method_says_what_it_gave_to_how_many(database):
    dft, toy = statistics(database).methods
    assert dft.quantities == {"energy_uncorrected": 6, "band_gap": 6, "forces": 6, "stress": 6}
    assert toy.quantities == {"energy_uncorrected": 4, "forces": 4, "hessian_rows": 1}
    assert [(m.structures, m.failed, m.hessian_rows) for m in (dft, toy)] == [(6, 0, 0), (4, 1, 2)]
    assert (toy.weights_sha256, toy.package, toy.package_version) == ("b" * 64, "toy", "1.2")


def test_energies_and_forces_are_in_the_bins_where_they_belong(database):
    dft, _ = statistics(database).methods
    # -1 to -6 eV over two atoms: mean -1.75, variance of -0.5, -1, …, -3 is 35/48
    assert dft.energy_mean == pytest.approx(-1.75)
    assert dft.energy_deviation == pytest.approx((35 / 48) ** 0.5)
    assert (dft.energy_lowest, dft.energy_highest) == (-3.0, -0.5)
    energies = dft.energy_per_atom
    assert energies.total == 6
    for energy in (-0.5, -1.0, -1.5, -2.0, -2.5, -3.0):
        assert [b.count for b in energies.bins if b.low <= energy and (b.high is None or energy < b.high)] == [1]
    assert counts(dft.max_force) == {
        "below 0.01": 1, "0.01 to 0.03": 0, "0.03 to 0.1": 0, "0.1 to 0.3": 1, "0.3 to 1": 3, "1 to 3": 1
    }  # fmt: skip
    assert dft.force_components.total == 6 * 2 * 3
    assert dft.sampled == 6


def test_a_filter_limits_every_number(database):
    found = statistics(database, "K AND Br")
    assert (found.structures, found.atoms, found.materials) == (2, 4, 1)
    assert {element.symbol for element in found.elements} == {"K", "Br"}
    dft, toy = found.methods
    assert (dft.structures, dft.energy_lowest, dft.energy_highest) == (2, -3.0, -2.5)
    assert (toy.structures, toy.failed) == (0, 1)
    assert found.tags == {"split": {"test": 2}}
    assert found.sources[0].structures == 2
    assert statistics(database, "H").unlabelled == 1


def test_a_filter_that_matches_nothing_gives_zeros(database):
    found = statistics(database, "Zr")
    assert (found.structures, found.methods, found.elements, found.median_size) == (0, (), (), None)


def test_a_bad_filter_is_refused(database):
    with pytest.raises(QueryError):
        statistics(database, "Y AND")


def test_the_source_has_its_licence_duplicates_quarantine_and_findings(database):
    with Session(database.engine) as session, session.begin():
        facts = {"check_name": "net_force", "severity": "warning", "message": "net forces", "details": {}}
        session.add(FindingRow(source_id=1, created_at=now(), **facts))
    found = statistics(database)
    (source,) = found.sources
    assert (source.licence, source.duplicates, source.quarantined) == ("CC-BY-4.0", 3, 1)
    (finding,) = found.findings
    assert (finding.source, finding.check, finding.message) == ("made", "net_force", "net forces")


def test_the_sample_is_seeded_and_no_larger_than_asked(database):
    whole, some = statistics(database, sample=100), statistics(database, sample=2, seed=1)
    assert [method.sampled for method in some.methods] == [2, 2]
    assert some == statistics(database, sample=2, seed=1)
    assert whole.methods[0].force_components.total == 36
    assert statistics(database, sample=0).methods[0].force_components is None


def test_the_description_is_plain_json(database):
    values = json.loads(json.dumps(statistics(database).describe()))
    assert values["crystal_systems"]["cubic"] == 0
    assert values["methods"][0]["max_force"]["unit"] == "eV/Å"


def test_every_filter_counts_what_the_query_finds(database):
    for text in ("all", "", "Na", "Cl", "nelements=2 AND NOT K", '_mlipdb_teacher HAS "toy"', "nsites>2"):
        assert statistics(database, text, sample=0).structures == len(database.query(text)), text


def test_postgresql_counts_the_same(database, fill, tmp_path, postgresql_url):
    other = mlipdb.create(tmp_path / "other", catalog=postgresql_url)
    fill(other)
    first, second = statistics(database), statistics(other)
    assert first == second
    assert compare_methods(database, "1", "toy").describe() == compare_methods(other, "1", "toy").describe()
    assert statistics(database, "K") == statistics(other, "K")
    other.close()

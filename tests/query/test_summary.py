from sqlalchemy.orm import Session

from mlipdb.query import summarise


def test_a_summary_counts_all_and_describes_the_first(catalog):
    expected = catalog.matching(lambda s: "Y" in s.counts)
    with Session(catalog.engine) as session:
        answer = summarise(session, "Y", limit=3)
    assert answer.count == len(expected)
    assert [structure.id for structure in answer.structures] == expected[:3]


def test_the_energy_and_the_gap_are_of_the_first_dft_label(catalog):
    with Session(catalog.engine) as session:
        found = {structure.id: structure for structure in summarise(session, "all", limit=None).structures}
    assert len(found) == len(catalog.structures)
    for structure in catalog.structures:
        labels = [label for label in structure.labels if label.kind == "dft" and label.part == 0]
        first = (labels[0].energy, labels[0].gap) if labels else (None, None)
        assert (found[structure.id].energy, found[structure.id].band_gap) == first
        assert found[structure.id].nsites == sum(structure.counts.values())


def test_a_limit_of_none_describes_all_and_zero_describes_none(catalog):
    with Session(catalog.engine) as session:
        assert len(summarise(session, "O", limit=None).structures) == summarise(session, "O", limit=0).count > 0
        assert summarise(session, "O", limit=0).structures == ()

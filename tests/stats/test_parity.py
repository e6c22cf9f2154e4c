import numpy as np
import pytest

from mlipdb.errors import NotFoundError
from mlipdb.labels import Method
from mlipdb.stats import compare_methods
from mlipdb.stats.parity import errors_of


def test_errors_are_those_that_were_put_in(database):
    found = compare_methods(database, "PBE/VASP", "toy")
    assert (found.first, found.second, found.structures) == ("PBE/VASP (1)", "toy (2)", 4)
    energy, forces = found.errors["energy per atom"], found.errors["force components"]
    assert (energy.count, energy.mean, energy.mae, energy.rmse) == (4, 0.25, 0.25, 0.25)
    # the energies per atom are -0.5, -1, -1.5, -2: variance 0.3125, so R² is 1 - 0.0625/0.3125
    assert energy.r2 == pytest.approx(0.8)
    assert (forces.count, forces.mae) == (4 * 6, pytest.approx(0.1))
    np.testing.assert_allclose(found.energies[:, 1] - found.energies[:, 0], 0.25)
    assert [(o.id, o.external_id, o.difference) for o in found.outliers][:2] == [
        (1, "frame-0", 0.25),
        (2, "frame-1", 0.25),
    ]
    assert found.force_outliers[0].difference == pytest.approx(0.1 * 3**0.5)


def test_the_other_way_round_changes_the_sign_only(database):
    there, back = compare_methods(database, "1", "2"), compare_methods(database, "2", "1")
    for name, errors in there.errors.items():
        assert errors.mean == pytest.approx(-back.errors[name].mean)
        assert errors.mae == pytest.approx(back.errors[name].mae)


def test_a_method_agrees_with_itself(database):
    found = compare_methods(database, "1", "1")
    assert found.errors["energy per atom"].r2 == 1
    assert found.errors["force components"].rmse == 0


def test_errors_by_sql_are_those_by_numpy(database):
    found = compare_methods(database, "1", "2")
    by_numpy = errors_of(found.energies, unit="eV/atom")
    for name in ("count", "mean", "mae", "rmse", "r2"):
        assert getattr(found.errors["energy per atom"], name) == pytest.approx(getattr(by_numpy, name)), name


def test_r2_is_unknown_where_all_values_are_the_same():
    assert errors_of(np.ones((3, 2)), unit="eV").r2 is None


def test_a_filter_and_a_sample_limit_what_is_compared(database):
    assert compare_methods(database, "1", "2", filter="Na").structures == 2
    found = compare_methods(database, "1", "2", sample=1, seed=3)
    assert (found.structures, found.sampled, found.errors["force components"].count) == (4, 1, 6)
    assert "force components" not in compare_methods(database, "1", "2", sample=0).errors


def test_an_unknown_method_is_named_with_those_that_there_are(database):
    with pytest.raises(NotFoundError, match=r"no method 'toi'; methods are 1 \(PBE/VASP\), 2 \(toy\).*'toy'"):
        compare_methods(database, "1", "toi")


def test_a_name_of_two_methods_asks_for_the_number(database):
    database.method_id(Method(kind="teacher", name="toy", weights_sha256="c" * 64))
    with pytest.raises(NotFoundError, match=r"2 methods are called 'toy': 2 \(toy\), 3 \(toy\); give one of the n"):
        compare_methods(database, "1", "toy")


def test_methods_without_common_structures_are_an_error(database):
    with pytest.raises(NotFoundError, match="no structure of 'Br' has labels of both PBE/VASP and toy"):
        compare_methods(database, "1", "2", filter="Br")

import subprocess
import sys

import pytest

from mlipdb.errors import ConfigError, MissingExtraError
from mlipdb.labelling.load import PLANNED, load_teacher, teacher_names
from mlipdb.labelling.teacher import TeacherOptions
from mlipdb.teachers.published import DEMONSTRATION, PUBLISHED


def test_every_published_name_is_an_entry_point():
    assert {*PUBLISHED, DEMONSTRATION, "nequix"} <= set(teacher_names())


@pytest.mark.parametrize(
    ("name", "requirement"),
    [
        ("UMA-S-1p1", "mlipdb[fairchem]"),
        ("uma-s", "mlipdb[fairchem]"),
    ],
)
def test_a_teacher_of_a_later_release_names_its_extra_and_says_that_it_is_not_here_yet(name, requirement):
    with pytest.raises(MissingExtraError) as caught:
        load_teacher(name)
    assert f"pip install '{requirement}'" in str(caught.value)
    assert "not in this release" in str(caught.value)


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(ConfigError, match="Did you mean 'nequix-mp-1'"):
        load_teacher("nequix-mp1")
    with pytest.raises(ConfigError, match="Did you mean 'chgnet'"):
        load_teacher("chgnett")


def test_planned_names_are_not_registered_ones():
    assert not set(PLANNED) & set(teacher_names())


def test_weights_by_path_load_through_the_entry_point(tiny_nqx):
    assert load_teacher("nequix", TeacherOptions(weights=tiny_nqx)).info.atomic_numbers == {1, 6, 8, 14}


def test_listing_teachers_imports_neither_jax_nor_torch():
    program = (
        "import sys; from mlipdb.labelling import teacher_names; assert teacher_names(); "
        "assert not {'jax', 'torch', 'equinox'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

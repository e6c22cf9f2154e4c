import importlib.util
import subprocess
import sys

import pytest

from mlipdb.errors import ConfigError, MissingExtraError
from mlipdb.labelling.load import load_teacher, teacher_names
from mlipdb.labelling.teacher import TeacherOptions
from mlipdb.teachers.published import DEMONSTRATION, PUBLISHED


def test_every_published_name_is_an_entry_point():
    assert {*PUBLISHED, DEMONSTRATION, "nequix"} <= set(teacher_names())


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("mace-mp", "mace", "mace"),
        ("chgnet", "chgnet", "chgnet"),
        ("matgl", "matgl", "matgl"),
        ("uma", "fairchem", "fairchem"),
    ],
)
def test_a_teacher_whose_package_is_absent_names_the_extra(name, package, extra):
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(MissingExtraError, match=rf"pip install 'mlipdb\[{extra}\]'"):
        load_teacher(name)


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(ConfigError, match="Did you mean 'nequix-mp-1'"):
        load_teacher("nequix-mp1")
    with pytest.raises(ConfigError, match="Did you mean 'chgnet'"):
        load_teacher("chgnett")


def test_weights_by_path_load_through_the_entry_point(tiny_nqx):
    assert load_teacher("nequix", TeacherOptions(weights=tiny_nqx)).info.atomic_numbers == {1, 6, 8, 14}


def test_listing_teachers_imports_neither_jax_nor_torch():
    program = (
        "import sys; from mlipdb.labelling import teacher_names; assert teacher_names(); "
        "assert not {'jax', 'torch', 'equinox'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

import pytest

from mlipdb.errors import ConfigError
from mlipdb.ingest.declared import refuse_units
from mlipdb.ingest.vasp.methods import functional, vasp_method
from mlipdb.ingest.vasp.runs import RunError, element_of, material_of, material_rule, run_name

NAMES = [
    ({"GGA": "PE"}, "PBE"),
    ({"GGA": "--", "LEXCH": "PE"}, "PBE"),
    ({"GGA": "RP", "LEXCH": "PE"}, "RPBE"),
    ({"GGA": "PS"}, "PBEsol"),
    ({"LEXCH": "CA"}, "LDA"),
    ({"GGA": "91"}, "PW91"),
    ({"GGA": "PE", "METAGGA": "F"}, "PBE"),
    ({"GGA": "PE", "METAGGA": "SCAN"}, "SCAN"),
    ({"GGA": "--", "METAGGA": "R2SCAN", "LEXCH": "PE"}, "r2SCAN"),
    ({"METAGGA": "r2scan", "LUSE_VDW": ".TRUE."}, "r2SCAN+rVV10"),
    ({"GGA": "PE", "LDAU": "T", "LDAUU": "3.9 0.0"}, "PBE+U"),
    ({"GGA": "PE", "LDAU": True, "LDAUU": [0, 0], "LDAUJ": [0, 0]}, "PBE"),
    ({"GGA": "PE", "IVDW": "11"}, "PBE+D3"),
    ({"GGA": "PE", "IVDW": 12}, "PBE+D3(BJ)"),
    ({"GGA": "PE", "IVDW": 2}, "PBE+TS"),
    ({"GGA": "PE", "LVDW": "T"}, "PBE+D2"),
    ({"GGA": "PE", "IVDW": 99}, "PBE+IVDW99"),
    ({"GGA": "PE", "LHFCALC": "T", "AEXX": "0.25", "HFSCREEN": "0.2"}, "HSE06"),
    ({"GGA": "PE", "LHFCALC": "T", "HFSCREEN": "0.207"}, "HSE06"),
    ({"GGA": "PE", "LHFCALC": "T", "AEXX": "0.25"}, "PBE0"),
    ({"GGA": "PE", "LHFCALC": "T", "AEXX": "0.5"}, "PBE hybrid (AEXX 0.5, HFSCREEN 0)"),
    ({"GGA": "BF", "LUSE_VDW": "T"}, "BEEF-vdW"),
    ({"GGA": "MK", "LUSE_VDW": "T"}, "optB86b-vdW"),
    ({"GGA": "PE", "LUSE_VDW": "T"}, "PBE+vdW-DF"),
    ({"GGA": "PE", "METAGGA": "SCAN", "LDAU": "T", "LDAUU": "4"}, "SCAN+U"),
    ({"GGA": "PE", "LSORBIT": "T", "LNONCOLLINEAR": "T"}, "PBE+SOC"),
    ({"GGA": "PE", "LSORBIT": True, "LDAU": "T", "LDAUU": "4"}, "PBE+U+SOC"),
    ({"GGA": "PE", "LSORBIT": "F", "LNONCOLLINEAR": ".TRUE."}, "PBE+noncollinear"),
    ({}, None),
    ({"GGA": "??"}, None),
]


@pytest.mark.parametrize(("settings", "name"), NAMES)
def test_the_settings_name_the_functional(settings, name):
    assert functional(settings) == name
    method = vasp_method(settings)
    assert (method is None) == (name is None)
    if method is not None:
        assert (method.code, method.functional, method.name) == ("VASP", name, f"{name}/VASP")


@pytest.mark.parametrize(
    ("symbol", "title", "number"),
    [("Zr", "PAW_PBE Zr_sv 04Jan2005", 40), ("r", "PAW_PBE Zr_sv 04Jan2005", 40), ("H ", "PAW H.5 1", 1), ("O", "", 8)],
)
def test_an_atom_is_the_element_that_symbol_and_pseudopotential_agree_on(symbol, title, number):
    assert element_of(symbol, title) == number


@pytest.mark.parametrize(("symbol", "title"), [("O", "PAW_PBE Ti 08Apr2002"), ("r", ""), ("", "PAW_PBE nothing")])
def test_an_atom_of_two_elements_or_none_is_refused(symbol, title):
    with pytest.raises(RunError, match="pseudopotential"):
        element_of(symbol, title)


@pytest.mark.parametrize(
    ("file", "kind", "name"),
    [
        ("a/b/vasprun.xml.gz", "vasprun", "a/b"),
        ("a/vasprun.relax2.xml", "vasprun", "a/relax2"),
        ("a/vasprun.xml.relax2.gz", "vasprun", "a/relax2"),
        ("vasprun.xml-001.xz", "vasprun", "001"),
        ("vasprun.xml", "vasprun", "vasprun"),
        ("27998_vasprun.xml.gz", "vasprun", "27998"),
        ("label_1/OUTCAR_7.gz", "OUTCAR", "label_1/7"),
        ("OUTCAR", "OUTCAR", "OUTCAR"),
    ],
)
def test_a_run_is_called_by_its_folder_and_what_the_file_name_adds(file, kind, name):
    assert run_name(file, kind) == name


def test_the_steps_of_a_workflow_are_one_material_and_other_formulas_are_not():
    runs = [f"mp-1/{step}" for step in ("relax1", "relax2", "static", "disp-004", "scf")]
    assert {material_of(run, [12, 8], source="s", rule="both") for run in runs} == {"s/mp-1/MgO"}
    assert material_of("relax1", [12, 8], source="s", rule="both") == "s/MgO"
    assert material_of("relax1", [12, 8, 8], source="s", rule="both") == "s/MgO2"
    assert material_of("mp-1/relax1", [12, 8], source="s", rule="formula") == "s/MgO"
    assert material_of("mp-1/relax1", [12, 8], source="s", rule="folder") == "s/mp-1/relax1"


def test_keys_and_units_that_mean_nothing_here_are_refused_with_those_that_do():
    assert material_rule({}) == "both"
    with pytest.raises(ConfigError, match=r"--key energy=REF.*material=folder"):
        material_rule({"energy": "REF"})
    with pytest.raises(ConfigError, match=r"--unit energy=meV: the units of OUTCAR are fixed"):
        refuse_units({"energy": "meV"}, "OUTCAR")

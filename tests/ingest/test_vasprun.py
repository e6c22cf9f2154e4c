import gzip
import warnings
from io import StringIO
from typing import ClassVar

import numpy as np
import pytest
from ase.io import read as ase_read

from mlipdb.errors import IngestError
from mlipdb.ingest.files import plain_head
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.readers.vasprun import VasprunReader
from mlipdb.labels import Label, Method
from mlipdb.structures import make_structure
from mlipdb.testing.readers import ReaderConformance

HEAD = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <generator>
  <i name="program" type="string">vasp </i>
  <i name="version" type="string">6.3.0 </i>
 </generator>
 <incar>
  {incar}
 </incar>
 <parameters>
  <separator name="electronic" ><i name="NELECT">    {electrons}</i>
   <separator name="electronic convergence" ><i type="int" name="NELM">     4</i></separator>
  </separator>
  <i type="string" name="GGA">--</i>
  <separator name="response functions" ><i type="int" name="NELM">     1</i></separator>
 </parameters>
 <atominfo>
  <array name="atoms" ><field type="string">element</field>
   <set><rc><c>r </c><c>   1</c></rc><rc><c>O </c><c>   2</c></rc></set>
  </array>
  <array name="atomtypes" ><field type="int">atomspertype</field>
   <set>
    <rc><c>   1</c><c>r </c><c>     91.22400000</c><c>     12.00000000</c><c>  PAW_PBE Zr_sv 04Jan2005  </c></rc>
    <rc><c>   1</c><c>O </c><c>     16.00000000</c><c>      6.00000000</c><c>  PAW_PBE O 08Apr2002  </c></rc>
   </set>
  </array>
 </atominfo>
"""
SCSTEP = """  <scstep><energy><i name="e_fr_energy">  {fr:.8f} </i><i name="e_wo_entrp"> -16.1 </i>
   <i name="e_0_energy">  {zero:.8f} </i></energy></scstep>
"""
STEP = """ <calculation>
{scsteps}  <structure>
   <crystal><varray name="basis" ><v> 4.0 0.0 0.0 </v><v> 0.0 4.0 0.0 </v><v> 0.0 0.0 {c:.8f} </v></varray></crystal>
   <varray name="positions" ><v> 0.0 0.0 0.0 </v><v> 0.5 0.5 0.25 </v></varray>
  </structure>
{forces}{stress}  <energy>
   <i name="e_fr_energy">  {step_fr:.8f} </i><i name="e_wo_entrp"> -16.0 </i><i name="e_0_energy"> 0.125 </i>
  </energy>
  <dos><total><array><set><set><r> 1.0 2.0 </r></set></set></array></total></dos>
  <eigenvalues><array><set><set><set><r> -3.0 1.0 </r><r> 1.5 1.0 </r><r> 4.0 0.0 </r></set></set></set></array>
  </eigenvalues>
 </calculation>
"""
FORCES = """  <varray name="forces" ><v> 0.125 -0.25 0.5 </v><v> -0.125 0.25 {fz} </v></varray>
"""
STRESS = """  <varray name="stress" ><v> 16.0 1.0 0.0 </v><v> 1.0 -8.0 0.0 </v><v> 0.0 0.0 4.0 </v></varray>
"""


def step(number=0, *, scsteps=2, forces=FORCES, stress=STRESS, shift=0.0, fz="-0.5", lead=0.25):
    fr = -16.0 - number / 8
    text = "".join(SCSTEP.format(fr=fr + (lead if i < scsteps - 1 else 0), zero=fr - 0.0625) for i in range(scsteps))
    return STEP.format(scsteps=text, c=4.0 + number / 4, forces=forces.format(fz=fz), stress=stress, step_fr=fr + shift)


def write(path, *steps, incar="", electrons=18.0, tail="</modeling>\n"):
    path.write_text(HEAD.format(incar=incar, electrons=electrons) + "".join(steps) + tail)
    return path


def read(path, **options):
    return list(VasprunReader().frames(path, options))


class TestVasprun(ReaderConformance):
    reader = VasprunReader()
    options: ClassVar = {"file": "vasprun.xml"}

    def sample(self, folder):
        return write(folder / "vasprun.xml", *(step(number) for number in range(6)))

    def first_frame(self):
        structure = make_structure(
            [40, 8], [[0, 0, 0], [2, 2, 1]], cell=np.diag([4.0, 4.0, 4.0]), pbc=(True, True, True), charge=0.0
        )
        kbar = -0.1 / 160.2176634  # 1 kbar = 0.1 GPa; VASP prints compression as positive
        label = Label(
            energy_uncorrected=-16.0,
            free_energy=-16.0,
            energy_zero=-16.0625,
            band_gap=2.5,
            forces=np.array([[0.125, -0.25, 0.5], [-0.125, 0.25, -0.5]]),
            stress=np.array([[16.0, 1.0, 0.0], [1.0, -8.0, 0.0], [0.0, 0.0, 4.0]]) * kbar,
            method=Method(kind="dft", name="PBE/VASP", code="VASP", functional="PBE"),
        )
        return Frame(
            structure=structure, label=label, external_id="vasprun-0", material="vasprun/OZr", location="ionic step 0"
        )


def test_a_missing_stress_is_none_and_missing_forces_are_refused(tmp_path):
    frame, refused = read(write(tmp_path / "vasprun.xml", step(stress=""), step(1, forces="")))
    assert frame.label.stress is None
    assert refused.reason == "the step has no forces"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scsteps": 4}, r"not converged: 4 electronic steps of NELM = 4"),
        ({"scsteps": 0}, "machine-learned force field"),
        ({"fz": "**********"}, r"forces: .*\*\*"),
        ({"fz": "1 2"}, "not three numbers"),
    ],
)
def test_a_step_that_cannot_be_trusted_is_quarantined_and_the_next_is_read(tmp_path, changes, reason):
    bad, good = read(write(tmp_path / "vasprun.xml", step(0, **changes), step(1)))
    assert isinstance(bad, Rejected)
    assert isinstance(good, Frame)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(bad.reason)


@pytest.mark.parametrize(
    ("incar", "reason"),
    [
        ('<i type="int" name="ICHARG"> 11</i>', "self-consistent"),
        ('<i type="logical" name="LEPSILON"> T </i>', "linear-response"),
        ('<i type="int" name="IBRION"> 8</i>', "linear-response"),
    ],
)
def test_runs_that_are_no_ground_state_of_their_structure_are_quarantined(tmp_path, incar, reason):
    (item,) = read(write(tmp_path / "vasprun.xml", step(), incar=incar))
    assert reason in item.reason


def test_a_charged_cell_has_its_charge(tmp_path):
    (frame,) = read(write(tmp_path / "vasprun.xml", step(), electrons=17.0))
    assert frame.structure.charge == 1.0


def test_the_pv_of_pstress_is_taken_off_whether_or_not_the_energy_holds_it(tmp_path):
    pv = 16.02176634 / 1602.176634 * 64.0  # 0.64 eV: 16 kbar times 4·4·4 Å³
    incar = '<i name="PSTRESS"> 16.02176634</i>'
    for shift in (pv, 0.0):
        (frame,) = read(write(tmp_path / "vasprun.xml", step(shift=shift), incar=incar))
        assert frame.label.free_energy == pytest.approx(-16.0, abs=1e-8)
        assert frame.label.energy_zero == pytest.approx(-16.0625, abs=1e-8)
        assert frame.label.method.functional == "PBE"


def test_a_dispersion_energy_is_in_the_energies_and_in_the_method_even_if_no_setting_names_it(tmp_path):
    (frame,) = read(write(tmp_path / "vasprun.xml", step(shift=-3.0)))
    assert (frame.label.free_energy, frame.label.energy_zero) == (-19.0, -19.0625)
    assert frame.label.method.functional == "PBE+dispersion"
    incar = '<i type="int" name="IVDW"> 12</i>'
    (frame,) = read(write(tmp_path / "vasprun.xml", step(shift=-3.0), incar=incar))
    assert frame.label.method.functional == "PBE+D3(BJ)"


def test_a_cut_gzip_file_gives_the_steps_before_the_cut(tmp_path):
    whole = write(tmp_path / "vasprun.xml", *(step(number) for number in range(40))).read_bytes()
    packed = gzip.compress(whole)
    path = tmp_path / "vasprun.xml.gz"
    path.write_bytes(packed[: len(packed) * 3 // 4])
    frames = []
    with pytest.raises(IngestError, match="cut or damaged"):
        frames.extend(VasprunReader().frames(path, {}))
    assert len(frames) > 5
    assert all(isinstance(frame, Frame) for frame in frames)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<html><body/></html>", r"first element is <html>"),
        ('<!DOCTYPE modeling [<!ENTITY a "b">]><modeling>&a;</modeling>', "document type"),
        ("not XML at all", "line 1"),
        ("", "line 1"),
        ('<?xml version="1.0" encoding="InO-8859-1"?><modeling/>', r"vasprun.xml: line 1: .*encoding: InO-8859-1"),
        ('<?xml version="1.0" encoding="utf-7"?><modeling/>', r"vasprun.xml: line 1"),
    ],
)
def test_a_file_that_is_something_else_is_an_error_not_a_crash(tmp_path, text, message):
    path = tmp_path / "vasprun.xml"
    path.write_text(text)
    with pytest.raises(IngestError, match=message):
        read(path)


def test_the_runs_of_a_tree_are_named_by_their_folders_and_share_a_material(tmp_path):
    names = ("mp-1/relax1/vasprun.xml", "mp-1/relax2/vasprun.xml.gz")
    frames = [read(write(tmp_path / "f.xml", step(i)), file=name, source="tree")[0] for i, name in enumerate(names)]
    assert [frame.external_id for frame in frames] == ["mp-1/relax1-0", "mp-1/relax2-0"]
    assert {frame.material for frame in frames} == {"tree/mp-1/OZr"}


FILES = [
    ("chgnet-vasp/no-magmoms/vasprun.xml.gz", 49, "PBE+dispersion"),
    ("chgnet-vasp/with-magmoms/vasprun.xml.gz", 1, "PBE+D3"),
    ("dpdata-vasp/Ti-O-Ti-v6/vasprun.xml.gz", 1, "PBE"),
    ("dpdata-vasp/Ti-aimd-nwrite0/vasprun.xml.gz", 10, "PBE"),
    ("dpdata-vasp/vasprun.Ge.vdw.xml.gz", 1, "PBE"),
    ("dpdata-vasp/vasprun.h2o.md.10.xml.gz", 10, "PBE"),
    ("fairchem/27998_vasprun.xml.gz", 1, "RPBE"),
    ("phonopy-examples/Cr/vasprun.xml.xz", 1, "PBEsol"),
    ("phonopy-examples/NaCl/vasprun.xml-001.gz", 1, "PBE"),
]


@pytest.mark.parametrize(("name", "count", "functional"), FILES)
def test_real_files_agree_with_ase(shared_data, name, count, functional):

    frames = read(shared_data / name)
    assert len(frames) == count
    assert {frame.label.method.functional for frame in frames} == {functional}
    assert VasprunReader().claims(shared_data / name, plain_head(shared_data / name))
    whole = plain_head(shared_data / name, 1 << 30).decode("latin-1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = ase_read(StringIO(whole), index=":", format="vasp-xml")
    for frame, atoms in zip(frames, theirs, strict=True):
        assert frame.label.free_energy == pytest.approx(atoms.get_potential_energy(force_consistent=True), abs=1e-9)
        assert frame.label.energy_zero == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
        np.testing.assert_allclose(frame.structure.positions, atoms.positions, atol=1e-9)
        np.testing.assert_allclose(frame.label.forces, atoms.calc.results["forces"], atol=1e-12)
        assert frame.structure.atomic_numbers.tolist() == atoms.numbers.tolist()
        if "stress" in atoms.calc.results:
            np.testing.assert_allclose(frame.label.stress, atoms.get_stress(voigt=False), rtol=1e-6, atol=1e-6)
        else:
            assert frame.label.stress is None


@pytest.mark.parametrize(("old", "new"), [("<c>   1</c></rc>", "<c>one</c></rc>"), ("12.00000000", "twelve")])
def test_damaged_atoms_are_refused_step_by_step(tmp_path, old, new):
    path = write(tmp_path / "vasprun.xml", step(0), step(1))
    path.write_text(path.read_text().replace(old, new, 1))
    assert ["<atominfo>" in item.reason for item in read(path)] == [True, True]


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    path = write(tmp_path / "vasprun.xml", step(0), step(1))
    path.write_text(path.read_text().replace("0.5 0.5 0.25", "0.5 inf 0.25", 1))
    refused, taken = read(path)
    assert "positions holds a value that is not finite" in refused.reason
    assert isinstance(taken, Frame)

from contextlib import suppress
from typing import ClassVar

import numpy as np
import pytest

from mlipdb.errors import IngestError
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.readers.outcar import OutcarReader
from mlipdb.ingest.readers.vasprun import VasprunReader
from mlipdb.labels import Label, Method
from mlipdb.structures import make_structure
from mlipdb.testing.readers import ReaderConformance

HEAD = """ vasp.6.3.0 20Jan22 (build Apr 09 2022 18:33:31) complex
 executed on             LinuxIFC date 2022.11.21  12:00:00
 POTCAR:    PAW_PBE Zr_sv 04Jan2005
 POTCAR:    PAW_PBE O 08Apr2002
 POTCAR:    PAW_PBE Zr_sv 04Jan2005
   VRHFIN =Zr: 4s4p5s4d
   LEXCH  = PE
   TITEL  = PAW_PBE Zr_sv 04Jan2005
   POMASS =   91.224; ZVAL   =   12.000    mass and valenz
 POTCAR:    PAW_PBE O 08Apr2002
   VRHFIN =O: s2p4
   LEXCH  = PE
   TITEL  = PAW_PBE O 08Apr2002
   POMASS =   16.000; ZVAL   =    6.000    mass and valenz
   number of dos      NEDOS =    301   number of ions     NIONS =      3
   ions per type =   {counts}
   NELM   =      4;   NELMIN=  2; NELMDL= -5     # of ELM steps
   IBRION =      0    ionic relax: 0-MD 1-quasi-New 2-CG
   ICHARG =      2    charge: 1-file 2-atom 10-const
   METAGGA=      F    non-selfconsistent MetaGGA calc.
   POMASS =  91.22 16.00
   ZVAL   =  12.00  6.00
   NELECT =      24.0000    total number of electrons
   GGA     =    {gga}    GGA type
   LEXCH   =     8    internal setting for exchange type
{extra}
"""
ITERATION = """--------------------------------------- Iteration {step:6d}({count:4d})  ------------------------------
  free energy    TOTEN  =  {electronic:18.8f} eV
  energy without entropy =  -30.0  energy(sigma->0) =      -30.0
"""
CONVERGED = "------------------------ aborting loop because EDIFF is reached ---------------------------------\n"
BLOCK = """  FORCE on cell =-STRESS in cart. coord.  units (eV):
  Total       1.33798    -0.20684     0.29258     0.48006     1.38738    -0.02079
  in kB      16.00000    -8.00000     4.00000     1.00000     2.00000    -3.00000
  external pressure =        4.00 kB  Pullay stress =        0.00 kB
      direct lattice vectors                 reciprocal lattice vectors
     4.000000000  0.000000000  0.000000000     0.250000000  0.000000000  0.000000000
     0.000000000  5.000000000  0.000000000     0.000000000  0.200000000  0.000000000
     0.000000000-10.000000000 {c:12.9f}     0.000000000  0.000000000  0.125000000
 POSITION                                       TOTAL-FORCE (eV/Angst){title}
 -----------------------------------------------------------------------------------
      0.00000      0.00000      0.00000         0.125000     -0.250000      0.500000
      2.00000      2.50000      1.00000        -0.125000      0.250000     -0.500000   {nan}
      1.00000      1.00000{z}         0.000000   -100.000000{force}
 -----------------------------------------------------------------------------------
    total drift:                                0.001200      0.017895     -0.013715
"""
ENERGY = """  free  energy   TOTEN  =  {free:18.8f} eV{plus}

  energy  without entropy=      -29.50000000{plus}  energy(sigma->0) =  {zero:16.8f}{plus}
"""
LOOP = "     LOOP+:  cpu time      8.9493: real time      9.2371\n"
END = " General timing and accounting informations for this job:\n"
MAGMOMS = """ magnetization (x)

# of ion       s       p       d       tot
------------------------------------------
    1        0.001   0.002   0.500   0.503
    2        0.000   0.000   0.000  -0.000
    3        0.000   0.000   0.000   0.250
--------------------------------------------------
tot          0.001   0.002   0.500   0.753
"""
ML = """  ML FORCE on cell =-STRESS in cart. coord. units (eV/cell)
  in kB       9.00000     9.00000     9.00000     0.00000     0.00000     0.00000
      direct lattice vectors                 reciprocal lattice vectors
     9.000000000  0.000000000  0.000000000     0.250000000  0.000000000  0.000000000
     0.000000000  9.000000000  0.000000000     0.000000000  0.200000000  0.000000000
     0.000000000  0.000000000  9.000000000     0.000000000  0.000000000  0.125000000
  POSITION                                       TOTAL-FORCE (eV/Angst) (ML)
 -----------------------------------------------------------------------------------
      9.00000      9.00000      9.00000         9.000000      9.000000      9.000000
  ML FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)
  free  energy ML TOTEN  =        -9.00000000 eV
  ML energy  without entropy=       -9.00000000  ML energy(sigma->0) =       -9.00000000
"""


def step(number=1, *, iterations=2, converged=True, magmoms="", vdw=0.0, block=True, z="      3.00000", force=None):
    electronic = -30.0 - number / 8
    text = "".join(
        ITERATION.format(step=number, count=i, electronic=electronic + (i < iterations))
        for i in range(1, iterations + 1)
    )
    text += CONVERGED * converged + magmoms
    title, nan, plus = (",     FORCE-w/o vdW (eV/Angst)", "NaN NaN NaN", " eV    w/o vdW =  -1.5") if vdw else ("",) * 3
    if block:
        text += BLOCK.format(c=8.0 + number / 4, title=title, nan=nan, z=z, force=force or "      0.000000")
    return text + ENERGY.format(free=electronic + vdw, zero=electronic + vdw + 0.0625, plus=plus) + LOOP


def write(path, *steps, counts="1   2", gga="--", extra="", end=END):
    path.write_text(HEAD.format(counts=counts, gga=gga, extra=extra) + "".join(steps) + end)
    return path


def read(path, **options):
    return list(OutcarReader().frames(path, options))


class TestOutcar(ReaderConformance):
    reader = OutcarReader()
    options: ClassVar = {"file": "OUTCAR"}

    def sample(self, folder):
        return write(folder / "OUTCAR", *(step(number, magmoms=MAGMOMS) for number in range(1, 8)))

    def first_frame(self):
        structure = make_structure(
            [40, 8, 8],
            [[0, 0, 0], [2, 2.5, 1], [1, 1, 3]],
            cell=[[4, 0, 0], [0, 5, 0], [0, -10, 8.25]],
            pbc=(True, True, True),
            charge=0.0,
        )
        kbar = -0.1 / 160.2176634  # VASP prints XX YY ZZ XY YZ ZX in kbar, compression positive
        label = Label(
            energy_uncorrected=-30.125,
            free_energy=-30.125,
            energy_zero=-30.0625,
            forces=np.array([[0.125, -0.25, 0.5], [-0.125, 0.25, -0.5], [0, -100, 0]]),
            stress=np.array([[16.0, 1.0, -3.0], [1.0, -8.0, 2.0], [-3.0, 2.0, 4.0]]) * kbar,
            magmoms=np.array([0.503, 0.0, 0.25]),
            method=Method(kind="dft", name="PBE/VASP", code="VASP", functional="PBE"),
        )
        return Frame(structure=structure, label=label, external_id="OUTCAR-0", material="outcar/O2Zr", location="")


BAD = [
    ({"iterations": 4}, "not converged: 4 electronic steps of NELM = 4"),
    ({"converged": False}, "not converged"),
    ({"block": False}, "NWRITE = 0"),
    ({"force": "***************"}, "stars"),
    ({"z": " ************"}, "stars"),
    ({"magmoms": MAGMOMS.replace("    2        0.000   0.000   0.000  -0.000\n", "\n")}, "expected 1 numbers"),
]


@pytest.mark.parametrize(("changes", "reason"), BAD)
def test_a_step_that_cannot_be_trusted_is_quarantined_and_the_next_is_read(tmp_path, changes, reason):
    bad, good = read(write(tmp_path / "OUTCAR", step(1, **changes), step(2)))
    assert isinstance(bad, Rejected)
    assert reason in bad.reason
    assert isinstance(good, Frame)
    assert good.external_id == "OUTCAR-1"


@pytest.mark.parametrize("counts", ["1", "1   1", "1   2   1"])
def test_where_the_list_of_ions_is_cut_nothing_is_guessed(tmp_path, counts):
    (item,) = read(write(tmp_path / "OUTCAR", step(), counts=counts))
    assert "'ions per type' lists" in item.reason
    assert "vasprun.xml" in item.reason


def test_energies_of_a_dispersion_run_are_those_with_dispersion(tmp_path):
    (frame,) = read(write(tmp_path / "OUTCAR", step(vdw=-2.0)))
    assert (frame.label.free_energy, frame.label.energy_zero) == (-32.125, -32.0625)
    assert frame.label.method.functional == "PBE+dispersion"
    (frame,) = read(write(tmp_path / "OUTCAR", step(vdw=-2.0), extra="  IVDW =  12"))
    assert frame.label.method.functional == "PBE+D3(BJ)"


@pytest.mark.parametrize(
    ("changes", "functional"),
    [
        ({"gga": "RP"}, "RPBE"),
        ({"extra": " METAGGA = SCAN     LMAXTAU =  0    LMIXTAU =  F"}, "SCAN"),
        ({"extra": " LDA+U is selected, type is set to LDAUTYPE =  2\n   U (eV)  LDAUU =   3.9  0.0"}, "PBE+U"),
    ],
)
def test_the_head_names_the_functional(tmp_path, changes, functional):
    (frame,) = read(write(tmp_path / "OUTCAR", step(), **changes))
    assert frame.label.method.functional == functional


def test_moments_of_a_run_with_spin_orbit_coupling_are_vectors_and_not_taken(tmp_path):
    extra = "   LNONCOLLINEAR =      T non collinear calculations\n   LSORBIT =      T    spin-orbit coupling"
    notes = []
    (frame,) = read(write(tmp_path / "OUTCAR", step(magmoms=MAGMOMS), extra=extra), notes=notes)
    assert (frame.label.method.functional, frame.label.magmoms) == ("PBE+SOC", None)
    assert "moments of non-collinear runs" in notes[0]


def test_predictions_of_vasps_own_force_field_are_never_taken_for_dft(tmp_path):
    items = read(write(tmp_path / "OUTCAR", ML, step(1) + ML, ML + LOOP, step(2), ML + LOOP, LOOP))
    assert [type(item) for item in items] == [Frame, Rejected, Frame, Rejected]
    assert all("machine-learned" in item.reason for item in items if isinstance(item, Rejected))
    assert items[0].label.free_energy == -30.125
    assert items[0].structure.cell[0, 0] == 4.0


def test_a_run_that_was_stopped_gives_its_whole_steps_and_an_error_with_the_line(tmp_path):
    path = write(tmp_path / "OUTCAR", step(1), step(2).partition("  free  energy")[0], end="")
    frames = []
    with pytest.raises(IngestError, match=r"line \d+: VASP's closing account is missing"):
        frames.extend(OutcarReader().frames(path, {}))
    assert [frame.external_id for frame in frames] == ["OUTCAR-0"]


PAIRS = [
    ("chgnet-vasp/no-magmoms/vasprun.xml.gz", "chgnet-vasp/no-magmoms/OUTCAR.gz"),
    ("chgnet-vasp/with-magmoms/vasprun.xml.gz", "chgnet-vasp/with-magmoms/OUTCAR.gz"),
    ("dpdata-vasp/Ti-O-Ti-v6/vasprun.xml.gz", "dpdata-vasp/Ti-O-Ti-v6/OUTCAR.gz"),
    ("dpdata-vasp/Ti-aimd-nwrite0/vasprun.xml.gz", "dpdata-vasp/Ti-aimd-nwrite0/OUTCAR.gz"),
    ("dpdata-vasp/vasprun.Ge.vdw.xml.gz", "dpdata-vasp/OUTCAR.Ge.vdw.gz"),
    ("dpdata-vasp/vasprun.h2o.md.10.xml.gz", "dpdata-vasp/OUTCAR.h2o.md.10.gz"),
]


@pytest.mark.parametrize(("vasprun", "outcar"), PAIRS)
def test_vasprun_and_outcar_of_one_run_agree(shared_data, vasprun, outcar):
    pairs = list(zip(VasprunReader().frames(shared_data / vasprun, {}), read(shared_data / outcar), strict=True))
    both = [(one, other) for one, other in pairs if isinstance(other, Frame)]
    assert both
    for one, other in both:
        assert one.structure.atomic_numbers.tolist() == other.structure.atomic_numbers.tolist()
        np.testing.assert_allclose(one.structure.cell, other.structure.cell, atol=1e-8)
        fractional = (one.structure.positions - other.structure.positions) @ np.linalg.inv(one.structure.cell)
        apart = (fractional - np.round(fractional)) @ one.structure.cell
        np.testing.assert_allclose(apart, 0, atol=1e-5)  # OUTCAR prints five decimals
        np.testing.assert_allclose(one.label.forces, other.label.forces, atol=1e-6)
        np.testing.assert_allclose(one.label.stress, other.label.stress, atol=1e-8)
        assert one.label.free_energy == other.label.free_energy
        assert one.label.energy_zero == pytest.approx(other.label.energy_zero, abs=1e-7)
    for _, refused in pairs:
        assert isinstance(refused, Frame) or "NWRITE" in refused.reason


@pytest.mark.parametrize(
    ("name", "taken", "reasons"),
    [
        ("dpdata-vasp/OUTCAR.ch4.unconverged.gz", 1, ["not converged"] * 2),
        ("dpdata-vasp/OUTCAR.ch4.ml.gz", 4, ["machine-learned"] * 5),
        ("dpdata-vasp/outcar.longit/OUTCAR.gz", 0, ["VASP cuts the list"]),
        ("dpdata-vasp/Ti-aimd-nwrite0/OUTCAR.gz", 2, ["NWRITE = 0"] * 8),
    ],
)
def test_awkward_real_files_are_right_or_refused(shared_data, name, taken, reasons):
    items = read(shared_data / name)
    refused = [item.reason for item in items if isinstance(item, Rejected)]
    assert len(items) - len(refused) == taken
    assert len(refused) == len(reasons)
    assert all(word in reason for word, reason in zip(reasons, refused, strict=True))


def test_a_real_run_that_was_cut_gives_both_its_steps(shared_data):
    frames = []
    with pytest.raises(IngestError, match="line 3090"):
        frames.extend(OutcarReader().frames(shared_data / "dpdata-vasp/6362_OUTCAR.gz", {}))
    assert [frame.label.free_energy for frame in frames] == [-98.45281044, -98.49812024]


def test_the_ten_hafnia_files_are_scan_as_their_heads_say(shared_data):
    files = sorted((shared_data / "sevennet/OUTCARs").rglob("OUTCAR_*.gz"))
    frames = [frame for file in files for frame in read(file)]
    assert len(frames) == 10
    assert {frame.label.method.functional for frame in frames} == {"SCAN"}


@pytest.mark.parametrize("ions", ["0", "99999999999999999999", "NaN", "-3"])
def test_a_damaged_number_of_ions_is_refused_at_once(tmp_path, ions):
    path = write(tmp_path / "OUTCAR", step(1), step(2))
    path.write_text(path.read_text().replace("NIONS =      3", f"NIONS = {ions}"))
    with suppress(IngestError):
        assert all(isinstance(item, Rejected) for item in OutcarReader().frames(path, {}))

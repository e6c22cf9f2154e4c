import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlipdb.errors import ConfigError, LabelError, MissingExtraError, MlipdbError, TeacherError
from mlipdb.labelling import Flush, LabelOptions, NamedTeacher, label, unit
from mlipdb.labelling.foreign import ForeignTeacher
from mlipdb.labelling.load import load_teacher
from mlipdb.labelling.teacher import LabelRequest, TeacherOptions
from mlipdb.structures import StructureError, make_structure
from mlipdb.testing.teachers import TeacherConformance, crystal, molecule

PYTHON = Path(sys.executable)
LJ, EMT = "ase:ase.calculators.lj.LennardJones", "ase:ase.calculators.emt.EMT"
SETTINGS = {"sigma": "0.9", "epsilon": "0.1", "rc": "4", "smooth": "true"}
HERE = TeacherOptions(step=1e-3, settings=SETTINGS)
NO_ROWS = np.zeros(0, np.int32)

# It prints while it is imported and while it works, as packages do; it forgets itself on four atoms and has no room for
# five.
NOISY = """
import os
import subprocess
import time
from ase.calculators.lj import LennardJones

print("NOISY v1.0 initialised", flush=True)


class Noisy(LennardJones):
    def calculate(self, atoms=None, *rest):
        print("working", flush=True)
        os.write(1, b"from C")
        if len(atoms) == 3:
            time.sleep(0.5)
        if len(atoms) == 4:
            os.write(2, b"terminate called after throwing an instance of 'c10::Error'")
            os._exit(3)
        if len(atoms) == 5:
            raise MemoryError("five atoms")
        super().calculate(atoms, *rest)
"""


@pytest.fixture(scope="module")
def worker():
    teacher = load_teacher(LJ, replace(HERE, worker_python=PYTHON))
    yield teacher
    teacher.close()


@pytest.fixture
def noisy(tmp_path, monkeypatch):
    (tmp_path / "noisy.py").write_text(NOISY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    teacher = ForeignTeacher("ase:noisy.Noisy", TeacherOptions(), python=PYTHON)
    yield teacher
    teacher.close()


def base(teacher, structure):
    return teacher.label([structure], LabelRequest(base=True, hessian_row_numbers=[NO_ROWS]))[0]


def atoms(count):
    return make_structure([18] * count, 3.0 * np.arange(3 * count).reshape(count, 3))


def alive(pid):
    """Whether the process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid, *, within=20.0):
    end = time.monotonic() + within
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


class TestForeign(TeacherConformance):
    """The conformance suite of Lennard-Jones through the pipes."""

    force_tolerance = 1e-5
    stress_tolerance = 1e-6
    hessian_tolerance = 5e-3
    foreign = None

    @pytest.fixture(autouse=True)
    def keep(self, worker):
        self.kept = worker

    def teacher(self):
        return self.kept


def test_labels_and_method_are_those_of_the_same_teacher_here(worker):
    here = load_teacher(LJ, HERE)
    request = LabelRequest(base=True, hessian_row_numbers=[np.array([2, 0], np.int32), NO_ROWS])
    structures = [crystal(), molecule()]
    for one, other in zip(here.label(structures, request), worker.label(structures, request), strict=True):
        assert one.content_hash == other.content_hash
    assert worker.info == here.info
    assert worker.info.method() == here.info.method()
    assert worker.batch_limits == here.batch_limits
    assert worker.worker_pid != os.getpid()


def test_the_runner_stores_what_a_worker_gives_and_its_failures(db, ids):
    teacher = load_teacher(EMT, TeacherOptions(worker_python=PYTHON))  # covers H, C, O and not Si
    report = label(db, teacher, ids=ids)
    teacher.close()
    assert report.labelled + report.failed == 40
    silicon = {key for key in ids.tolist() if 14 in db.structure(key).composition}
    assert report.failed == len(silicon) > 0
    assert "No EMT-potential for Si" in report.reasons[0][1]


def test_errors_come_back_as_the_errors_that_they_are(worker, noisy):
    emt = load_teacher(EMT, TeacherOptions(worker_python=PYTHON))
    with pytest.raises(LabelError, match="No EMT-potential for Si"):
        base(emt, crystal())
    assert base(emt, molecule()).energy_uncorrected is not None  # and it goes on
    emt.close()
    with pytest.raises(MemoryError, match="five atoms"):
        base(noisy, atoms(5))


def test_errors_of_a_structure_and_of_a_package_are_told_apart_on_this_side(worker):
    of_structure = worker._worker._error("StructureError", "lattice vectors [0, 1] are parallel")
    of_package = worker._worker._error("builtins.IndexError", "index 0 is out of bounds")
    assert isinstance(of_structure, StructureError)
    assert isinstance(of_package, TeacherError)
    assert "builtins.IndexError: index 0" in str(of_package)


def test_what_a_package_prints_does_not_get_between_the_messages(noisy):
    assert base(noisy, atoms(2)).forces.shape == (2, 3)


def test_a_worker_that_dies_is_an_error_that_names_it_and_its_last_words(noisy):
    with pytest.raises(MlipdbError) as caught:
        base(noisy, atoms(4))
    said = str(caught.value)
    for part in ("ase:noisy.Noisy", f"process {noisy.worker_pid} of {PYTHON}", "exit code 3", "'label'", "c10::Error"):
        assert part in said
    assert not isinstance(caught.value, LabelError)  # which would be put down to the structure
    with pytest.raises(MlipdbError, match="is closed; load the teacher again"):
        base(noisy, atoms(2))


def test_a_worker_that_is_killed_is_an_error_with_the_signal(noisy):
    os.kill(noisy.worker_pid, signal.SIGKILL)
    with pytest.raises(MlipdbError, match=r"signal 9.*too little memory"):
        base(noisy, atoms(2))


@pytest.fixture
def threads():
    """A long-lived executor whose worker keeps its teacher between units."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


def test_a_killed_worker_costs_its_unit_and_the_next_one_gets_a_fresh_worker(db, threads):
    """Of an executor: one that was killed while nothing was asked of it, and one that is killed at work."""
    load = NamedTeacher(name=LJ, options=replace(HERE, worker_python=PYTHON))
    options = LabelOptions(flush=Flush(records=4), workers=1)
    assert label(db, load, ids=np.arange(1, 5), executor=threads, options=options).labelled == 4
    first = unit._worker.teacher_of(load)
    os.kill(first.worker_pid, signal.SIGKILL)
    first._worker._process.wait()
    assert label(db, load, ids=np.arange(1, 9), executor=threads, options=options).labelled == 4
    second = unit._worker.teacher_of(load)

    def kill(progress):
        if progress.done == 4 and second.alive:
            os.kill(second.worker_pid, signal.SIGKILL)

    report = label(db, load, ids=np.arange(1, 25), executor=threads, options=options, progress=kill)
    assert (report.labelled, report.failed) == (16, 0)
    assert not second.alive


def test_a_structure_that_ends_two_workers_is_a_failed_row(db, threads, tmp_path, monkeypatch):
    (tmp_path / "noisy.py").write_text(NOISY.replace("len(atoms) == 4", "len(atoms) == 4 and 14 in atoms.numbers"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    deadly = [key for key in range(1, 41) if len(db.structure(key)) == 4 and 14 in db.structure(key).composition][:1]
    harmless = [key for key in range(1, 41) if len(db.structure(key)) < 3][:3]
    load = NamedTeacher(name="ase:noisy.Noisy", options=TeacherOptions(worker_python=PYTHON))
    ids = np.array(sorted(deadly + harmless))
    report = label(db, load, ids=ids, executor=threads, options=LabelOptions(flush=Flush(records=4), workers=1))
    assert (report.labelled, report.failed) == (3, 1)
    assert report.reasons[0][0] == deadly[0]
    assert "two workers were lost" in report.reasons[0][1]


def test_a_worker_ends_with_its_teacher():
    teacher = load_teacher(LJ, replace(HERE, worker_python=PYTHON))
    pid = teacher.worker_pid
    assert alive(pid)
    del teacher
    assert gone(pid)


def test_a_worker_ends_when_the_process_that_started_it_is_killed():
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from mlipdb.labelling import TeacherOptions, load_teacher\n"
        f"teacher = load_teacher({LJ!r}, TeacherOptions(worker_python=Path(sys.executable)))\n"
        "print(teacher.worker_pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        pid = int(owner.stdout.readline())
        assert alive(pid)
        owner.kill()
    assert gone(pid)


def test_an_answer_that_was_not_waited_for_is_never_taken_for_the_next(noisy):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.25)
    try:
        with pytest.raises(KeyboardInterrupt):
            base(noisy, atoms(3))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(MlipdbError, match="is closed"):
        base(noisy, atoms(2))


def test_an_environment_without_mlipdb_says_what_to_run(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    with pytest.raises(ConfigError, match=r"bare/bin/python -m pip install mlipdb.*No module named 'mlipdb'"):
        load_teacher(LJ, TeacherOptions(worker_python=python))


def test_a_python_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere.*No such file"):
        load_teacher(LJ, TeacherOptions(worker_python=tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("name", "error"), [("nequix-mp1", ConfigError), ("ase:no_such_package.Calculator", MissingExtraError)]
)
def test_a_teacher_that_the_other_environment_cannot_load_is_its_error(name, error):
    with pytest.raises(error):
        load_teacher(name, TeacherOptions(worker_python=PYTHON))


def test_weights_and_cache_arrive_as_paths(tiny_nqx, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_nqx.parent)
    options = TeacherOptions(weights=Path(tiny_nqx.name), cache=tmp_path, offline=True, worker_python=PYTHON)
    teacher = load_teacher("nequix", options)
    assert teacher.info == load_teacher("nequix", replace(options, worker_python=None)).info
    teacher.close()

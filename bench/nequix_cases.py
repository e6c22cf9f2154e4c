"""What both sides of bench/nequix_step.py work on: needs ASE and NumPy only, since two environments import it."""

import time

import ase.build
import ase.io
import numpy as np

ENERGY = -60.0
WEIGHTS = (20.0, 20.0, 5.0)


def rock_salts():
    """Eight rattled cells of 16 atoms, and forces to fit."""
    rng = np.random.default_rng(0)
    salts, forces = [], []
    for symbol, a in [("NaCl", 5.6), ("MgO", 4.2), ("LiF", 4.0), ("KBr", 6.6)] * 2:
        salt = ase.build.bulk(symbol, "rocksalt", a=a, cubic=True) * (1, 1, 2)
        salt.rattle(0.05, seed=len(salts))
        salts.append(salt)
        forces.append(rng.normal(size=(len(salt), 3)))
    return salts, forces


def hessian_crystal():
    """Eight atoms, 24 rows."""
    atoms = ase.build.bulk("NaCl", "rocksalt", a=5.64) * (2, 2, 1)
    atoms.rattle(0.02, seed=2)
    return atoms


def crystals(path, *, count=50, largest=12):
    """The first small crystals of an extended XYZ file."""
    found = (atoms for atoms in ase.io.iread(path) if len(atoms) <= largest and atoms.pbc.all())
    return [atoms for atoms, _ in zip(found, range(count), strict=False)]


def seconds(function, repeats=5):
    """Median of the CPU seconds of a few runs, which other work on the machine hardly changes."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return float(np.median(times))


def report(path, times, results):
    """Times and the arrays of each crystal, for the program that compares."""
    arrays = {f"{name}_{index}": value for index, result in enumerate(results) for name, value in result.items()}
    np.savez(path, **{f"time_{name}": value for name, value in times.items()}, **arrays)

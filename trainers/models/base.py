"""What a model is: atomic interaction energies from a graph and its edge vectors."""

import abc

import equinox as eqx
from jaxtyping import Array, Float
from mlipdb.trainers.graph import AtomicGraph


class AbstractForceField(eqx.Module):
    """A conservative model. It gives atomic energies; forces, stress and Hessian rows are derived in derive.py.

    e0 is the energy of each isolated atom in eV, in the order of atomic_numbers (ascending); the model's output does
    not contain it. cutoff is in Å. The graph's edges must be all pairs within the cutoff, images included.
    """

    cutoff: eqx.AbstractVar[float]
    atomic_numbers: eqx.AbstractVar[tuple[int, ...]]
    e0: eqx.AbstractVar[Float[Array, " species"]]

    @abc.abstractmethod
    def __call__(self, graph: AtomicGraph, edge_vectors: Float[Array, "edges 3"]) -> Float[Array, " atoms"]:
        """Interaction energy of each atom in eV, 0 on padding atoms; differentiable twice in the edge vectors."""

"""A padded batch of structures as one graph: what every model reads."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int

TARGET, REPLAY = 0, 1  # heads of a fine-tuning: of what is learnt, and of what is not to be forgotten
Leaf = Any  # a numpy array while the batch is made on the host, a JAX array on the device


@dataclass(frozen=True, kw_only=True)
class GraphNeeds:
    """What a model wants of the edges beside all pairs within its cutoff; the default is nothing.

    max_neighbours keeps the nearest of each receiver, with those as far as the last one, and, where symmetric, the
    edges that their senders keep: the order of atoms and the choice of cell change nothing. symmetric asks for
    AtomicGraph.reverse, triplets for AtomicGraph.triplets.
    """

    max_neighbours: int | None = None
    symmetric: bool = False
    triplets: bool = False


NO_NEEDS = GraphNeeds()


class Triplets(eqx.Module):
    """Pairs of edges that end in one atom: edge_out is c→a, edge_in is b→a, another edge; b may be an image of c.

    Sorted by edge_out, then by edge_in. Padding pairs the last edge with itself.
    """

    edge_in: Int[Leaf, " triplets"]
    edge_out: Int[Leaf, " triplets"]
    mask: Bool[Leaf, " triplets"]


class AtomicGraph(eqx.Module):
    """Structures of a batch joined into one graph, padded to a fixed shape.

    Edge e goes from senders[e] to receivers[e]; its vector is positions[sender] - positions[receiver]
    + shifts[e] @ cell, in Å. Edges are sorted by receiver. Padding: the last atom, the last graph (and any beyond
    those in use) are padding; padding atoms have atomic number 0 and belong to the last graph, padding edges join the
    last atom to itself with shift 0. periodic is True where a graph repeats in three directions, that is, where
    stress exists. reverse[e] is the edge from receivers[e] to senders[e] by the opposite shift, a padding edge's is
    itself; reverse and triplets are there for models that need them. head is the readout of each graph where a model
    has several; None where all are of the first.
    """

    atomic_numbers: Int[Leaf, " atoms"]
    positions: Float[Leaf, "atoms 3"]
    cell: Float[Leaf, "graphs 3 3"]
    senders: Int[Leaf, " edges"]
    receivers: Int[Leaf, " edges"]
    shifts: Float[Leaf, "edges 3"]
    atom_graph: Int[Leaf, " atoms"]
    atom_mask: Bool[Leaf, " atoms"]
    edge_mask: Bool[Leaf, " edges"]
    graph_mask: Bool[Leaf, " graphs"]
    periodic: Bool[Leaf, " graphs"]
    atom_count: Int[Leaf, " graphs"]
    reverse: Int[Leaf, " edges"] | None = None
    triplets: Triplets | None = None
    head: Int[Leaf, " graphs"] | None = None


class Prediction(eqx.Module):
    """What a model says of a graph. Energies are interaction energies: E0 is not inside.

    energy eV per graph; atomic_energies eV; forces eV/Å; stress eV/Å³, positive under tension, 0 where a graph is not
    periodic. All are 0 on padding. has_stress is False for models that give none: stress is 0 then, and means nothing.
    """

    energy: Float[Array, " graphs"]
    atomic_energies: Float[Array, " atoms"]
    forces: Float[Array, "atoms 3"]
    stress: Float[Array, "graphs 3 3"]
    has_stress: bool = eqx.field(static=True, default=True)


class Targets(eqx.Module):
    """Labels of a batch, each with a mask; a masked value is 0 and never used.

    energy and atomic_energies are interaction energies (the student's E0 was taken off in float64 on the host).
    hessian_dofs[k, g] is the degree of freedom 3·atom + axis, counted over the atoms of the whole batch, whose row is
    the k-th of graph g; hessian_rows[k] holds those rows side by side, zero on atoms of graphs without a k-th row.
    """

    energy: Float[Leaf, " graphs"]
    has_energy: Bool[Leaf, " graphs"]
    forces: Float[Leaf, "atoms 3"]
    has_forces: Bool[Leaf, " graphs"]
    stress: Float[Leaf, "graphs 3 3"]
    has_stress: Bool[Leaf, " graphs"]
    atomic_energies: Float[Leaf, " atoms"]
    has_atomic_energies: Bool[Leaf, " graphs"]
    hessian_dofs: Int[Leaf, "rows graphs"]
    hessian_rows: Float[Leaf, "rows atoms 3"]
    has_hessian_row: Bool[Leaf, "rows graphs"]


class Batch(eqx.Module):
    """A graph and its labels."""

    graph: AtomicGraph
    targets: Targets

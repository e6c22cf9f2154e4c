"""Forces, stress and Hessian rows of any model, as derivatives by the edge vectors.

Of a conservative model everything is derived from its energy. Of a direct model, whose forces are its own, only the
Hessian rows are derived, from the forces, and there is no stress.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mlipdb.trainers.graph import AtomicGraph, Prediction
from mlipdb.trainers.models.base import AbstractDirectModel, AbstractForceField, AbstractModel

ROWS_AT_ONCE = 8  # a fifth less time than one by one where a model works in parts; elsewhere no less, and more memory
HIGHEST = jax.lax.Precision.HIGHEST
EdgeVectors = Float[Array, "edges 3"]
Forces = Float[Array, "atoms 3"]


def edge_vectors(graph: AtomicGraph) -> EdgeVectors:
    """Vector from receiver to sender of each edge in Å; zero on padding edges."""
    cell = graph.cell[graph.atom_graph[graph.receivers]]
    images = jnp.einsum("ei,eij->ej", graph.shifts, cell, precision=HIGHEST)
    vectors: EdgeVectors = graph.positions[graph.senders] - graph.positions[graph.receivers] + images
    return vectors


def gives_stress(model: AbstractModel) -> bool:
    """Whether predict says anything of stress: a direct model's forces are no derivative, so that it has none."""
    return isinstance(model, AbstractForceField)


def predict(model: AbstractModel, graph: AtomicGraph) -> Prediction:
    """Energies, forces and stress of a batch from one evaluation and, of a conservative model, one gradient.

    The stress is the derivative of the energy by symmetric strain over the volume, positive under tension; a direct
    model has none.
    """
    vectors = edge_vectors(graph)
    if isinstance(model, AbstractDirectModel):
        forces, atomic_energies = _direct_forces(model, graph)(vectors)
        return _direct_prediction(graph, atomic_energies=atomic_energies, forces=forces)
    gradient, atomic_energies = _edge_gradient(model, graph)(vectors)
    return _prediction(graph, vectors, atomic_energies=atomic_energies, gradient=gradient)


def suitable_rows_at_once(model: AbstractModel, graph: AtomicGraph) -> int:
    """How many Hessian rows of such a graph go best through the model together."""
    return ROWS_AT_ONCE if isinstance(model, AbstractForceField) and model.works_in_parts(graph) else 1


def hessian_rows(
    model: AbstractModel, graph: AtomicGraph, dofs: Int[Array, "rows graphs"], *, rows_at_once: int = 1
) -> Float[Array, "rows atoms 3"]:
    """Row +d²E/dx_r dx of the Hessian in eV/Å² for each degree of freedom r asked for; zero where none is.

    Of a direct model it is -dF_r/dx, the change of one force component by all positions. dofs[k, g] is 3·atom + axis
    of the k-th row of graph g, counted over the atoms of the whole batch; a negative number asks for nothing. Rows of
    different graphs do not meet, so the k-th rows of all graphs cost one product. Memory grows with rows_at_once, not
    with the number of rows.
    """
    return predict_with_rows(model, graph, dofs, rows_at_once=rows_at_once)[1]


def predict_with_rows(
    model: AbstractModel,
    graph: AtomicGraph,
    dofs: Int[Array, "rows graphs"],
    *,
    rows_at_once: int = 1,
    written_out: bool = False,
) -> tuple[Prediction, Float[Array, "rows atoms 3"]]:
    """Both predict and hessian_rows; the model is evaluated once for all of it.

    written_out makes rows without a loop: less work and memory where the rows themselves are differentiated, and meant
    for few of them.
    """
    few = written_out and len(dofs) > 0
    at_once = max(1, len(dofs) if few else min(rows_at_once, len(dofs)))
    if isinstance(model, AbstractForceField):
        model = model.for_rows(at_once)
        if few and (len(dofs) == 1 or model.works_in_parts(graph)):
            return _predict_with_all_rows(model, graph, dofs)
    vectors = edge_vectors(graph)
    if isinstance(model, AbstractDirectModel):
        forces, pull, atomic_energies = jax.vjp(_direct_forces(model, graph), vectors, has_aux=True)
        prediction = _direct_prediction(graph, atomic_energies=atomic_energies, forces=forces)
    else:
        gradient, along, atomic_energies = jax.linearize(_edge_gradient(model, graph), vectors, has_aux=True)
        prediction = _prediction(graph, vectors, atomic_energies=atomic_energies, gradient=gradient)

    def row(numbers: Int[Array, " graphs"]) -> Forces:
        chosen = _one_hot(graph, numbers)
        if isinstance(model, AbstractDirectModel):  # reverse: the row of a matrix that is not symmetric
            return 0.0 - _onto_atoms(graph, pull(chosen)[0])
        return _onto_atoms(graph, along(_by_edge(graph, chosen)))  # forward: it is cheaper

    if few:
        return prediction, jnp.stack([row(numbers) for numbers in jnp.asarray(dofs)])
    return prediction, jax.lax.map(row, jnp.asarray(dofs), batch_size=at_once)


def _predict_with_all_rows(
    model: AbstractForceField, graph: AtomicGraph, dofs: Int[Array, "rows graphs"]
) -> tuple[Prediction, Float[Array, "rows atoms 3"]]:
    """The gradient and its change along every row in one pass, which keeps nothing for further rows.

    What linearize keeps of a model that works in parts is everything that was to be made anew part by part.
    """
    vectors, gradient = edge_vectors(graph), _edge_gradient(model, graph)

    def changed(numbers: Int[Array, " graphs"]) -> tuple[EdgeVectors, Forces, Float[Array, " atoms"]]:
        move = _by_edge(graph, _one_hot(graph, numbers))
        slopes, change, atomic_energies = jax.jvp(gradient, (vectors,), (move,), has_aux=True)
        return slopes, _onto_atoms(graph, change), atomic_energies

    if len(dofs) == 1:
        slopes, row, atomic_energies = changed(dofs[0])
        rows = row[None]
    else:
        slopes, rows, atomic_energies = jax.vmap(changed, out_axes=(None, 0, None))(jnp.asarray(dofs))
    return _prediction(graph, vectors, atomic_energies=atomic_energies, gradient=slopes), rows


def _direct_forces(
    model: AbstractDirectModel, graph: AtomicGraph
) -> Callable[[EdgeVectors], tuple[Forces, Float[Array, " atoms"]]]:
    """The function from edge vectors to the model's forces in eV/Å, with the atomic energies beside them."""

    def forces(vectors: EdgeVectors) -> tuple[Forces, Float[Array, " atoms"]]:
        found = model(graph, vectors)
        shown = jnp.where(graph.atom_mask[:, None], found.forces, 0.0)
        return shown, jnp.where(graph.atom_mask, found.atomic_energies, 0.0)

    return forces


def _direct_prediction(graph: AtomicGraph, *, atomic_energies: Float[Array, " atoms"], forces: Forces) -> Prediction:
    return Prediction(
        energy=_sum_by_graph(atomic_energies, graph),
        atomic_energies=atomic_energies,
        forces=forces,
        stress=jnp.zeros_like(graph.cell),
        has_stress=False,
    )


def _edge_gradient(
    model: AbstractModel, graph: AtomicGraph
) -> Callable[[EdgeVectors], tuple[EdgeVectors, Float[Array, " atoms"]]]:
    """The function from edge vectors to dE/d(edge vector) in eV/Å, with the atomic energies beside it."""
    if not isinstance(model, AbstractForceField):
        raise TypeError(f"{type(model).__name__} is neither an AbstractForceField nor an AbstractDirectModel")

    def total(vectors: EdgeVectors) -> tuple[Float[Array, ""], Float[Array, " atoms"]]:
        atomic_energies = jnp.where(graph.atom_mask, model(graph, vectors), 0.0)
        return atomic_energies.sum(), atomic_energies

    return jax.grad(total, has_aux=True)


def _prediction(
    graph: AtomicGraph,
    vectors: EdgeVectors,
    *,
    atomic_energies: Float[Array, " atoms"],
    gradient: EdgeVectors,
) -> Prediction:
    return Prediction(
        energy=_sum_by_graph(atomic_energies, graph),
        atomic_energies=atomic_energies,
        forces=0.0 - _onto_atoms(graph, gradient),  # not a minus sign: an isolated atom would show -0.0
        stress=_stress(graph, vectors, gradient),
    )


def _onto_atoms(graph: AtomicGraph, gradient: EdgeVectors) -> Float[Array, "atoms 3"]:
    """The derivative by positions from that by edge vectors: plus where an atom sends, minus where it receives."""
    gradient = jnp.where(graph.edge_mask[:, None], gradient, 0.0)
    count = len(graph.atom_mask)
    sent = jax.ops.segment_sum(gradient, graph.senders, count)
    received = jax.ops.segment_sum(gradient, graph.receivers, count, indices_are_sorted=True)
    return sent - received


def _stress(graph: AtomicGraph, vectors: EdgeVectors, gradient: EdgeVectors) -> Float[Array, "graphs 3 3"]:
    """Σ r ⊗ dE/dr, made symmetric, over the volume; zero where a graph has no volume."""
    edges = jnp.where(graph.edge_mask[:, None, None], vectors[:, :, None] * gradient[:, None, :], 0.0)
    graph_of_edge = graph.atom_graph[graph.receivers]
    virial = jax.ops.segment_sum(edges, graph_of_edge, len(graph.graph_mask), indices_are_sorted=True)
    shown = graph.periodic & graph.graph_mask
    first, second, third = jnp.unstack(graph.cell, axis=1)
    volume = jnp.where(shown, jnp.abs((first * jnp.cross(second, third)).sum(axis=1)), 1.0)
    return jnp.where(shown[:, None, None], (virial + virial.mT) / (2.0 * volume[:, None, None]), 0.0)


def _one_hot(graph: AtomicGraph, dofs: Int[Array, " graphs"]) -> Float[Array, "atoms 3"]:
    """One at each degree of freedom asked for; padding graphs and negative numbers ask for nothing."""
    count = 3 * len(graph.atom_mask)
    wanted = jnp.where((dofs >= 0) & graph.graph_mask, dofs, count)
    flat = jnp.zeros(count, dtype=graph.positions.dtype).at[wanted].set(1.0, mode="drop")
    return flat.reshape(-1, 3)


def _by_edge(graph: AtomicGraph, moves: Forces) -> EdgeVectors:
    """How edge vectors change as atoms move."""
    return moves[graph.senders] - moves[graph.receivers]


def _sum_by_graph(values: Float[Array, " atoms"], graph: AtomicGraph) -> Float[Array, " graphs"]:
    return jax.ops.segment_sum(values, graph.atom_graph, len(graph.graph_mask), indices_are_sorted=True)

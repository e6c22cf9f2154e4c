"""The equivariant convolution: features of neighbours times harmonics times radial weights, summed onto atoms.

Messages are by far the largest arrays of a model (22 kB an edge in the published size), so they are never made for all
edges at once: edges go through in chunks, on a CPU small enough for its cache, and derivatives make messages anew.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mlipdb.trainers.models.features import Features, Matrices
from mlipdb.trainers.models.paths import Path, coupling_matrix, group_by_input, path_of_component, weight_columns

# Messages of one chunk in the layer that has the most. Measured: on a CPU 4 MiB make a training step three times as
# fast as all edges at once, with a fortieth of the memory; a GPU needs more edges to be busy.
CPU_CHUNK_BYTES = 4 * 2**20
DEVICE_CHUNK_BYTES = 2**30
FLOAT_BYTES = 4
# Messages summed onto atoms: for each input degree, the components of all its paths one after another
Sums = dict[int, Float[Array, "atoms _ _"]]


class EdgeFeatures(NamedTuple):
    """What every layer uses of the edges. receivers ascend; radial is 0 on padding edges."""

    radial: Float[Array, "*chunks edges size"]
    harmonics: Float[Array, "*chunks edges components"]
    senders: Int[Array, "*chunks edges"]
    receivers: Int[Array, "*chunks edges"]


def count_chunks(edges: int, *, numbers: int, atoms: int, rows: int = 1) -> int:
    """How many chunks edges go through in whose messages have so many numbers each.

    A chunk has at least as many edges as there are atoms, because each passes once over arrays of all atoms. Where
    messages are changed along several Hessian rows at once, chunks are smaller by that many, arrays of atoms larger.
    """
    budget = CPU_CHUNK_BYTES if jax.default_backend() == "cpu" else DEVICE_CHUNK_BYTES
    most = max(atoms, budget // (numbers * FLOAT_BYTES))
    return 1 if edges <= most else -(-edges // -(-most // rows))


def in_chunks(edges: EdgeFeatures, *, numbers: int, atoms: int, rows: int = 1) -> EdgeFeatures:
    """Edges with an axis of chunks of one size in front, as many as count_chunks says.

    What is left over is filled with edges that add nothing.
    """
    count = count_chunks(len(edges.senders), numbers=numbers, atoms=atoms, rows=rows)
    if count == 1:
        return EdgeFeatures(*(values[None] for values in edges))
    even = -(-len(edges.senders) // count)
    extra = count * even - len(edges.senders)

    def split(values: Array) -> Array:
        filled = jnp.pad(values, [(0, extra), *[(0, 0)] * (values.ndim - 1)])
        return filled.reshape(count, even, *values.shape[1:])

    last = jnp.arange(count * even).reshape(count, even) >= len(edges.senders)
    chunks = EdgeFeatures(*map(split, edges))
    return chunks._replace(receivers=jnp.where(last, edges.receivers[-1], chunks.receivers))


def convolve(features: Features, chunks: EdgeFeatures, radial: Matrices, *, paths: tuple[Path, ...]) -> Features:
    """Sum over each atom's edges of the coupling of the sender's features with the edge's harmonics, path by path.

    The edges are those of in_chunks. Each channel of each path has its own weight on each edge, a function of the
    edge's length by the radial network: matrices with silu between them and one output for each weight. In the result
    the channels of the paths into one degree stand side by side, in the order of paths.
    """
    regrouped = (*radial[:-1], radial[-1][:, weight_columns(paths)])
    if len(chunks.senders) == 1:
        edges = EdgeFeatures(*(values[0] for values in chunks))
        sums = _add_messages(_no_sums(features, paths), features, edges, radial=regrouped, paths=paths)
    else:
        sums = _sum_chunks(paths, features, chunks, regrouped)
    return _by_output(sums, paths)


def _scan_chunks(paths: tuple[Path, ...], features: Features, chunks: EdgeFeatures, radial: Matrices) -> Sums:
    """Add the messages of one chunk after the other."""

    def step(sums: Sums, chunk: EdgeFeatures) -> tuple[Sums, None]:
        return _add_messages(sums, features, chunk, radial=radial, paths=paths), None

    sums, _ = jax.lax.scan(jax.checkpoint(step, prevent_cse=False), _no_sums(features, paths), chunks)
    return sums


# The first derivative is written out, because that of scan carries the derivative by the sums from chunk to chunk, and
# would keep it once for every chunk when forces are differentiated: memory as the square of the number of atoms.
_sum_chunks = jax.custom_vjp(_scan_chunks, nondiff_argnums=(0,))


def _sum_chunks_forward(
    paths: tuple[Path, ...], features: Features, chunks: EdgeFeatures, radial: Matrices
) -> tuple[Sums, tuple[Features, EdgeFeatures, Matrices]]:
    # not by _sum_chunks: Hessian rows need forward derivatives of this, which a function with its own rule has not
    return _scan_chunks(paths, features, chunks, radial), (features, chunks, radial)


def _sum_chunks_backward(
    paths: tuple[Path, ...], kept: tuple[Features, EdgeFeatures, Matrices], gradient: Sums
) -> tuple[Features, EdgeFeatures, Matrices]:
    features, chunks, radial = kept

    def step(total: Any, chunk: EdgeFeatures) -> tuple[Any, Any]:
        def messages(features: Features, radial: Matrices, basis: Array, harmonics: Array) -> Sums:
            edges = chunk._replace(radial=basis, harmonics=harmonics)
            return _add_messages(_no_sums(features, paths), features, edges, radial=radial, paths=paths)

        _, pull = jax.vjp(messages, features, radial, chunk.radial, chunk.harmonics)
        *shared, by_basis, by_harmonics = pull(gradient)
        return jax.tree.map(jnp.add, total, shared), (by_basis, by_harmonics)

    zero = jax.tree.map(jnp.zeros_like, [features, radial])
    shared, by_chunk = jax.lax.scan(jax.checkpoint(step, prevent_cse=False), zero, chunks)
    by_features, by_radial = shared
    of_indices: Any = None
    return by_features, EdgeFeatures(by_chunk[0], by_chunk[1], of_indices, of_indices), by_radial


_sum_chunks.defvjp(_sum_chunks_forward, _sum_chunks_backward)


def _add_messages(
    sums: Sums, features: Features, edges: EdgeFeatures, *, radial: Matrices, paths: tuple[Path, ...]
) -> Sums:
    hidden = hidden_layer(edges.radial, radial[:-1])
    added, groups = {}, group_by_input(paths)
    numbers = [sum(path.channels for path in group) for group in groups.values()]
    for (degree, group), last in zip(groups.items(), jax.lax.split(radial[-1], numbers, axis=1), strict=True):
        weights = jnp.matmul(hidden, last, precision="highest")  # 0 where the basis is: there is no bias
        messages = _messages(features[degree][edges.senders], edges.harmonics, weights, group=group)
        added[degree] = sums[degree].at[edges.receivers].add(messages, indices_are_sorted=True)
    return added


def _messages(
    sent: Float[Array, "edges m channels"],
    harmonics: Float[Array, "edges components"],
    weights: Float[Array, "edges numbers"],
    *,
    group: tuple[Path, ...],
) -> Float[Array, "edges rows channels"]:
    """Messages of all paths from one input degree, their components one after another.

    Coefficients and harmonics, which have no channels, are contracted first; what is left is one small matrix product
    an edge. Weights are spread over the components of their paths by a matrix of zeros and ones: multiplying each
    path's part by itself, slices and all, takes 1.7 times as long to run and twice as long to compile.
    """
    edges, components, channels = sent.shape
    coefficients = jnp.asarray(coupling_matrix(group, columns=harmonics.shape[1]), dtype=sent.dtype)
    turned = jnp.matmul(harmonics, coefficients, precision="highest").reshape(edges, -1, components)
    products = jnp.einsum("eki,eiu->eku", turned, sent, precision="highest")
    places = jnp.asarray(path_of_component(group), dtype=sent.dtype)
    spread = jnp.broadcast_to(places[None], (edges, *places.shape))
    by_path = weights.reshape(edges, len(group), channels)
    return products * jnp.einsum("ekp,epu->eku", spread, by_path, precision="highest")


def hidden_layer(basis: Float[Array, "edges size"], matrices: Matrices) -> Float[Array, "edges hidden"]:
    """What the radial network makes of a basis before its last matrix; 0 where the basis is, since there is no bias."""
    for matrix in matrices:
        basis = jax.nn.silu(jnp.matmul(basis, matrix, precision="highest"))
    return basis


def _no_sums(features: Features, paths: tuple[Path, ...]) -> Sums:
    atoms, dtype = len(features[0]), features[0].dtype
    return {
        degree: jnp.zeros((atoms, sum(path.components for path in group), group[0].channels), dtype)
        for degree, group in group_by_input(paths).items()
    }


def _by_output(sums: Sums, paths: tuple[Path, ...]) -> Features:
    """The same sums by output degree, channels of its paths side by side in the order of paths; see rows_of."""
    parts: dict[int, list[Array]] = {path.l_out: [] for path in paths}
    for degree, group in group_by_input(paths).items():
        into = list(dict.fromkeys(path.l_out for path in group))
        counts = [sum(path.components for path in group if path.l_out == l_out) for l_out in into]
        for l_out, block in zip(into, jax.lax.split(sums[degree], counts, axis=1), strict=True):
            parts[l_out].append(block.reshape(len(block), 2 * l_out + 1, -1))
    return {degree: jnp.concatenate(values, axis=2) for degree, values in parts.items()}

"""The network of GemNet: messages on directed edges that see the angles to all other edges of their receiver.

Angles enter as Legendre polynomials of the cosine between edges c→a and b→a, summed over b. By the addition theorem
Σ_b P_l(cos φ_cab) y_ba is (4π/(2l+1)) Σ_m Y_lm(ca) Σ_b Y_lm(ba) y_ba, so triplets are never listed: the cost is that
of edges, not of edges times neighbours, and the edge's angle to itself is taken off.
"""

import math
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mlipdb.errors import ConfigError
from mlipdb.trainers.graph import AtomicGraph
from mlipdb.trainers.models.edges import lengths_and_directions, polynomial_cutoff, spherical_harmonics
from mlipdb.trainers.models.gemnet_config import GemNetConfig
from mlipdb.trainers.models.gemnet_layers import Matrix, Mlp, Rows, activated, create_mlp, halved, he_orthogonal, linear

Part = TypeVar("Part", bound=eqx.Module)
Factors = dict[str, Float[Array, "..."]]
# of what was scaled, the variance before and after, by the name of its factor
Moments = dict[str, tuple[Float[Array, "..."], Float[Array, "..."]]]
OF_OUTPUTS = ("energy_sum", "force_radial")  # factors that outputs use, and blocks do not


class Block(eqx.Module):
    """Arrays of one interaction. Matrices are stored (in, out)."""

    skip: Matrix
    sent: Matrix
    sent_radial: Matrix
    down: Matrix
    bilinear: Float[Array, "triplet cbf bilinear"]
    up: Matrix
    up_reverse: Matrix
    before_skip: Mlp
    after_skip: Mlp
    atom_radial: Matrix
    atom: Mlp
    joined: Matrix
    concatenated: Mlp


class Readout(eqx.Module):
    """Arrays of an output: energies of atoms or forces along edges."""

    radial: Matrix
    mlp: Mlp
    last: Matrix


class Output(eqx.Module):
    """Arrays of the outputs after one block; forces only of a model that has them as an output."""

    energy: Readout
    forces: Readout | None


class Network(eqx.Module):
    """All arrays of a GemNet; there is one output more than blocks."""

    embedding: Float[Array, "species atom"]
    edge: Matrix
    triplet_radial: Matrix
    circular: Float[Array, "spherical radial cbf"]
    atom_radial: Matrix
    output_radial: Matrix
    blocks: tuple[Block, ...]
    outputs: tuple[Output, ...]


class Edges(NamedTuple):
    """What all blocks use of the edges; the bases are 0 on padding edges and fall to 0 at the cutoff."""

    senders: Int[Array, " edges"]
    receivers: Int[Array, " edges"]
    reverse: Int[Array, " edges"]
    mask: Bool[Array, " edges"]
    triplet_radial: Float[Array, "edges rbf"]
    circular: Float[Array, "edges spherical cbf"]
    atom_radial: Float[Array, "edges rbf"]
    output_radial: Float[Array, "edges rbf"]
    harmonics: tuple[Float[Array, "edges _"], ...]
    atom_mask: Bool[Array, " atoms"]


class Carried(NamedTuple):
    """What goes from block to block."""

    atoms: Float[Array, "atoms atom"]
    edges: Float[Array, "edges edge"]


class Features(NamedTuple):
    """What outputs are made from: atoms after the last block, messages before the first block and after each."""

    atoms: Float[Array, "atoms atom"]
    messages: Float[Array, "outputs edges edge"]
    edges: Edges
    directions: Float[Array, "edges 3"]


class Result(NamedTuple):
    """Energies of atoms and forces along edges without units; forces are 0 of a model without."""

    energies: Float[Array, " atoms"]
    forces: Float[Array, " edges"]


def run(
    network: Network,
    graph: AtomicGraph,
    vectors: Float[Array, "edges 3"],
    *,
    config: GemNetConfig,
    factors: Factors,
    observe: bool = False,
) -> tuple[Features, Moments]:
    """Evaluate all blocks with these scale factors, each an array over blocks.

    With observe, moments have what scale factors are fitted to, in the factors' shapes.
    """
    lengths, directions = lengths_and_directions(vectors)
    radial = _radial_basis(graph, lengths, config)
    edges = _edges(network, graph, radial, directions)
    atoms = network.embedding[_rank(graph, config)]
    messages = activated(_joined(atoms, radial, edges), network.edge)

    def step(carried: Carried, parts: tuple[Block, Factors]) -> tuple[Carried, tuple[Rows, Moments]]:
        block, factors = parts
        carried, moments = _interact(carried, block, edges, factors=factors, observe=observe)
        return carried, (carried.edges, moments)

    inner = {name: values for name, values in factors.items() if name not in OF_OUTPUTS}
    # blocks are alike, so that one is compiled for all
    end, (after, moments) = jax.lax.scan(step, Carried(atoms, messages), (_stacked(network.blocks), inner))
    return Features(end.atoms, jnp.concatenate([messages[None], after]), edges, directions), moments


def read(network: Network, features: Features, *, factors: Factors, observe: bool = False) -> tuple[Result, Moments]:
    """The sum of all outputs, with the scale factors of outputs, each an array over them; moments as those of run."""

    def step(sums: Result, parts: tuple[Rows, Output, Factors]) -> tuple[Result, Moments]:
        messages, output, factors = parts
        return _add_output(sums, messages, output, features.edges, factors=factors, observe=observe)

    outer = {name: values for name, values in factors.items() if name in OF_OUTPUTS}
    first = features.messages[0]
    none = Result(jnp.zeros_like(first, shape=len(features.atoms)), jnp.zeros_like(first, shape=len(first)))
    return jax.lax.scan(step, none, (features.messages, _stacked(network.outputs), outer))


def observed(
    network: Network, graph: AtomicGraph, vectors: Float[Array, "edges 3"], *, config: GemNetConfig, factors: Factors
) -> Moments:
    """What scale factors are fitted to, with these factors in place."""
    features, of_blocks = run(network, graph, vectors, config=config, factors=factors, observe=True)
    return of_blocks | read(network, features, factors=factors, observe=True)[1]


def _rank(graph: AtomicGraph, config: GemNetConfig) -> Int[Array, " atoms"]:
    rank = np.zeros(119, dtype=np.int32)
    rank[list(config.atomic_numbers)] = np.arange(len(config.atomic_numbers))
    return jnp.asarray(rank)[graph.atomic_numbers]


def _radial_basis(
    graph: AtomicGraph, lengths: Float[Array, " edges"], config: GemNetConfig
) -> Float[Array, "edges radial"]:
    """Gaussians at even distances from 0 to the cutoff, as wide as these, times the envelope."""
    centres = jnp.asarray(np.linspace(0.0, 1.0, config.n_radial), dtype=lengths.dtype)
    away = (lengths[:, None] / config.cutoff - centres[None, :]) * (config.n_radial - 1)
    envelope = polynomial_cutoff(lengths, cutoff=config.cutoff, power=float(config.envelope_exponent))
    return jnp.where(graph.edge_mask[:, None], jnp.exp(-0.5 * away * away) * envelope[:, None], 0.0)


def _edges(
    network: Network, graph: AtomicGraph, radial: Float[Array, "edges radial"], directions: Float[Array, "edges 3"]
) -> Edges:
    if graph.reverse is None:
        raise ConfigError("GemNet needs AtomicGraph.reverse; list neighbours with the model's graph_needs")
    return Edges(
        senders=graph.senders,
        receivers=graph.receivers,
        reverse=graph.reverse,
        mask=graph.edge_mask,
        triplet_radial=linear(radial, network.triplet_radial),
        circular=jnp.einsum("er,lrc->elc", radial, network.circular, precision="highest"),
        atom_radial=linear(radial, network.atom_radial),
        output_radial=linear(radial, network.output_radial),
        harmonics=tuple(spherical_harmonics(directions, lmax=len(network.circular) - 1)),
        atom_mask=graph.atom_mask,
    )


def _joined(atoms: Float[Array, "atoms _"], values: Rows, edges: Edges) -> Rows:
    return jnp.concatenate([atoms[edges.senders], atoms[edges.receivers], values], axis=1)


def _interact(
    carried: Carried, block: Block, edges: Edges, *, factors: Factors, observe: bool
) -> tuple[Carried, Moments]:
    """One block: edges learn from triplets, atoms from edges, edges from atoms."""
    atoms, messages = carried.atoms, carried.edges
    triplets, moments = _from_triplets(messages, block, edges, factors=factors, observe=observe)
    updated = block.before_skip(halved(activated(messages, block.skip), triplets))
    messages = block.after_skip(halved(messages, updated))
    summed = _onto_receivers(messages * linear(edges.atom_radial, block.atom_radial), edges)
    if observe:
        moments["atom_sum"] = _variance(messages, edges.mask), _variance(summed, edges.atom_mask)
    atoms = halved(atoms, block.atom(summed * factors["atom_sum"]))
    updated = block.concatenated(activated(_joined(atoms, messages, edges), block.joined))
    return carried._replace(atoms=atoms, edges=halved(messages, updated)), moments


def _from_triplets(
    messages: Rows, block: Block, edges: Edges, *, factors: Factors, observe: bool
) -> tuple[Rows, Moments]:
    """What an edge learns from the others of its receiver, and from what its reverse learns."""
    dense = activated(messages, block.sent)
    weighted = dense * linear(edges.triplet_radial, block.sent_radial)
    sent = activated(weighted * factors["triplet_radial"], block.down)
    # the derivative makes the sums anew, else it keeps 49 numbers for each of `sent`
    sums = jax.checkpoint(_angular_sums, prevent_cse=False)(sent, edges.harmonics, edges.receivers, edges.atom_mask)
    mixed = jnp.einsum("elt,elc->etc", sums, edges.circular, precision="highest")
    flat = block.bilinear.reshape(-1, block.bilinear.shape[2])
    found = linear(mixed.reshape(len(mixed), -1), flat)
    moments: Moments = {}
    if observe:
        moments["triplet_radial"] = _variance(dense, edges.mask), _variance(weighted, edges.mask)
        others = jax.ops.segment_sum(edges.mask.astype(sent.dtype), edges.receivers, len(edges.atom_mask)) - 1.0
        moments["triplet_sum"] = _variance(sent, edges.mask, others[edges.receivers]), _variance(found, edges.mask)
    scaled = found * factors["triplet_sum"]
    return halved(activated(scaled, block.up), activated(scaled, block.up_reverse)[edges.reverse]), moments


def _angular_sums(
    sent: Float[Array, "edges triplet"],
    harmonics: tuple[Float[Array, "edges _"], ...],
    receivers: Int[Array, " edges"],
    atom_mask: Bool[Array, " atoms"],
) -> Float[Array, "edges spherical triplet"]:
    """Σ_b √((2l+1)/4π)·P_l(cos φ_cab)·sent_ba over the other edges b→a of each edge c→a, for each degree l."""
    sums = []
    for degree, values in enumerate(harmonics):
        components = values[:, :, None]
        on_atoms = jax.ops.segment_sum(
            components * sent[:, None, :], receivers, len(atom_mask), indices_are_sorted=True
        )
        every = (on_atoms[receivers] * components).sum(axis=1)
        itself = (2 * degree + 1) * sent
        sums.append((every - itself) / math.sqrt(4.0 * math.pi * (2 * degree + 1)))
    return jnp.stack(sums, axis=1)


def _add_output(
    sums: Result, messages: Rows, output: Output, edges: Edges, *, factors: Factors, observe: bool
) -> tuple[Result, Moments]:
    """Energies of atoms from their edges, and forces along edges where the model has them."""
    summed = _onto_receivers(messages * linear(edges.output_radial, output.energy.radial), edges)
    energies = linear(output.energy.mlp(summed * factors["energy_sum"]), output.energy.last)[:, 0]
    moments: Moments = {}
    if observe:
        moments["energy_sum"] = _variance(messages, edges.mask), _variance(summed, edges.atom_mask)
    sums = sums._replace(energies=sums.energies + energies)
    if output.forces is None:
        return sums, moments
    hidden = output.forces.mlp(messages)
    weighted = hidden * linear(edges.output_radial, output.forces.radial)
    forces = linear(weighted * factors["force_radial"], output.forces.last)[:, 0]
    if observe:
        moments["force_radial"] = _variance(hidden, edges.mask), _variance(weighted, edges.mask)
    return sums._replace(forces=sums.forces + forces), moments


def _onto_receivers(values: Float[Array, "edges size"], edges: Edges) -> Float[Array, "atoms size"]:
    return jax.ops.segment_sum(values, edges.receivers, len(edges.atom_mask), indices_are_sorted=True)


def _variance(
    values: Rows, mask: Bool[Array, " rows"], weights: Float[Array, " rows"] | None = None
) -> Float[Array, ""]:
    """Mean over columns of the variance over rows that count, each as often as its weight says."""
    counts = jnp.where(mask, jnp.ones_like(values, shape=len(values)) if weights is None else weights, 0.0)
    total = jnp.maximum(counts.sum(), 2.0)
    mean = (values * counts[:, None]).sum(axis=0) / total
    squares = jnp.square(values - mean[None, :]) * counts[:, None]
    return (squares.sum(axis=0) / (total - 1.0)).mean()


def _stacked(parts: tuple[Part, ...]) -> Part:
    stacked: Part = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    return stacked


def create_network(config: GemNetConfig, *, key: PRNGKeyArray) -> Network:
    """Random arrays: embeddings evenly from -√3 to √3, matrices as he_orthogonal makes them."""
    keys = jax.random.split(key, 6 + 2 * config.n_blocks + 1)
    bound = math.sqrt(3.0)
    return Network(
        embedding=jax.random.uniform(
            keys[0], (len(config.atomic_numbers), config.atom_size), minval=-bound, maxval=bound
        ),
        edge=he_orthogonal(keys[1], (2 * config.atom_size + config.n_radial, config.edge_size)),
        triplet_radial=he_orthogonal(keys[2], (config.n_radial, config.rbf_size)),
        circular=he_orthogonal(keys[3], (config.n_spherical, config.n_radial, config.cbf_size)),
        atom_radial=he_orthogonal(keys[4], (config.n_radial, config.rbf_size)),
        output_radial=he_orthogonal(keys[5], (config.n_radial, config.rbf_size)),
        blocks=tuple(_create_block(config, key=one) for one in keys[6 : 6 + config.n_blocks]),
        outputs=tuple(_create_output(config, key=one) for one in keys[6 + config.n_blocks :]),
    )


def _create_block(config: GemNetConfig, *, key: PRNGKeyArray) -> Block:
    keys = iter(jax.random.split(key, 13))
    atom, edge, triplet = config.atom_size, config.edge_size, config.triplet_size
    return Block(
        skip=he_orthogonal(next(keys), (edge, edge)),
        sent=he_orthogonal(next(keys), (edge, edge)),
        sent_radial=he_orthogonal(next(keys), (config.rbf_size, edge)),
        down=he_orthogonal(next(keys), (edge, triplet)),
        bilinear=he_orthogonal(next(keys), (triplet, config.cbf_size, config.bilinear_size)),
        up=he_orthogonal(next(keys), (config.bilinear_size, edge)),
        up_reverse=he_orthogonal(next(keys), (config.bilinear_size, edge)),
        before_skip=create_mlp(None, edge, residuals=config.n_before_skip, key=next(keys)),
        after_skip=create_mlp(None, edge, residuals=config.n_after_skip, key=next(keys)),
        atom_radial=he_orthogonal(next(keys), (config.rbf_size, edge)),
        atom=create_mlp(edge, atom, residuals=config.n_atom, key=next(keys)),
        joined=he_orthogonal(next(keys), (2 * atom + edge, edge)),
        concatenated=create_mlp(None, edge, residuals=config.n_concatenations, key=next(keys)),
    )


def _create_output(config: GemNetConfig, *, key: PRNGKeyArray) -> Output:
    energy, forces = jax.random.split(key)
    return Output(
        energy=_create_readout(config, config.atom_size, key=energy),
        forces=_create_readout(config, config.edge_size, key=forces) if config.direct else None,
    )


def _create_readout(config: GemNetConfig, size: int, *, key: PRNGKeyArray) -> Readout:
    radial, mlp, last = jax.random.split(key, 3)
    return Readout(
        radial=he_orthogonal(radial, (config.rbf_size, config.edge_size)),
        mlp=create_mlp(config.edge_size, size, residuals=config.n_atom, key=mlp),
        last=he_orthogonal(last, (size, 1)),
    )

"""Images drawn by small evolving networks, all of one fixed capacity: compositional pattern-producing networks.

Stanley, Compositional Pattern Producing Networks: A Novel Abstraction of Development, 2007; the indirect encoding of
Nguyen, Yosinski & Clune, Deep Neural Networks are Easily Fooled, 2015 (arXiv:1412.1897), section 2.3. A network takes
a pixel's place to its colour. Evolution adds and removes nodes and connections, and changes weights and activations,
as in NEAT (Stanley & Miikkulainen, Evolving Neural Networks through Augmenting Topologies, 2002), without its crossover
and species. A genome is a set of arrays with room for `capacity` nodes, so that a whole population is changed and drawn
in one compiled program.
"""

import dataclasses

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from cvjax.signature import Count, Positive, Share

INPUTS = 4  # x and y from -1 to 1, the distance from the centre, and 1
ACTIVATIONS = (jnp.sin, jax.nn.sigmoid, lambda x: jnp.exp(-jnp.square(x)), lambda x: x, jnp.tanh, jnp.abs, jnp.cos)
LIMIT = 8.0  # of weights


@flax.struct.dataclass
class Genome:
    """A network. Its first nodes are the inputs, the next ones the outputs; the others are hidden.

    Attributes:
      depth: of each node, from 0 of the inputs to 1 of the outputs; connections lead from a lower to a higher one.
      there: whether a node exists.
      activation: of each node, an index into `ACTIVATIONS`.
      weight: [from, to] of connections.
      connected: [from, to] whether there is one.
    """

    depth: Float[Array, "*genomes nodes"]
    there: Bool[Array, "*genomes nodes"]
    activation: Int[Array, "*genomes nodes"]
    weight: Float[Array, "*genomes nodes nodes"]
    connected: Bool[Array, "*genomes nodes nodes"]


@dataclasses.dataclass(frozen=True)
class CPPN:
    """How networks begin and change; the probabilities are those of a change per offspring.

    Attributes:
      capacity: most nodes, inputs and outputs included.
      add_connection, remove_connection, add_node, remove_node: of one each.
      change_activation: that one node gets another activation.
      change_weights: share of the weights that change.
      spread: standard deviation of a weight's change.
    """

    capacity: Count = 32
    add_connection: Share = 0.3
    remove_connection: Share = 0.1
    add_node: Share = 0.2
    remove_node: Share = 0.05
    change_activation: Share = 0.2
    change_weights: Share = 0.3
    spread: Positive = 0.5


USUAL = CPPN()


def begin(key: Key[Array, ""], settings: CPPN, channels: int) -> Genome:
    """Returns a random network without hidden nodes, every input connected to every output."""
    weight_key, activation_key = jax.random.split(key)
    nodes = jnp.arange(settings.capacity)
    inputs, outputs = nodes < INPUTS, (nodes >= INPUTS) & (nodes < INPUTS + channels)
    connected = inputs[:, None] & outputs
    return Genome(
        depth=outputs.astype(jnp.float32),
        there=inputs | outputs,
        activation=jax.random.randint(activation_key, (settings.capacity,), 0, len(ACTIVATIONS)),
        weight=2 * jax.random.normal(weight_key, connected.shape) * connected,
        connected=connected,
    )


def express(genome: Genome, height: int, width: int, channels: int) -> Float[Array, "height width channels"]:
    """Returns the image that a network draws, in [0, 1]: a channel of grey, or hue, saturation and value as RGB."""
    rows, columns = (jnp.linspace(-1, 1, size) for size in (height, width))
    y, x = (axis.ravel() for axis in jnp.meshgrid(rows, columns, indexing="ij"))
    inputs = jnp.stack([x, y, jnp.sqrt(jnp.square(x) + jnp.square(y)), jnp.ones_like(x)])
    nodes, strength = len(genome.depth), genome.weight * genome.connected
    values = jnp.zeros((nodes, height * width)).at[:INPUTS].set(inputs)

    def visit(values, node):
        summed = jnp.sum(strength[:, node, None] * values, axis=0)
        new = jax.lax.switch(genome.activation[node], ACTIVATIONS, summed)
        return values.at[node].set(jnp.where(node < INPUTS, values[node], new)), None

    values, _ = jax.lax.scan(visit, values, jnp.argsort(genome.depth))
    drawn = values[INPUTS : INPUTS + channels].T.reshape(height, width, channels)
    drawn = jnp.clip(jnp.abs(drawn), 0, 1)
    return hsv_to_rgb(drawn) if channels == 3 else drawn


def hsv_to_rgb(image: Float[Array, "height width 3"]) -> Float[Array, "height width 3"]:
    """Returns red, green and blue of hue, saturation and value, all in [0, 1]."""
    hue, saturation, value = jnp.moveaxis(image, -1, 0)
    sector = (6 * hue + jnp.array([5.0, 3.0, 1.0]).reshape(3, 1, 1)) % 6
    away = jnp.clip(jnp.minimum(sector, 4 - sector), 0, 1)
    return jnp.moveaxis(value - value * saturation * away, 0, -1)


def mutate(key: Key[Array, ""], genome: Genome, settings: CPPN, channels: int) -> Genome:
    """Returns a changed copy of a network."""
    changes = (
        (settings.remove_node, _remove_node),
        (settings.add_node, _add_node),
        (settings.remove_connection, _remove_connection),
        (settings.add_connection, _add_connection),
        (settings.change_activation, _change_activation),
    )
    *keys, weight_key = jax.random.split(key, len(changes) + 1)
    for change_key, (probability, change) in zip(keys, changes, strict=True):
        toss, inner = jax.random.split(change_key)
        chosen = jax.random.uniform(toss) < probability
        changed = change(inner, genome, INPUTS + channels)
        genome = jax.tree.map(lambda new, old, chosen=chosen: jnp.where(chosen, new, old), changed, genome)
    return _change_weights(weight_key, genome, settings)


def _pick(key: Key[Array, ""], allowed: Bool[Array, "*shape"]) -> tuple[Int[Array, ""], Bool[Array, ""]]:
    """Draws the flat index of a true entry, and returns whether there is one."""
    flat = allowed.reshape(-1)
    return jax.random.categorical(key, jnp.where(flat, 0.0, -jnp.inf)), flat.any()


def _add_node(key: Key[Array, ""], genome: Genome, fixed: int) -> Genome:
    """Puts a node into a connection: its first half has the weight 1, the second the weight of the whole."""
    pick_key, activation_key = jax.random.split(key)
    nodes = len(genome.depth)
    connection, found = _pick(pick_key, genome.connected)
    source, target = connection // nodes, connection % nodes
    free = jnp.argmin(genome.there)
    depth = (genome.depth[source] + genome.depth[target]) / 2
    between = (genome.depth[source] < depth) & (depth < genome.depth[target])  # else float32 has no number left
    possible = found & ~genome.there[free] & between
    activation = jax.random.randint(activation_key, (), 0, len(ACTIVATIONS))
    # A free node may have connections of an earlier one.
    connected = genome.connected.at[free].set(False).at[:, free].set(False)
    connected = connected.at[source, target].set(False).at[source, free].set(True).at[free, target].set(True)
    weight = genome.weight.at[source, free].set(1.0).at[free, target].set(genome.weight[source, target])
    new = Genome(
        depth=genome.depth.at[free].set(depth),
        there=genome.there.at[free].set(True),
        activation=genome.activation.at[free].set(activation),
        weight=weight,
        connected=connected,
    )
    return jax.tree.map(lambda new, old: jnp.where(possible, new, old), new, genome)


def _remove_node(key: Key[Array, ""], genome: Genome, fixed: int) -> Genome:
    """Removes a hidden node with its connections."""
    node, found = _pick(key, genome.there & (jnp.arange(len(genome.there)) >= fixed))
    mine = (jnp.arange(len(genome.there)) == node) & found
    return genome.replace(
        there=genome.there & ~mine, connected=genome.connected & ~mine[:, None] & ~mine, depth=genome.depth * ~mine
    )


def _add_connection(key: Key[Array, ""], genome: Genome, fixed: int) -> Genome:
    """Connects two nodes, from the lower depth to the higher one."""
    pick_key, weight_key = jax.random.split(key)
    upward = genome.depth[:, None] < genome.depth
    allowed = upward & genome.there[:, None] & genome.there & ~genome.connected
    place, found = _pick(pick_key, allowed)
    chosen = (jnp.arange(allowed.size) == place).reshape(allowed.shape) & found
    weight = jnp.where(chosen, 2 * jax.random.normal(weight_key), genome.weight)
    return genome.replace(connected=genome.connected | chosen, weight=weight)


def _remove_connection(key: Key[Array, ""], genome: Genome, fixed: int) -> Genome:
    """Removes a connection."""
    place, found = _pick(key, genome.connected)
    chosen = (jnp.arange(genome.connected.size) == place).reshape(genome.connected.shape) & found
    return genome.replace(connected=genome.connected & ~chosen)


def _change_activation(key: Key[Array, ""], genome: Genome, fixed: int) -> Genome:
    """Draws the activation of a node that is no input."""
    pick_key, activation_key = jax.random.split(key)
    node, _ = _pick(pick_key, genome.there & (jnp.arange(len(genome.there)) >= INPUTS))
    drawn = jax.random.randint(activation_key, (), 0, len(ACTIVATIONS))
    return genome.replace(activation=genome.activation.at[node].set(drawn))


def _change_weights(key: Key[Array, ""], genome: Genome, settings: CPPN) -> Genome:
    """Adds noise to a share of the weights."""
    toss_key, noise_key = jax.random.split(key)
    chosen = jax.random.uniform(toss_key, genome.weight.shape) < settings.change_weights
    noise = settings.spread * jax.random.normal(noise_key, genome.weight.shape)
    return genome.replace(weight=jnp.clip(genome.weight + noise * (chosen & genome.connected), -LIMIT, LIMIT))

"""Outputs, loss gradients and per-example signals of any Keras model; kexue.fm/archives/8009.

One forward and one backward pass over a batch give, for every site (see ``sites``), the factors
of all examples at once: examples do not see each other, so ∂(Σ_i a_i·f(x_i))/∂z holds in row i the
signal of example i alone. Whether that is so is checked, not assumed: the factors' sum must be the
tape's own gradient (a tied weight would break it), and an example alone must give what it gives in
a batch (batch normalisation in training mode would break that).

>>> model = keras.Sequential([keras.layers.Dense(1, input_shape=(2,))])
>>> Signals(model, training=True).queries(tf.ones([3, 2])).outputs.shape
TensorShape([3, 1])
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.errors import InputError
from bert_theseus.path_kernel.recording import is_dense, is_embedding, recorded
from bert_theseus.path_kernel.sites import Factor, Site, WholeSite, layer_site

METHODS = ("auto", "layers", "vectorized", "sequential", "forward")
FORWARD = 4
"""Forward-mode products of a batch that cost what one gradient an example by ``vectorized_map``
costs: even between 4 and 8 of them (``benchmarks/path_kernel_forward.py``)."""


class Queries(NamedTuple):
    """f [queries, outputs] and one factor a site, with all outputs as cotangents."""

    outputs: tf.Tensor
    factors: tuple[Factor, ...]


class Examples(NamedTuple):
    """A batch at one step.

    outputs:  f [batch, outputs]; losses [batch].
    pull:     a = −∂l/∂f times the example's weight, [batch, outputs].
    descent:  −∂L/∂θ of the batch, one tensor a variable.
    factors:  one a site, with the cotangent a (one) or with all outputs.
    """

    outputs: tf.Tensor
    losses: tf.Tensor
    pull: tf.Tensor
    descent: tuple[tf.Tensor, ...]
    factors: tuple[Factor, ...]


class Signals:
    """Factors of a model's trainable weights.

    model:    any Keras model with one output tensor.
    loss:     function (y, f) → losses [batch]; only needed for ``examples``.
    training: whether examples run with ``training=True`` (dropout); queries never do.
    method:   "layers" (dense and embedding layers; error if there are others), "vectorized"
              (``vectorized_map`` for all weights), "sequential" (one example after another),
              "forward" (forward-mode products, no example gradients at all), "auto" (layers
              where possible; for the rest vectorised, or sequential in recurrent models, or
              forward for so few queries that it costs less, see :func:`cheapest`).
    every_output: whether examples' factors have every output as cotangent (for the kernel
              itself) instead of the loss gradient alone (for the contributions).

    Raises :class:`InputError` for a model whose examples depend on each other.
    """

    def __init__(self, model: keras.Model, loss: Callable | None = None, training: bool = True,
                 method: str = "auto", every_output: bool = False):
        if method not in METHODS:
            raise InputError(f"unknown method {method!r}", "method=…", f"use one of {METHODS}")
        self.model, self.loss, self.training = model, loss, training
        self.method, self.every_output = method, every_output
        _refuse(model, training)
        self._one_by_one = method == "sequential" or _has_loops(model)
        if method == "forward" and _has_loops(model):
            raise InputError("TensorFlow has no forward-mode products through the loop of a "
                             "recurrent layer", "method='forward'", "use method='auto'")
        by_layer = _layer_sites(model) if method in ("auto", "layers") else []
        self.sites, self._traces = self._split(by_layer), {}

    def outputs(self, x) -> tf.Tensor:
        """f [batch, outputs], as in use (``training=False``)."""
        return self._traced("outputs", self._outputs, x)

    def queries(self, x) -> Queries:
        """Outputs and factors of queries."""
        return self._traced("queries", self._queries, x)

    def examples(self, x, y, weights, seeds) -> Examples:
        """Outputs, losses, descent direction and factors of training examples.

        weights: of each example in the loss [batch]; seeds: of dropout, [batch] uint32.
        """
        return self._traced("examples", self._examples, x, y, weights, seeds)

    def _traced(self, name, function, *arguments):
        """Calls ``function`` compiled once for any batch size."""
        arguments = tf.nest.map_structure(tf.convert_to_tensor, arguments)
        signature = tf.nest.map_structure(
            lambda v: tf.TensorSpec([None, *v.shape[1:]], v.dtype), arguments)
        key = (name, *tf.nest.flatten(signature))
        if key not in self._traces:
            self._traces[key] = tf.function(function, input_signature=signature)
        return self._traces[key](*arguments)

    @property
    def variables(self) -> list[tf.Variable]:
        """The trainable weights, in the order of the sites."""
        return [v for site in self.sites for v in site.variables]

    @property
    def layer_sites(self) -> list[Site]:
        """Sites that are fed by recorded calls."""
        return [site for site in self.sites if not isinstance(site, WholeSite)]

    @property
    def rest(self) -> WholeSite | None:
        """The site of all other weights, or None."""
        return next((site for site in self.sites if isinstance(site, WholeSite)), None)

    def demote(self, sites: Sequence[Site]) -> None:
        """Moves the weights of these layer sites to the rest."""
        self.sites = self._split([site for site in self.layer_sites if site not in sites])
        self._traces = {}

    def _split(self, layer_sites):
        covered = {v.ref() for site in layer_sites for v in site.variables}
        rest = [v for v in self.model.trainable_variables if v.ref() not in covered]
        if rest and self.method == "layers":
            raise InputError(f"{len(rest)} weights outside of dense and embedding layers "
                             f"({rest[0].name}, …)", "method='layers'", "use method='auto'")
        return [*layer_sites, WholeSite(rest)] if rest else list(layer_sites)

    def _outputs(self, x):
        return flat(self.model(x, training=False))

    def _queries(self, x):
        with tf.GradientTape(persistent=True) as tape:
            f, calls = self._forward(x, False, None)
            f = flat(f)
        pulls = _one_hots(f)
        factors = self._layer_factors(tape, f, calls, pulls)
        return Queries(f, self._with_rest(factors, x, pulls, None, False))

    def _examples(self, x, y, weights, seeds):
        with tf.GradientTape(persistent=True) as tape:
            f, calls = self._forward(x, self.training, seeds)
            outputs = flat(f)
        losses, pull = pull_of(self.loss, y, f, weights)
        pulls = _one_hots(outputs) if self.every_output else pull[:, None]
        factors = self._layer_factors(tape, outputs, calls, pulls)
        descent = tape.gradient(outputs, self.variables, output_gradients=pull,
                                unconnected_gradients="zero")
        factors = self._with_rest(factors, x, pulls, seeds, self.training)
        return Examples(outputs, losses, pull, tuple(map(tf.convert_to_tensor, descent)), factors)

    def _forward(self, x, training, seeds):
        with recorded([site.layer for site in self.layer_sites], seeds) as calls:
            return self.model(x, training=training), calls

    def _layer_factors(self, tape, f, calls, pulls):
        """One factor a layer site; ``pulls`` [batch, cotangents, outputs]."""
        sites = [(site, [c for c in calls if c.layer is site.layer]) for site in self.layer_sites]
        targets = [call.outputs for _, called in sites for call in called]
        backward = lambda pull: tape.gradient(  # noqa: E731
            f, targets, output_gradients=pull, unconnected_gradients="zero")
        signals = iter(_over_cotangents(backward, pulls, self._map))     # [batch, c, …, units]
        return tuple(Factor(site.inputs(called),
                            tf.concat([_per_position(next(signals)) for _ in called], axis=2))
                     for site, called in sites)

    def _with_rest(self, factors, x, pulls, seeds, training):
        if self.rest is None:
            return factors
        if self.method == "forward" and seeds is not None:      # examples: see forward_products
            return (*factors, Factor(None, pulls[:, :, None]))
        gradients = self._rest_gradients(x, pulls, seeds, training)
        return (*factors, Factor(None, gradients[:, :, None]))

    def _rest_gradients(self, x, pulls, seeds, training):
        """[batch, cotangents, weights of the rest], from every example alone."""
        variables, watched = self.rest.variables, [site.layer for site in self.layer_sites]

        def single(row):
            one, pull, *seed = row
            with tf.GradientTape(persistent=True) as tape:
                with recorded(watched, seed[0][None] if seed else None):
                    f = flat(self.model(tf.nest.map_structure(lambda v: v[None], one),
                                         training=training))
            backward = lambda p: tape.gradient(  # noqa: E731
                f, variables, output_gradients=p, unconnected_gradients="zero")
            parts = _over_cotangents(backward, pull[None], self._map, batched=False)
            return tf.concat([tf.reshape(g, [tf.shape(pull)[0], -1]) for g in parts], -1)
        rows = (x, pulls) + (() if seeds is None else (seeds,))
        return self._map(single, rows, self.variables[0].dtype)

    def _map(self, function, rows, dtypes):
        """``function`` over the first axis: all at once, or one after another."""
        if self._one_by_one:
            return tf.map_fn(function, rows, fn_output_signature=dtypes)
        return tf.vectorized_map(function, rows)


def cheapest(model: keras.Model, method: str, queries: int, every_output: bool) -> str:
    """"forward" where "auto" may choose it and it costs less, else ``method``.

    A forward-mode product is one pass over the batch for each query and output; gradients of
    single examples outside of dense and embedding layers cost ``FORWARD`` such passes each, one an
    example, or one for each of its outputs where the kernel is asked for.

    >>> model = keras.Sequential([keras.layers.Conv1D(1, 2, input_shape=(3, 1))])
    >>> [cheapest(model, "auto", queries, every_output=False) for queries in (1, 100)]
    ['forward', 'auto']
    """
    if method != "auto" or not model.outputs or _has_loops(model):
        return method
    covered = {v.ref() for site in _layer_sites(model) for v in site.variables}
    rest = any(v.ref() not in covered for v in model.trainable_variables)
    shape = model.outputs[0].shape[1:]
    if not rest or not shape.is_fully_defined():
        return method
    outputs = int(np.prod(shape))
    gradients = outputs if every_output else 1
    return "forward" if queries * outputs <= FORWARD * gradients else method


def _layer_sites(model):
    trainable = {v.ref() for v in model.trainable_variables}
    layers = [m for m in model.submodules if isinstance(m, keras.layers.Layer)]
    sites = [layer_site(m) for m in layers if m.built and (is_dense(m) or is_embedding(m))]
    return [s for s in sites if all(v.ref() in trainable for v in s.variables)]


def _refuse(model, training):
    if not model.built or not model.trainable_variables:
        raise InputError("the model has no trainable weights", "model",
                         "build it, unfreeze a layer")
    if len(tf.nest.flatten(model.outputs or [0])) != 1:
        raise InputError(f"the model has {len(model.outputs)} outputs", "model",
                         "make a keras.Model with the one output to be explained")
    if model.losses:
        raise InputError("the model adds losses of its own (regularisers)", "model",
                         "leave them out and give the optimizer an l2 or weight_decay")
    for layer in model.submodules:
        if training and isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            raise InputError(
                f"batch normalisation in training mode ({layer.name}): an example's gradient "
                "depends on the rest of its batch, so the step is no sum over examples", "model",
                "freeze the layer (trainable=False: moving statistics) or use LayerNormalization")


def _has_loops(model):
    """Recurrent layers run a loop of the graph, which ``vectorized_map`` cannot convert."""
    return any(isinstance(m, keras.layers.RNN) and not m.unroll for m in model.submodules)


def flat(f: tf.Tensor) -> tf.Tensor:
    """[batch, …] → [batch, outputs]."""
    return tf.reshape(f, [tf.shape(f)[0], int(np.prod(f.shape[1:])) if f.shape[1:]
                          .is_fully_defined() else -1])


def _one_hots(f):
    """[batch, outputs, outputs]: one cotangent an output."""
    size = tf.shape(f)[1] if f.shape[1] is None else f.shape[1]
    return tf.tile(tf.eye(size, dtype=f.dtype)[None], [tf.shape(f)[0], 1, 1])


def pull_of(loss: Callable, y, f: tf.Tensor, weights) -> tuple[tf.Tensor, tf.Tensor]:
    """Losses [batch] and a = −weight · ∂l/∂f [batch, outputs]."""
    f = tf.identity(f)                                   # cuts softmax's note of its own logits
    with tf.GradientTape() as tape:
        tape.watch(f)
        losses = loss(y, f)
    weights = tf.cast(weights, losses.dtype)
    gradient = tape.gradient(losses, f, output_gradients=weights)
    if gradient is None:
        raise InputError("the loss has no gradient with respect to the model's output", "loss",
                         "use a differentiable one (a crossentropy, a squared error)")
    return losses, -flat(gradient)


def _over_cotangents(backward, pulls, mapping, batched=True):
    """``backward`` for each of pulls[:, c]; results with the cotangents as second axis."""
    first = [tf.convert_to_tensor(g) for g in backward(pulls[:, 0])]
    if not first:                                                       # no layer sites
        return []
    if pulls.shape[1] == 1:
        return [g[:, None] if batched else g[None] for g in first]
    parts = mapping(lambda p: [tf.convert_to_tensor(g) for g in backward(p)],
                    tf.transpose(pulls, [1, 0, 2]), [g.dtype for g in first])
    for part, g in zip(parts, first):                                   # a loop forgets them
        part.set_shape([None, *g.shape])
    return [_swap(g) for g in parts] if batched else parts


def _swap(g):
    return tf.transpose(g, [1, 0, *range(2, g.shape.rank)])


def _per_position(g):
    """[batch, c, …, units] → [batch, c, positions, units]."""
    between = g.shape[2:-1]
    count = int(np.prod(between)) if between.is_fully_defined() else -1
    return tf.reshape(g, [tf.shape(g)[0], tf.shape(g)[1], count, g.shape[-1]])

"""The layers of module replacing: the article's random choice, and one that runs one branch.

    y = r · successor(x) + (1 − r) · predecessor(x),    r ~ Bernoulli(replacing rate)

``r`` is drawn once per batch (article, paper) or once per sample. Outside of training r = 1.
"""

import contextlib
import inspect

import numpy as np
import tensorflow as tf

from bert_theseus.backend import K, keras
from bert_theseus.errors import InputError

DRAWS = ("batch", "sample")


class _Draws(keras.layers.Layer):
    """A replacing rate and a seeded generator; both are weights, so checkpoints hold them.

    replacing_rate: probability of the successor, between 0 and 1; 0 and 1 are exact.
    draw:           "batch" (one draw for all rows) or "sample" (one per row).
    seed:           None takes a seed from numpy's generator, which ``set_seed`` controls.
    """

    def __init__(self, replacing_rate: float = 0.5, draw: str = "batch", seed: int | None = None,
                 **kwargs):
        super().__init__(**kwargs)
        if draw not in DRAWS:
            raise InputError(f"unknown draw {draw!r}", "draw", "use 'batch' or 'sample'")
        if not 0 <= replacing_rate <= 1:
            raise InputError(f"a replacing rate lies between 0 and 1, not {replacing_rate}",
                             "replacing_rate")
        self.initial_rate, self.draw, self.seed = float(replacing_rate), draw, seed
        self.supports_masking = True

    def build(self, input_shape):
        """Makes the two weights: the rate [] and the generator's state."""
        seed = int(np.random.randint(2**31)) if self.seed is None else self.seed
        state = tf.random.create_rng_state(seed, "philox").numpy()
        self.replacing_rate = self.add_weight(
            "replacing_rate", (), "float32", keras.initializers.Constant(self.initial_rate),
            trainable=False)
        self.generator_state = self.add_weight(
            "generator_state", state.shape, "int64",
            lambda shape, dtype=None: tf.constant(state, dtype), trainable=False)
        self.generator = tf.random.Generator.from_state(self.generator_state, "philox")
        super().build(input_shape)

    def choices(self, rows, columns: int):
        """[1 or rows, columns] booleans, true where the successor is chosen."""
        rows = rows if self.draw == "sample" else 1
        return self.generator.uniform([rows, columns]) < self.replacing_rate

    def get_config(self):
        """Every argument of the constructor, with the rate as it is now."""
        rate = float(K.get_value(self.replacing_rate)) if self.built else self.initial_rate
        return {**super().get_config(), "replacing_rate": rate, "draw": self.draw,
                "seed": self.seed}


class BinaryRandomChoice(_Draws):
    """The article's layer: [predecessor output, successor output] → one of the two.

    Both inputs are [batch, …] of equal shape, and so is the output; both branches have been
    computed. Source: https://kexue.fm/archives/7575.

    >>> import numpy as np
    >>> layer = BinaryRandomChoice(replacing_rate=1.0)
    >>> float(layer([np.zeros((1, 2)), np.ones((1, 2))], training=True)[0, 0])
    1.0
    """

    def call(self, inputs, training=None):
        """Two tensors [batch, …] → one; outside of training the successor's."""
        predecessor, successor = inputs

        def mixed():
            choice = self.choices(tf.shape(successor)[0], 1)[:, 0]
            return _choose(choice, successor, predecessor)

        return K.in_train_phase(mixed, successor, training)

    def compute_mask(self, inputs, mask=None):
        """The successor's mask."""
        return mask[1] if mask is not None else None

    def compute_output_shape(self, input_shape):
        """The successor's shape."""
        return input_shape[1]


class ReplacingDraws(_Draws):
    """All draws of one step at once: inputs [batch, …] → booleans [1 or batch, num_modules].

    One layer holds the rate and the generator for all modules of a model; column l belongs to the
    :class:`ModuleReplacing` with ``index`` l.

    >>> import numpy as np
    >>> ReplacingDraws(num_modules=3, replacing_rate=0.0)(np.zeros((4, 8)), training=True).numpy()
    array([[False, False, False]])
    """

    def __init__(self, num_modules: int, **kwargs):
        super().__init__(**kwargs)
        self.num_modules = num_modules

    def call(self, inputs, training=None):
        """Tensor [batch, …], read for its rows alone → booleans; true outside of training."""
        rows = tf.shape(inputs)[0]
        return K.in_train_phase(lambda: self.choices(rows, self.num_modules),
                                lambda: tf.ones([1, self.num_modules], tf.bool), training)

    def compute_mask(self, inputs, mask=None):
        """None: the draws are not positions of a sequence."""
        return None

    def get_config(self):
        """Every argument of the constructor."""
        return {**super().get_config(), "num_modules": self.num_modules}


class ModuleReplacing(keras.layers.Layer):
    """A predecessor module and the successor's that replaces it; only the chosen one is run.

    Inputs [x, choices, *more]: ``x`` and ``more`` [batch, …] go to the chosen module, ``choices``
    is the output of :class:`ReplacingDraws`. With the same choices, outputs and gradients are
    those of :class:`BinaryRandomChoice` on both outputs.

    predecessor, successor: Keras layers or models; the weights of the first are constants here.
    index:  the column of ``choices``. A gradient to ``x`` is computed only where a module of a
            lower index has been replaced, since nothing else below can learn.
    lazy:   False runs both branches and mixes them, as the article does.

    >>> import numpy as np
    >>> from bert_theseus.backend import keras
    >>> double, same = keras.layers.Lambda(lambda x: 2 * x), keras.layers.Lambda(lambda x: x)
    >>> layer = ModuleReplacing(predecessor=double, successor=same)
    >>> float(layer([np.ones((1, 3)), np.array([[False]])], training=True)[0, 0])
    2.0
    """

    def __init__(self, predecessor, successor, index: int = 0, lazy: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.predecessor, self.successor = (
            keras.layers.deserialize(part, use_legacy_format=True)
            if isinstance(part, dict) else part for part in (predecessor, successor))
        self.index, self.lazy = index, lazy
        self.supports_masking = True

    def build(self, input_shape):
        """Builds both modules, each under its own name."""
        shape = self._module_inputs(input_shape)
        for part in (self.predecessor, self.successor):
            if not part.built:
                with tf.name_scope(part.name):
                    part.build(shape)
        super().build(input_shape)

    def call(self, inputs, mask=None, training=None):
        """What the chosen module makes of [x, *more]; the successor outside of training."""
        choices, tensors = inputs[1], [inputs[0], *inputs[2:]]
        x_mask = mask[0] if mask is not None else None
        return K.in_train_phase(lambda: self._replace(choices, tensors, x_mask),
                                lambda: self._run(self.successor, tensors, x_mask),
                                training)

    def _replace(self, choices, tensors, mask):
        choice = choices[:, self.index]
        successor, predecessor = self._successor_branch, self._predecessor_branch
        if not self.lazy:
            return _choose(choice, successor(tensors, mask), predecessor(tensors, mask))
        if choices.shape[0] != 1:
            return _by_rows(choice, successor, predecessor, tensors, mask)
        learning_below = tf.reduce_any(choices[:, :self.index])
        branches = [_constant_input(predecessor), predecessor,
                    _constant_input(successor), successor]
        branch = 2 * tf.cast(choice[0], tf.int32) + tf.cast(learning_below, tf.int32)
        return tf.switch_case(branch, [lambda b=b: b(tensors, mask) for b in branches])

    def _predecessor_branch(self, tensors, mask):
        with constant_weights(self.predecessor):
            return self._run(self.predecessor, tensors, mask)

    def _successor_branch(self, tensors, mask):
        return self._run(self.successor, tensors, mask)

    @staticmethod
    def _run(part, tensors, mask):
        """The training flag reaches ``part`` through Keras' call context."""
        inputs, masks = tensors, [mask] + [None] * (len(tensors) - 1)
        if len(tensors) == 1:
            inputs, masks = tensors[0], mask
        if mask is not None and "mask" in inspect.signature(part.call).parameters:
            return part(inputs, mask=masks)
        return part(inputs)

    @staticmethod
    def _module_inputs(inputs):
        """[x, choices, *more] → [x, *more], or x alone."""
        rest = [inputs[0], *inputs[2:]]
        return rest if len(rest) > 1 else rest[0]

    def compute_mask(self, inputs, mask=None):
        """That of the successor."""
        masks = None if mask is None else self._module_inputs(mask)
        return self.successor.compute_mask(self._module_inputs(inputs), masks)

    def compute_output_shape(self, input_shape):
        """That of the successor."""
        return self.successor.compute_output_shape(self._module_inputs(input_shape))

    def get_config(self):
        """Every argument of the constructor, the modules as configurations."""
        parts = {name: keras.layers.serialize(getattr(self, name), use_legacy_format=True)
                 for name in ("predecessor", "successor")}
        return {**super().get_config(), **parts, "index": self.index, "lazy": self.lazy}


def _choose(choice, successor, predecessor):
    """choice [1 or batch] selects whole rows of two tensors [batch, …]."""
    choice = tf.reshape(choice, [-1] + [1] * (successor.shape.rank - 1))
    return tf.where(choice, successor, predecessor)


def _constant_input(branch):
    """The same branch, with nothing to be learned below it."""
    return lambda tensors, mask: branch([tf.stop_gradient(tensors[0]), *tensors[1:]], mask)


def _by_rows(choice, successor, predecessor, tensors, mask):
    """Each row through its own branch: every branch sees its rows only."""
    choice = tf.broadcast_to(choice, tf.shape(tensors[0])[:1])
    parts, outputs = [], []
    for branch, chosen in ((successor, choice), (predecessor, ~choice)):
        rows = tf.cast(tf.where(chosen)[:, 0], tf.int32)
        # reshapes inside a module cannot take an empty batch: run one row for nothing
        some = tf.concat([rows, tf.zeros([tf.cast(tf.size(rows) == 0, tf.int32)], tf.int32)], 0)
        part = branch([tf.gather(t, some) for t in tensors],
                      None if mask is None else tf.gather(mask, some))
        parts.append(rows)
        outputs.append(part[:tf.size(rows)])
    return tf.dynamic_stitch(parts, outputs)


@contextlib.contextmanager
def constant_weights(layer):
    """Within it, the layer's weights are constants to any gradient.

    The gradient of a branch function otherwise computes the gradient of every weight that the
    branch reads, also of those that nobody asked for: a third of a step for frozen layers.
    """
    replaced = []
    for part in [layer, *layer.submodules]:
        for name, value in list(vars(part).items()):
            if isinstance(value, tf.Variable) and value.dtype.is_floating:
                replaced.append((part, name, value))
                dtype = getattr(part, "compute_dtype", None) or value.dtype
                vars(part)[name] = tf.stop_gradient(tf.cast(value, dtype))
    try:
        yield
    finally:
        for part, name, value in replaced:
            vars(part)[name] = value

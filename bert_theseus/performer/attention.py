"""Linear attention as pure functions on [batch, length, heads, head_size].

    FAVOR+ (7921):   softmax(q·k / √d) attention, approximated in time linear in the length
    causal:          prefix sums over chunks of positions, no loop over positions
    UniLM:           question tokens see the question, answer tokens the question and the answer
                     so far. The article calls this mask incompatible with linear attention; as
                     two sums it is not: Σ over the question + prefix sum over the answer.
    rotary (RoFormer's paper): the features are rotated, in the numerator only

Everything is computed in float32 (float64 for float64 input), and handed back in the input's type:
a bfloat16 exponent of size 30 is off by 0.1, which no later step could mend.
"""

import tensorflow as tf

from bert_theseus.errors import InputError
from bert_theseus.performer import sums
from bert_theseus.performer.kernels import KERNELS, Kernel

CHUNK = 64      # positions a chunk: its triangle then costs no more than its state


def favor_attention(query, key, value, projection=None, key_mask=None, causal=False, *,
                    kernel: str = "favor", segment_ids=None, rotary=None, rotary_at="features",
                    scale: bool = True) -> tf.Tensor:
    """Linear attention; with ``kernel="favor"`` an approximation of softmax(q·k / √d) attention.

    query:       [batch, query length, heads, head_size]; key the same with its own length;
                 value [batch, key length, heads, any size]
    projection:  [num_features, head_size] from :func:`orthogonal_projection`; None for the
                 kernels without random features
    key_mask:    [batch, key length], 0 or False for padding. A row without any key gives zeros.
    causal:      each position sees itself and those before it
    segment_ids: [batch, length], 0 for question and 1 for answer tokens: the UniLM mask.
                 Zeros after the answer count as padding.
    kernel:      a name in ``KERNELS``
    rotary:      [1 or batch, length, even size], interleaved sin and cos as bert4keras'
                 SinusoidalPositionEmbedding gives them. ``rotary_at="features"`` rotates φ(q) and
                 φ(k) in the numerator (RoFormer's paper); ``"inputs"`` rotates q and k before the
                 feature map, which approximates the exact RoFormer.
    scale:       divide q·k by √head_size, as BERT does; the article's formulas leave it out
    Returns [batch, query length, heads, value size]. Raises InputError for shapes or options that
    do not go together. Source: kexue.fm 7921, 7546; arXiv 2009.14794; arXiv 2104.09864, eq. 19.

    >>> import numpy as np
    >>> from bert_theseus.performer import orthogonal_projection
    >>> qkv = np.random.default_rng(0).normal(scale=0.5, size=(3, 1, 30, 2, 8))
    >>> rows = orthogonal_projection(num_features=4096, head_size=8, seed=0)
    >>> error = favor_attention(*qkv, rows) - softmax_attention(*qkv)
    >>> float(tf.reduce_mean(tf.abs(error))) < 0.05
    True
    """
    ordered = causal or segment_ids is not None
    kind = _kernel(kernel, ordered, rotary)
    dtype = tf.convert_to_tensor(query).dtype
    query, key, value, projection, weight = _prepare(
        query, key, value, projection, key_mask, kind, kernel)
    _check_order(query, key, ordered, causal and segment_ids is not None)
    query, key, query_angles, key_angles = _positions(
        query, key, rotary, rotary_at, kind, projection)
    multiplier = key.shape[-1]**-0.25 if scale else 1.0
    if segment_ids is not None:
        answer = _weight(segment_ids, key.dtype)
        question = weight * tf.cast(tf.cumsum(answer, axis=2) == 0, key.dtype)
        state = sums.absorb(_keys(kind, key, value, question, projection, multiplier, key_angles))
        output = _causal(kind, query, key, value, weight * answer, projection, multiplier,
                         query_angles, key_angles, state)
    elif causal:
        output = _causal(kind, query, key, value, weight, projection, multiplier,
                         query_angles, key_angles)
    else:
        state = sums.absorb(_keys(kind, key, value, weight, projection, multiplier, key_angles))
        output = sums.read(state, kind.query(query, projection, multiplier), kind, query_angles)
    return tf.cast(tf.transpose(output, [0, 2, 1, 3]), dtype)


def softmax_attention(query, key, value, key_mask=None, causal=False, *, segment_ids=None,
                      scale: bool = True) -> tf.Tensor:
    """Exact attention with the same masks and shapes: time and memory grow as length².

    >>> x = tf.ones([1, 3, 1, 2])
    >>> softmax_attention(x, x, x, key_mask=[[0, 0, 0]])[0, 0, 0].numpy().tolist()
    [0.0, 0.0]
    """
    query, key, value = (tf.convert_to_tensor(x) for x in (query, key, value))
    scores = tf.einsum("bjhd,bkhd->bhjk", query, key)
    if scale:
        scores *= key.shape[-1]**-0.5
    visible = tf.ones([1, 1, 1, 1], tf.bool)
    if key_mask is not None:
        visible &= tf.cast(key_mask, tf.bool)[:, None, None]
    if segment_ids is not None:
        index = tf.cumsum(tf.cast(segment_ids, tf.int32), axis=1)
        visible &= (index[:, None, :] <= index[:, :, None])[:, None]
    elif causal:
        visible &= tf.linalg.band_part(tf.ones(tf.shape(scores)[-2:]), -1, 0)[None, None] > 0
    lowest = tf.constant(scores.dtype.min, scores.dtype)
    weights = tf.nn.softmax(tf.where(visible, scores, lowest))
    weights = tf.where(tf.reduce_any(visible, axis=-1, keepdims=True), weights, 0)
    return tf.einsum("bhjk,bkhd->bjhd", weights, value)


def favor_state(key, value, projection=None, key_mask=None, *, kernel: str = "favor", rotary=None,
                scale: bool = True) -> sums.State:
    """What generation needs to know of a prompt whose tokens may see each other.

    key [batch, length, heads, head_size], value and options as in :func:`favor_attention`;
    ``rotary`` at the features. Its size depends on the features, not on the length.

    >>> x = tf.ones([1, 3, 2, 4])
    >>> [part.shape.as_list() for part in favor_state(x, x, tf.ones([8, 4]))]
    [[1, 2, 8, 5], [1, 2, 1, 8]]
    """
    kind = _kernel(kernel, True, rotary)
    _, key, value, projection, weight = _prepare(
        key, key, value, projection, key_mask, kind, kernel)
    multiplier = key.shape[-1]**-0.25 if scale else 1.0
    angles = _angles(rotary, kind.size(_rows(projection), key.shape[-1]), key.dtype)
    return sums.absorb(_keys(kind, key, value, weight, projection, multiplier, angles))


def favor_step(state: sums.State | None, query, key, value, projection=None, *,
               kernel: str = "favor", rotary=None, scale: bool = True):
    """One more token: (its output [batch, 1, heads, head_size], the state that includes it).

    query, key, value: [batch, 1, heads, head_size]; ``state`` None at the first token, or
    :func:`favor_state` of a prompt; ``rotary`` [1 or batch, 1, size] is that token's position.

    >>> x = tf.ones([1, 1, 2, 4])
    >>> output, state = favor_step(None, x, x, 3 * x, tf.ones([8, 4]))
    >>> output[0, 0, 0].numpy().tolist()
    [3.0, 3.0, 3.0, 3.0]
    """
    kind = _kernel(kernel, True, rotary)
    dtype = tf.convert_to_tensor(query).dtype
    query, key, value, projection, weight = _prepare(
        query, key, value, projection, None, kind, kernel)
    multiplier = key.shape[-1]**-0.25 if scale else 1.0
    angles = _angles(rotary, kind.size(_rows(projection), key.shape[-1]), key.dtype)
    state = sums.absorb(_keys(kind, key, value, weight, projection, multiplier, angles), state)
    output = sums.read(state, kind.query(query, projection, multiplier), kind, angles)
    return tf.cast(tf.transpose(output, [0, 2, 1, 3]), dtype), state


def _kernel(name: str, causal: bool, rotary) -> Kernel:
    if name not in KERNELS:
        raise InputError(f"unknown kernel {name!r}", "kernel", f"use one of {', '.join(KERNELS)}")
    kernel = KERNELS[name]
    if kernel.per_feature and (causal or rotary is not None):
        raise InputError(f"kernel {name!r} normalises each feature over the whole length, so it "
                         "has no causal and no rotary form", "kernel", "use 'favor' or 'elu'")
    return kernel


def _check_order(query, key, ordered: bool, both: bool) -> None:
    if both:
        raise InputError("causal=True contradicts segment_ids", "causal",
                         "leave one out: segment_ids are the UniLM mask")
    lengths = query.shape[2], key.shape[2]
    if ordered and None not in lengths and lengths[0] != lengths[1]:
        raise InputError(f"{lengths[0]} queries and {lengths[1]} keys have no common order",
                         "causal", "give both the same length, or use favor_step")


def _prepare(query, key, value, projection, key_mask, kind: Kernel, name: str):
    """To [batch, heads, length, size] in float32 or float64, padded keys and values set to 0."""
    tensors = [tf.convert_to_tensor(x) for x in (query, key, value)]
    dtype = tf.float64 if tf.float64 in [x.dtype for x in tensors] else tf.float32
    query, key, value = (_heads_first(x, dtype) for x in tensors)
    if kind.random and projection is None:
        raise InputError(f"kernel {name!r} has no projection", "projection",
                         "give one from orthogonal_projection")
    if projection is not None:
        projection = tf.cast(projection, key.dtype)
        if projection.shape[-1] != key.shape[-1]:
            raise InputError(f"the projection is for head size {projection.shape[-1]}, the keys "
                             f"have {key.shape[-1]}", "projection", "make one of that head size")
    if query.shape[-1] != key.shape[-1]:
        raise InputError(f"queries have size {query.shape[-1]}, keys {key.shape[-1]}", "query",
                         "give both the same head size")
    if key_mask is None:
        return query, key, value, projection, tf.ones_like(key[..., :1])
    weight = _weight(key_mask, key.dtype)
    keep = weight > 0
    return query, tf.where(keep, key, 0), tf.where(keep, value, 0), projection, weight


def _heads_first(x, dtype):
    if x.shape.rank != 4:
        raise InputError(f"a tensor of rank {x.shape.rank}", "query, key, value",
                         "give [batch, length, heads, head_size]")
    return tf.transpose(tf.cast(x, dtype), [0, 2, 1, 3])


def _weight(mask, dtype):
    """[batch, length] → [batch, 1, length, 1] of zeros and ones."""
    mask = tf.convert_to_tensor(mask)
    return tf.cast(tf.cast(mask, tf.bool), dtype)[:, None, :, None]


def _keys(kind, key, value, weight, projection, multiplier, angles) -> sums.Keys:
    weight = tf.broadcast_to(weight, tf.concat([tf.shape(value)[:-1], [1]], 0))
    columns = tf.concat([value * weight, weight], axis=-1)
    return sums.Keys(kind.key(key, projection, multiplier, weight), columns, angles)


def _causal(kind, query, key, value, weight, projection, multiplier, query_angles, key_angles,
            state=None):
    """Splits everything into chunks, reads each with what came before it, and joins them again."""
    length = tf.shape(query)[2]
    weight = tf.broadcast_to(weight, tf.concat([tf.shape(value)[:-1], [1]], 0))
    query, key, value, weight = (_chunked(x) for x in (query, key, value, weight))
    query_angles, key_angles = (a and tuple(_chunked(x) for x in a)
                                for a in (query_angles, key_angles))
    keys = _keys(kind, key, value, weight, projection, multiplier, key_angles)
    output = sums.read_prefixes(kind.query(query, projection, multiplier), keys, kind, state,
                                query_angles)
    shape = tf.shape(output)
    joined = tf.reshape(output, [shape[0], shape[1], shape[2] * shape[3], output.shape[-1]])
    return joined[:, :, :length]


def _chunked(x):
    """[b, h, n, size] → [b, h, chunks, CHUNK, size], zeros at the end."""
    shape = tf.shape(x)
    x = tf.pad(x, [[0, 0], [0, 0], [0, -shape[2] % CHUNK], [0, 0]])
    return tf.reshape(x, [shape[0], shape[1], -1, CHUNK, x.shape[-1]])


def _positions(query, key, rotary, rotary_at, kind: Kernel, projection):
    """(query, key, angles of the queries, angles of the keys), rotated already if at the inputs."""
    if rotary_at not in ("features", "inputs"):
        raise InputError(f"rotary_at is {rotary_at!r}", "rotary_at", "use 'features' or 'inputs'")
    if rotary is None:
        return query, key, None, None
    size = key.shape[-1]
    if rotary_at == "inputs":
        angles = _angles(rotary, size, key.dtype)
        return sums.rotate(query, angles), sums.rotate(key, angles), None, None
    angles = _angles(rotary, kind.size(_rows(projection), size), key.dtype)
    return query, key, angles, angles


def _angles(rotary, size: int, dtype) -> tuple | None:
    """Interleaved sin, cos [1 or b, n, d] → (cos, sin) [1 or b, 1, n, size], repeated or cut."""
    if rotary is None:
        return None
    if size % 2:
        raise InputError(f"rotary positions turn pairs, and there are {size} features",
                         "num_features", "use an even number of features; one_plus_cos has "
                         "head size + 1 of them")
    rotary = tf.cast(rotary, dtype)[:, None]
    copies = -(-size // rotary.shape[-1])
    rotary = tf.tile(rotary, [1, 1, 1, copies])[..., :size]
    return tuple(tf.repeat(rotary[..., first::2], 2, axis=-1) for first in (1, 0))


def _rows(projection) -> int:
    return 0 if projection is None else projection.shape[0]

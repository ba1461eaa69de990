"""Masked language model: which positions are predicted, and what stands there instead.

15 % of the tokens are chosen; of these 80 % become [MASK], 10 % a random token, 10 % stay as
they are (kexue.fm 7758, after BERT). Everything is a function of the seed: step n of a run masks
the same tokens whether the run was interrupted or not.
"""

import tensorflow as tf


def mask_tokens(ids, seed, mask_id: int, ordinary_ids, rate: float = 0.15, continues=None):
    """Chooses positions and returns (inputs, positions, labels).

    ids:          [batch, length] token ids.
    seed:         two integers; the same seed gives the same masks.
    mask_id:      the id of [MASK].
    ordinary_ids: [n] ids that may be chosen and may be drawn as the random token: everything but
                  [PAD], [CLS], [SEP], ….
    rate:         the share of tokens to predict.
    continues:    [batch, length] booleans, True where a token goes on with the word of the token
                  before it: then words are chosen as a whole. None chooses token by token.

    Returns inputs [batch, length], positions [chosen] into the flattened batch, ascending, and
    labels [chosen], the ids that stood there.

    >>> inputs, positions, labels = mask_tokens([[2, 7, 8, 9, 3]], (0, 1), 4, [7, 8, 9], rate=1.0)
    >>> positions.numpy().tolist(), labels.numpy().tolist()
    ([1, 2, 3], [7, 8, 9])
    """
    ids = tf.convert_to_tensor(ids, tf.int32)
    ordinary_ids = tf.convert_to_tensor(ordinary_ids, tf.int32)
    choose_seed, act_seed, draw_seed = tf.unstack(
        tf.random.experimental.stateless_split(tf.convert_to_tensor(seed, tf.int32), 3))
    ordinary = _is_member(ids, ordinary_ids)
    dice = tf.random.stateless_uniform(tf.shape(ids), choose_seed)  # [batch, length]
    if continues is not None:
        dice = _shared_by_word(dice, continues)
    chosen = ordinary & (dice < rate)
    act = tf.random.stateless_uniform(tf.shape(ids), act_seed)
    draw = tf.random.stateless_uniform(tf.shape(ids), draw_seed, 0, tf.size(ordinary_ids),
                                       tf.int32)
    instead = tf.where(act < 0.8, mask_id, tf.where(act < 0.9, tf.gather(ordinary_ids, draw), ids))
    inputs = tf.where(chosen, instead, ids)
    flat = tf.reshape(ids, [-1])
    positions = tf.cast(tf.where(tf.reshape(chosen, [-1]))[:, 0], tf.int32)
    return inputs, positions, tf.gather(flat, positions)


def _is_member(ids, allowed):
    """Where ids are among ``allowed``: by table, since allowed is nearly the whole vocabulary."""
    size = 1 + tf.maximum(tf.reduce_max(ids), tf.reduce_max(allowed))
    table = tf.scatter_nd(allowed[:, None], tf.ones_like(allowed), [size])
    return tf.gather(table, ids) > 0


def _shared_by_word(dice, continues):
    """Every token of a word gets the number of the word's first token."""
    starts = tf.cast(~tf.cast(continues, tf.bool), tf.int32)
    word = tf.maximum(tf.cumsum(starts, axis=1) - 1, 0)  # [batch, length] index of the word
    return tf.gather(dice, word, batch_dims=1)

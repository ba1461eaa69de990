#! -*- coding: utf-8 -*-
# 各种模型走一遍：因果性、梯度、训练几步。python families.py 输出文件

import json
import sys
import numpy as np
import tensorflow as tf
from bert4keras.backend import K, keras, do_recompute
from bert4keras.models import build_transformer_model
from bert4keras.optimizers import Adam
from keras import backend, initializers

CONFIG = dict(
    vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=16, hidden_act='gelu', max_position=16
)
FAMILIES = {
    'bert': dict(),
    'bert with_mlm': dict(with_mlm='linear'),
    'bert with_nsp': dict(with_nsp=True),
    'bert lm': dict(application='lm', with_mlm='linear'),
    'bert unilm': dict(application='unilm', with_mlm='linear'),
    'bert hierarchical_position': dict(hierarchical_position=True, max_position=4),
    'roformer': dict(model='roformer'),
    'nezha': dict(model='nezha'),
    'albert': dict(model='albert', embedding_size=4),
    'electra': dict(model='electra', with_discriminator=True),
    'gpt': dict(model='gpt'),
    't5': dict(model='t5.1.1', hidden_act='gelu'),
}


def inputs_of(model, last=9):
    tokens = np.array([[2, 5, 6, 7, 8, 3, 11, 4, last], [2, 9, 3, 10, 12, 13, 14, 3, last]])
    segments = np.array([[0] * 6 + [1] * 3, [0] * 3 + [1] * 6])
    names = [i.name for i in model.inputs]
    return [segments if 'Segment' in n else tokens for n in names]


results = {'recompute': bool(do_recompute)}
for name, kwargs in FAMILIES.items():
    keras.utils.set_random_seed(7)
    model = build_transformer_model(**dict(CONFIG, **kwargs))
    x, changed = inputs_of(model), inputs_of(model, last=15)
    y, z = np.array(model(x)), np.array(model(changed))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.convert_to_tensor(model(x, training=True))[..., :1]**2)
    gradients = tape.gradient(loss, model.trainable_weights)
    norms = [
        float(tf.norm(tf.convert_to_tensor(g))) for g in gradients if g is not None
    ]
    optimizer = Adam(1e-2)
    losses = []
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((tf.convert_to_tensor(model(x, training=True))[..., :1] - 1)**2)
        losses.append(float(loss))
        optimizer.apply_gradients([
            (g, w) for g, w in zip(tape.gradient(loss, model.trainable_weights), model.trainable_weights)
            if g is not None
        ])
    if y.ndim == 3:
        seen = np.abs(y - z).max(axis=(0, 2)).tolist()  # 每个位置看到最后一个token了吗
    else:
        seen = None
    results[name] = dict(output=y.ravel()[:4].tolist(), seen=seen, norms=norms, losses=losses)

with open(sys.argv[1], 'w') as f:
    json.dump(results, f)

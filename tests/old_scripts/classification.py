#! -*- coding: utf-8 -*-
# 文本分类，老写法：python classification.py FOLDER，FOLDER里有bert_config.json等
# 类别由第一个字决定，几个epoch就能学会。

import json
import os
import sys
import numpy as np
import keras
from keras import backend as old_K
from keras.layers import Dense, Dropout, Lambda
from keras.layers.merge import add
from keras.models import Model
from keras.utils import np_utils
from bert4keras.backend import K, set_gelu
from bert4keras.models import build_transformer_model
from bert4keras.optimizers import *
from bert4keras.snippets import *
from bert4keras.tokenizers import Tokenizer

set_gelu('tanh')  # 切换gelu版本

folder = sys.argv[1]
maxlen = 16
batch_size = 8
config_path = os.path.join(folder, 'bert_config.json')
checkpoint_path = os.path.join(folder, 'bert_model.ckpt')
dict_path = os.path.join(folder, 'vocab.txt')


def load_data(n, seed):
    """造数据：[(文本, 标签id)]
    """
    rng = np.random.RandomState(seed)
    texts = [''.join(rng.choice(list(u'甲乙丙丁戊己'), 6)) for _ in range(n)]
    return [(t, int(t[0] in u'甲乙丙')) for t in texts]


train_data, valid_data = load_data(96, 1), load_data(32, 2)
tokenizer = Tokenizer(dict_path, do_lower_case=True)


class data_generator(DataGenerator):
    """数据生成器
    """
    def __iter__(self, random=False):
        batch_token_ids, batch_segment_ids, batch_labels = [], [], []
        for is_end, (text, label) in self.sample(random):
            token_ids, segment_ids = tokenizer.encode(text, maxlen=maxlen)
            batch_token_ids.append(token_ids)
            batch_segment_ids.append(segment_ids)
            batch_labels.append(label)
            if len(batch_token_ids) == self.batch_size or is_end:
                batch_token_ids = sequence_padding(batch_token_ids)
                batch_segment_ids = sequence_padding(batch_segment_ids)
                batch_labels = np_utils.to_categorical(batch_labels, 2)
                yield [batch_token_ids, batch_segment_ids], batch_labels
                batch_token_ids, batch_segment_ids, batch_labels = [], [], []


train_generator = data_generator(train_data, batch_size)
valid_generator = data_generator(valid_data, batch_size)

bert = build_transformer_model(
    config_path, checkpoint_path, with_pool=True, return_keras_model=False
)
first = Lambda(lambda x: x[:, 1], name='First-Token')(bert.layers['Transformer-0-FeedForward-Norm'].output)
output = add([bert.model.output, first])
output = Dropout(rate=0.1)(output)
# 训练阶段加噪声，预测阶段不加
output = Lambda(
    lambda x: K.in_train_phase(x + 0.01 * K.random_normal(K.shape(x)), x),
    name='Noise'
)(output)
output = Dense(2, activation='softmax', kernel_initializer=bert.initializer)(output)
model = Model(bert.model.input, output)

AdamLR = extend_with_piecewise_linear_lr(Adam, name='AdamLR')
AdamLRGA = extend_with_gradient_accumulation(AdamLR, name='AdamLRGA')
optimizer = AdamLRGA(
    lr=1e-2, lr_schedule={10: 1, 100: 0.1}, grad_accum_steps=2
)
model.compile(loss='categorical_crossentropy', optimizer=optimizer, metrics=['accuracy'])


def evaluate(data):
    total, right = 0., 0.
    for x_true, y_true in data:
        y_pred = model.predict(x_true).argmax(axis=1)
        total += len(y_true)
        right += (y_true.argmax(axis=1) == y_pred).sum()
    return right / total


class Evaluator(keras.callbacks.Callback):
    """评估与保存
    """
    def __init__(self):
        self.best_val_acc = 0.

    def on_epoch_end(self, epoch, logs=None):
        val_acc = evaluate(valid_generator)
        if val_acc > self.best_val_acc:
            self.best_val_acc = val_acc
            model.save_weights('best_model.weights')
        print(u'val_acc: %.5f, best_val_acc: %.5f\n' % (val_acc, self.best_val_acc))


if __name__ == '__main__':

    evaluator = Evaluator()
    history = model.fit_generator(
        train_generator.forfit(),
        steps_per_epoch=len(train_generator),
        epochs=8,
        verbose=0,
        callbacks=[evaluator]
    )
    model.load_weights('best_model.weights')
    predictions = model.predict_generator(
        (x for x, _ in valid_generator), steps=len(valid_generator)
    )
    loss, accuracy = model.evaluate_generator(
        valid_generator.forfit(random=False), steps=len(valid_generator)
    )
    with open('classification.json', 'w') as f:
        json.dump({
            'losses': [float(l) for l in history.history['loss']],
            'best': evaluator.best_val_acc,
            'again': float(accuracy),
            'predictions': list(predictions.shape),
            'lr': float(K.get_value(optimizer.lr)),
            'same_backend': old_K is K,
        }, f)

else:

    model.load_weights('best_model.weights')

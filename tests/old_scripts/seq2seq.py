#! -*- coding: utf-8 -*-
# 用UniLM学“把句子倒过来”，老写法：python seq2seq.py

import json
import numpy as np
from bert4keras.backend import keras, K
from bert4keras.layers import Loss
from bert4keras.models import build_transformer_model
from bert4keras.optimizers import Adam
from bert4keras.snippets import AutoRegressiveDecoder, DataGenerator, sequence_padding
from bert4keras.tokenizers import Tokenizer
from keras.models import Model

tokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]'] + list(u'甲乙丙丁')
token_dict = dict(zip(tokens, range(len(tokens))))
tokenizer = Tokenizer(token_dict, do_lower_case=True)
keras.utils.set_random_seed(1)

data = [a + b for a in u'甲乙丙丁' for b in u'甲乙丙丁']


class data_generator(DataGenerator):
    """单条样本格式：[CLS]原文[SEP]倒文[SEP]
    """
    def __iter__(self, random=False):
        batch_token_ids, batch_segment_ids = [], []
        for is_end, text in self.sample(random):
            token_ids, segment_ids = tokenizer.encode(text, text[::-1])
            batch_token_ids.append(token_ids)
            batch_segment_ids.append(segment_ids)
            if len(batch_token_ids) == self.batch_size or is_end:
                batch_token_ids = sequence_padding(batch_token_ids)
                batch_segment_ids = sequence_padding(batch_segment_ids)
                yield [batch_token_ids, batch_segment_ids], None
                batch_token_ids, batch_segment_ids = [], []


class CrossEntropy(Loss):
    """交叉熵作为loss，并mask掉输入部分
    """
    def compute_loss(self, inputs, mask=None):
        y_true, y_mask, y_pred = inputs
        y_true = y_true[:, 1:]  # 目标token_ids
        y_mask = y_mask[:, 1:]  # segment_ids，刚好指示了要预测的部分
        y_pred = y_pred[:, :-1]  # 预测序列，错开一位
        loss = K.sparse_categorical_crossentropy(y_true, y_pred)
        return K.sum(loss * y_mask) / K.sum(y_mask)


model = build_transformer_model(
    application='unilm', with_mlm=True, vocab_size=8, hidden_size=32,
    num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
    hidden_act='gelu', max_position=8
)
output = CrossEntropy(2)(model.inputs + model.outputs)
model = Model(model.inputs, output)
model.compile(optimizer=Adam(3e-3))


class Reverse(AutoRegressiveDecoder):
    """seq2seq解码器
    """
    @AutoRegressiveDecoder.wraps(default_rtype='probas')
    def predict(self, inputs, output_ids, states):
        token_ids, segment_ids = inputs
        token_ids = np.concatenate([token_ids, output_ids], 1)
        segment_ids = np.concatenate([segment_ids, np.ones_like(output_ids)], 1)
        return self.last_token(model).predict([token_ids, segment_ids])

    def generate(self, text, topk=2):
        token_ids, segment_ids = tokenizer.encode(text)
        output_ids = self.beam_search([token_ids, segment_ids], topk=topk)
        return tokenizer.decode(output_ids)


reverse = Reverse(start_id=None, end_id=tokenizer._token_end_id, maxlen=4)

if __name__ == '__main__':
    generator = data_generator(data, 16)
    history = model.fit(
        generator.forfit(), steps_per_epoch=len(generator), epochs=150, verbose=0
    )
    with open('seq2seq.json', 'w') as f:
        json.dump({
            'losses': [float(l) for l in history.history['loss']],
            'answers': {text: reverse.generate(text) for text in [u'甲乙', u'丁丙']},
        }, f)

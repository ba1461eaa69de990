"""Texts and a tokenizer for the tests of pre-training."""

import numpy as np

from bert_theseus.wobert import CharTokenizer

TOKENS = "[PAD] [UNK] [CLS] [SEP] [MASK] 今 天 气 很 好 我 们 在 北 京 大 学 。 ，".split()
VOCAB = {token: i for i, token in enumerate(TOKENS)}
tokenizer = CharTokenizer(VOCAB, True)


def texts(count=60, seed=0):
    draw = np.random.default_rng(seed)
    return ["".join(draw.choice(TOKENS[5:], draw.integers(3, 30))) + "。" for _ in range(count)]

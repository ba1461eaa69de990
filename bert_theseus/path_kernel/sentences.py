"""A small text classification task that the package makes itself: what a sentence says of a thing.

    这家店的面条很好吃  → 1        这家店的面条不好吃  → 0

A negation turns the word's colour round, so that a sentence's label is no sum over its characters
and the model needs a hidden layer.

>>> texts, labels = sentences(2, seed=0)
>>> len(texts), set(labels) <= {0, 1}
(2, True)
"""

import numpy as np

PLACES = ("这家店", "那家店", "我家楼下", "学校门口", "公司旁边", "朋友家")
THINGS = ("面条", "米饭", "包子", "饺子", "汤", "鱼", "茶", "点心", "水果", "菜")
GOOD = ("好吃", "新鲜", "便宜", "干净", "香", "可口")
BAD = ("难吃", "发霉", "昂贵", "油腻", "冷", "糟糕")
DEGREES = ("很", "真", "特别", "不", "不太", "并不")


def sentences(count: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Texts and labels [count], 1 for praise; all different."""
    random, texts = np.random.default_rng(seed), {}
    while len(texts) < count:
        degree, good = str(random.choice(DEGREES)), random.random() < 0.5
        word = str(random.choice(GOOD if good else BAD))
        text = f"{random.choice(PLACES)}的{random.choice(THINGS)}{degree}{word}"
        texts[text] = int(good != ("不" in degree))
    return list(texts), np.array(list(texts.values()))


def vocabulary() -> dict[str, int]:
    """Character → id; 0 is padding.

    >>> vocabulary()["不"] > 0
    True
    """
    characters = sorted(set("的" + "".join(PLACES + THINGS + GOOD + BAD + DEGREES)))
    return {character: i + 1 for i, character in enumerate(characters)}


def encode(texts: list[str], length: int = 13) -> np.ndarray:
    """Ids [texts, length] int32, padded with 0; longer texts are cut.

    >>> encode(["不香"], 3)[0, 2]
    np.int32(0)
    """
    ids, known = np.zeros((len(texts), length), "int32"), vocabulary()
    for row, text in zip(ids, texts):
        row[:len(text[:length])] = [known[character] for character in text[:length]]
    return ids

"""Writes a knowledge file of KgCLUE's size and shape, and a vocabulary for it. Seeded.

    python benchmarks/make_knowledge.py /big/disk/knowledge.txt --triples 20559652

At full size: 20,559,652 triples, 3,121,457 entities, 245,838 relations of which 3,833 are used
over 100 times, a bracketed disambiguation on 27 % of the subjects. Relations fall off like
Zipf's law, fitted to those counts. Other sizes keep the proportions.
"""

import argparse
from pathlib import Path

import numpy as np

TRIPLES, ENTITIES, RELATIONS, FREQUENT, BRACKETS = 20_559_652, 3_121_457, 245_838, 3_833, 0.27
ENDINGS = ["", "", "", "公司", "中学", "镇", "村", "大学", "医院", "路", "传", "寺", "山", "集团"]
KINDS = ["演员", "电视剧", "中国内地歌手", "2008年出版图书", "小说", "游戏", "汉语词语", "网络小说",
         "电影", "公司", "人物", "植物", "陕西省下辖镇", "唱片", "作家", "软件", "品牌", "地名"]
PLAIN = 20_000  # characters of the vocabulary; a few names use others, which become [UNK]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def relation_counts(triples: int, relations: int, frequent: int) -> np.ndarray:
    """How often each relation is used; ``frequent`` of them over 100 times."""
    rank = np.arange(1, relations + 1)
    tail = 100 * (frequent / rank) ** (np.log(100) / np.log(relations / frequent))
    head, low, high = rank <= frequent, 0.0, 5.0
    for _ in range(60):  # the exponent of the head that gives the total
        middle = (low + high) / 2
        counts = np.where(head, 101 * ((frequent + 20) / (rank + 20)) ** middle, tail)
        low, high = (middle, high) if counts.sum() < triples else (low, middle)
    counts = np.maximum(counts, 1).astype(int)
    spread = np.arange(frequent)
    missing = triples - counts.sum()  # what rounding left
    np.add.at(counts, spread[:abs(missing) % frequent], np.sign(missing))
    counts[:frequent] += int(missing / frequent)
    return counts


def words(random, count: int, length: int = 2) -> np.ndarray:
    """Distinct words of Chinese characters, common characters more often."""
    rank = np.minimum(random.zipf(1.25, (3 * count, length)), PLAIN) - 1
    rank = np.where(rank == PLAIN - 1, random.integers(0, PLAIN, rank.shape), rank)
    codes = (0x4E00 + rank).astype("<u4")
    return np.unique(codes.view(f"<U{length}").ravel())[:count]


def distinct_names(random, vocabulary, count: int, endings) -> list[str]:
    """``count`` different names of one to three words, a few with Latin letters or rare signs."""
    names: dict[str, None] = {}
    while len(names) < count:
        parts = random.choice(vocabulary, (count, 3))
        size, end = random.integers(1, 4, count), random.integers(0, len(endings), count)
        odd = random.random(count)
        for a, (b, c, d), n, e in zip(odd.tolist(), parts.tolist(), size.tolist(), end.tolist()):
            name = (b, b + c, b + c + d)[n - 1] + endings[e]
            if a < 0.06:
                name += "A3" if a < 0.03 else "·" + c
            elif a > 0.995:
                name = chr(0x9E20 + int(a * 1e6) % 400) + name
            names[name] = None
    return list(names)[:count]


def generate(path: Path, triples: int, seed: int = 0) -> None:
    """Writes the knowledge file, subjects in blocks as in KgCLUE, and ``vocab.txt`` beside it."""
    random, share = np.random.default_rng(seed), triples / TRIPLES
    entities, relations = max(int(ENTITIES * share), 1), max(int(RELATIONS * share), 60)
    vocabulary = words(random, 40_000)
    random.shuffle(vocabulary)
    bare = distinct_names(random, vocabulary, int(entities * 0.85) + 1, ENDINGS)
    names = _entities(random, bare, entities)
    predicates = distinct_names(random, vocabulary[:8000], relations, ["", "时间", "名称", "地点"])
    counts = relation_counts(triples, relations, max(int(FREQUENT * share), 10))
    drawn = np.repeat(np.arange(relations), counts)
    random.shuffle(drawn)
    owners = np.sort(np.concatenate([np.arange(entities),
                                     random.integers(0, entities, triples - entities)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for start in range(0, triples, 1_000_000):
            part = slice(start, min(start + 1_000_000, triples))
            texts = _objects(random, bare, part.stop - part.start)
            file.writelines(f"{names[s]}\t{predicates[p]}\t{o}\n" for s, p, o in
                            zip(owners[part].tolist(), drawn[part].tolist(), texts))
    write_vocabulary(path.with_name("vocab.txt"))


def _entities(random, bare: list[str], entities: int) -> list[str]:
    """Names, 27 % of them with a bracket; some names stand for several entities."""
    names = dict.fromkeys(bare[:int(entities * (1 - BRACKETS))])
    while len(names) < entities:
        stems = random.integers(0, len(bare), entities).tolist()
        kinds = random.integers(0, len(KINDS), entities).tolist()
        years = random.integers(1900, 2021, entities).tolist()
        for stem, kind, year in zip(stems, kinds, years):
            extra = f"{year}年{KINDS[kind]}" if year % 3 else KINDS[kind]
            names[f"{bare[stem]}（{extra}）"] = None
            if len(names) == entities:
                break
    names = list(names)
    random.shuffle(names)
    return names


def _objects(random, bare: list[str], count: int) -> list[str]:
    """Names, lists of names, dates, measures and words from a short list."""
    kind, number = random.random(count), random.integers(0, 100_000_000, count)
    one, two = random.integers(0, len(bare), (2, count))
    return [bare[a] if k < 0.3 else f"{bare[a]}、{bare[b]}" if k < 0.45
            else f"{1900 + n % 121}年{1 + n % 12}月{1 + n % 28}日" if k < 0.6
            else f"{n / 100:.2f}公里" if k < 0.75 else KINDS[n % len(KINDS)] if k < 0.9
            else f"{bare[a]}，{bare[b]}，{bare[n % len(bare)]}，{n}"
            for k, n, a, b in zip(kind.tolist(), number.tolist(), one.tolist(), two.tolist())]


def write_vocabulary(path: Path) -> None:
    """A character vocabulary as of a Chinese BERT, about 21,000 entries."""
    ascii_ = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = ["##" + c for c in ascii_ if c.isalnum()] + [f"19{i:02d}" for i in range(100)]
    chinese = [chr(0x4E00 + i) for i in range(PLAIN)]
    tokens = SPECIAL + ascii_ + pieces + list("（）《》、，。·：") + chinese
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--triples", type=int, default=TRIPLES)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generate(arguments.path, arguments.triples, arguments.seed)

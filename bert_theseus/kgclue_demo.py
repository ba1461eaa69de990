"""A small knowledge base, questions and a model made on the spot, so that the script runs alone.

Persons with a few properties each; some share a name and differ by what stands in the bracket.
Half of the questions name the property, the others paraphrase it. The questioned persons of dev
and test are not asked for in training. The model starts from random weights.

>>> folder = make_demo("demo", persons=30)
>>> sorted(path.name for path in folder.iterdir())
['bert', 'kgclue', 'knowledge.txt']
"""

import json
import os
from pathlib import Path

import numpy as np

from bert_theseus.checkpoint import random_bert
from bert_theseus.prefix_tree import split_subject
from bert_theseus.results import replace_file

SURNAMES = "赵钱孙李周吴郑王冯陈"
GIVEN = "文武明德志国建华丽芳春秋海山云林"
JOBS = ["演员", "教师", "医生", "作家", "画家"]
PLACES = ["北京", "上海", "广州", "成都", "武汉", "西安"]
ASKED = {
    "职业": ["是做什么工作的？", "靠什么谋生？"],
    "出生地": ["在哪里出生？", "是哪里人？"],
    "毕业院校": ["在哪所学校毕业？", "念的是哪所大学？"],
    "出生日期": ["是哪年出生的？", "生于什么时候？"],
    "身高": ["有多高？", "个子多高？"],
    "妻子": ["和谁结婚？", "娶了谁？"],
}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SETTINGS = {"model": "roformer", "maxlen": 48, "batch_size": 64, "learning_rate": 2e-3,
            "epochs": 10, "beam": [1, 3]}


def make_demo(folder: str | os.PathLike, persons: int = 1500, seed: int = 0) -> Path:
    """Writes ``knowledge.txt``, ``kgclue/{train,dev,test}.json`` and a random model ``bert``."""
    folder, random = Path(folder), np.random.default_rng(seed)
    facts = {name: _person(name, random) for name in _names(persons, random)}
    lines = [f"{name}\t{predicate}\t{text}" for name, own in facts.items()
             for predicate, text in own.items()]
    _write(folder / "knowledge.txt", lines)
    names = list(facts)
    cuts = {"train": names[:-persons // 5], "dev": names[-persons // 5:-persons // 10],
            "test": names[-persons // 10:]}
    for split, own in cuts.items():
        _write(folder / "kgclue" / f"{split}.json",
               [json.dumps(_question(name, predicate, facts[name], random), ensure_ascii=False)
                for name in own for predicate in facts[name]])
    characters = sorted(set("".join(lines) + "".join(sum(ASKED.values(), [])) + "请问的是什么"))
    random_bert(folder / "bert", SPECIAL + [c for c in characters if c.strip()], 3, 96, heads=4,
                model="roformer")
    return folder


def _write(path: Path, lines: list[str]) -> None:
    replace_file(path, lambda beside: beside.write_text("\n".join(lines) + "\n", encoding="utf-8"))


def _names(count: int, random) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < count:
        name = random.choice(list(SURNAMES)) + "".join(random.choice(list(GIVEN), 2))
        names[f"{name}（{random.choice(JOBS)}）" if random.random() < 0.27 else name] = None
    return list(names)


def _person(name: str, random) -> dict[str, str]:
    """Most of the properties of a person."""
    texts = {"职业": split_subject(name)[1] or random.choice(JOBS),
             "出生地": random.choice(PLACES), "毕业院校": random.choice(PLACES) + "大学",
             "出生日期": f"{random.integers(1940, 2005)}年",
             "身高": f"{random.integers(150, 200)}厘米", "妻子": "".join(
                 random.choice(list(SURNAMES), 1)) + "".join(random.choice(list(GIVEN), 2))}
    kept = random.permutation(len(texts))[:4]
    return {key: str(text) for i, (key, text) in enumerate(texts.items()) if i in kept}


def _question(name: str, predicate: str, facts: dict[str, str], random) -> dict[str, str]:
    subject, meaning = split_subject(name)
    asked = meaning + subject if meaning else subject
    ending = f"的{predicate}是什么？" if random.random() < 0.5 else random.choice(ASKED[predicate])
    return {"question": ("请问" if random.random() < 0.3 else "") + asked + ending,
            "answer": f"{name} ||| {predicate} ||| {facts[predicate]}"}


def prepare(args, parser) -> None:
    """Lets a script's arguments name the demo's files, and its settings where none were given."""
    folder = make_demo(Path(args.output_dir) / "demo")
    args.data_dir, args.bert_dir = str(folder), str(folder / "bert")
    args.knowledge = [str(folder / "knowledge.txt")]
    for name, value in SETTINGS.items():
        if getattr(args, name) == parser.get_default(name):
            setattr(args, name, value)

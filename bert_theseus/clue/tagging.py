"""Named entities as tags and back, at character positions.

CLUENER's form {type: {surface: [[start, end], …]}} has ``end`` inclusive; a :data:`Span` here is
(type, start, end) with the same ``end``. The tags of a text are B-type on the token that begins an
entity, I-type on its further tokens, O elsewhere; token positions come from the tokenizer's
``rematch``, so a word piece that straddles an entity's edge costs recall instead of shifting it.
"""

from collections.abc import Iterable, Sequence

Span = tuple[str, int, int]


def entities_of(label: dict) -> list[Span]:
    """CLUENER's label as a sorted list of spans.

    >>> entities_of({"name": {"叶老桂": [[9, 11], [32, 34]]}})
    [('name', 9, 11), ('name', 32, 34)]
    """
    return sorted((kind, start, end) for kind, surfaces in label.items()
                  for positions in surfaces.values() for start, end in positions)


def label_of(text: str, spans: Iterable[Span]) -> dict:
    """Spans in CLUENER's form, the inverse of :func:`entities_of`.

    >>> label_of("浙商银行", [("company", 0, 3)])
    {'company': {'浙商银行': [[0, 3]]}}
    """
    label: dict = {}
    for kind, start, end in sorted(spans):
        label.setdefault(kind, {}).setdefault(text[start:end + 1], []).append([start, end])
    return label


def encode_tags(spans: Iterable[Span], mapping: Sequence[Sequence[int]],
                tags: Sequence[str]) -> list[int]:
    """One tag id a token. ``mapping``: the characters of each token, as ``rematch`` gives them.

    Where entities overlap the longer one is kept: a token has one tag.

    >>> encode_tags([("name", 1, 2)], [[], [0], [1], [2], []], ("O", "B-name", "I-name"))
    [0, 0, 1, 2, 0]
    """
    ids, index = [0] * len(mapping), {tag: i for i, tag in enumerate(tags)}
    for kind, start, end in sorted(spans, key=lambda span: span[1] - span[2]):
        inside = [i for i, chars in enumerate(mapping)
                  if len(chars) and chars[0] >= start and chars[-1] <= end]
        if inside and not any(ids[i] for i in inside):
            ids[inside[0]] = index["B-" + kind]
            for i in inside[1:]:
                ids[i] = index["I-" + kind]
    return ids


def decode_tags(ids: Sequence[int], mapping: Sequence[Sequence[int]],
                tags: Sequence[str]) -> list[Span]:
    """The spans that tag ids mean; an I- without its B- begins an entity, as in conlleval.

    >>> decode_tags([0, 0, 1, 2, 0], [[], [0], [1], [2], []], ("O", "B-name", "I-name"))
    [('name', 1, 2)]
    """
    spans: list[Span] = []
    open_kind = None
    for i, chars in zip(ids, mapping):
        mark, _, kind = tags[i].partition("-")
        if not len(chars) or mark == "O":
            open_kind = None
        elif mark == "I" and kind == open_kind:
            spans[-1] = (kind, spans[-1][1], chars[-1])
        else:
            spans.append((kind, chars[0], chars[-1]))
            open_kind = kind
    return spans


def entity_f1(predicted: Sequence[Iterable[Span]], true: Sequence[Iterable[Span]]) -> dict:
    """Micro-averaged F1 over all texts: a span counts if type, start and end are all right.

    >>> entity_f1([[("name", 0, 1)], []], [[("name", 0, 1)], [("book", 2, 3)]])["recall"]
    0.5
    """
    predicted, true = [set(spans) for spans in predicted], [set(spans) for spans in true]
    right = sum(len(p & t) for p, t in zip(predicted, true, strict=True))
    precision = right / max(sum(map(len, predicted)), 1)
    recall = right / max(sum(map(len, true)), 1)
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {"entity F1": f1, "precision": precision, "recall": recall}

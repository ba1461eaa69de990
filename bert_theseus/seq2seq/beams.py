"""The hypotheses of a batch of questions as arrays, and one model call for what they wait for."""

from dataclasses import dataclass, field

import numpy as np

from bert_theseus.prefix_tree import PrefixTree
from bert_theseus.seq2seq.cached import CachedUniLM


@dataclass
class Beams:
    """Open hypotheses, n of them, of all questions of the batch.

    owner [n]: which question. score [n]: log probability so far. cursor [n]: where in the tree.
    past [n, entries]: which pool entries are its own tokens. tokens: all of its tokens.
    pending [n]: how many of these, at the end, the model has not seen yet.
    rows: the look-ahead's rows over the question, and how many tokens each has taken in.
    """

    owner: np.ndarray
    score: np.ndarray
    cursor: np.ndarray
    past: np.ndarray
    pending: np.ndarray
    tokens: list[list[int]] = field(default_factory=list)
    rows: list[tuple[np.ndarray, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.owner)

    def take(self, index: np.ndarray) -> "Beams":
        """The hypotheses at ``index`` (repetitions allowed), as copies."""
        return Beams(self.owner[index], self.score[index], self.cursor[index], self.past[index],
                     self.pending[index], [list(self.tokens[i]) for i in index],
                     [self.rows[i] for i in index])

    def push(self, tree: PrefixTree, index: np.ndarray, tokens: np.ndarray) -> None:
        """Lets the hypotheses at ``index`` go on with one token each."""
        self.cursor[index] = tree.advance(self.cursor[index], tokens)
        self.pending[index] += 1
        for i, token in zip(index.tolist(), tokens.tolist()):
            self.tokens[i].append(token)

    def follow_forced(self, tree: PrefixTree, across_parts: bool = True) -> None:
        """Goes on where the tree leaves no choice; such tokens have probability 1.

        Stops at a key, and unless ``across_parts`` at the end of a subject or predicate.
        """
        going = np.arange(len(self))
        while len(going):
            stop = tree.is_key(self.cursor[going])
            if not across_parts:
                stop |= [self.tokens[i][-1:] == [tree.end_id] for i in going]
            going = going[~stop]
            owners, tokens = tree.children(self.cursor[going])
            single = np.bincount(owners, minlength=len(going)) == 1
            self.push(tree, going[single], tokens[single[owners]])
            going = going[single]


class Session:
    """One batch of questions under way: model, caches, pool of answer tokens.

    Sizes of what the model is given are rounded up, questions by repeating the first one, so
    that few different shapes occur: oneDNN keeps a kernel for every shape it has seen, and a
    server would see new ones for hours.
    """

    def __init__(self, model: CachedUniLM, token_ids: np.ndarray):
        self.model = model
        self.question, first = model.encode(token_ids[_filled(np.arange(len(token_ids)))])
        self.first = first.numpy()                                        # [batch, vocabulary]
        self.pool = model.empty_pool(len(self.first))
        self.entries = 0

    def feed(self, beams: Beams, owners: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Runs the pending tokens; returns log P(target | hypothesis ``owners[i]``) [c]."""
        if not beams.pending.any():  # nothing but the question is known yet
            return self.first[beams.owner[owners], targets]
        slot, width = self._slots(beams)
        tokens = np.zeros((len(self.first), width), "int32")
        depths, mask = np.zeros_like(tokens), self._own(len(tokens), width)
        beams.past = pad(beams.past, self.entries + width)
        for i, (question, count) in enumerate(zip(beams.owner, beams.pending)):
            new = slice(slot[i], slot[i] + count)
            tokens[question, new] = beams.tokens[i][-count:]
            depths[question, new] = np.arange(-count, 0) + len(beams.tokens[i])
            mask[question, new] |= beams.past[i]
            chain = slice(self.entries + slot[i], self.entries + slot[i] + count)
            mask[question, new, chain] = np.tri(count, dtype=bool)
            beams.past[i, chain] = True
        wanted = _filled(np.stack([beams.owner, slot + beams.pending - 1], 1))
        scores, self.pool = self.model.extend(self.question, self.pool, tokens, depths, mask,
                                              wanted, owners, targets)
        self.entries += width
        beams.pending = np.zeros_like(beams.pending)
        return scores.numpy()

    def _slots(self, beams: Beams) -> tuple[np.ndarray, int]:
        """Where each hypothesis' pending tokens go among its question's new entries."""
        slot, filled = np.zeros(len(beams), "int64"), np.zeros(len(self.first), "int64")
        for i, (owner, count) in enumerate(zip(beams.owner.tolist(), beams.pending.tolist())):
            slot[i] = filled[owner]
            filled[owner] += count
        return slot, int(filled.max()) + int(filled.max()) % 2

    def _own(self, batch: int, width: int) -> np.ndarray:
        """A mask [batch, new, entries + new] in which every new token sees itself alone."""
        mask = np.zeros((batch, width, self.entries + width), bool)
        mask[:, np.arange(width), self.entries + np.arange(width)] = True
        return mask

    def score_nodes(self, beams: Beams, nodes: "Nodes", rows: np.ndarray,
                    targets: np.ndarray) -> np.ndarray:
        """log P(target | node ``rows[i]``) [c] for the tries below the beams, in one call.

        The beams have no pending tokens. The nodes do not stay in the pool. Only the questions
        that the nodes belong to are run.
        """
        asked, batch = np.unique(beams.owner[nodes.owners], return_inverse=True)
        slot = np.arange(len(batch)) - np.searchsorted(batch, batch)  # sorted like the beams
        asked, width = _filled(asked), round_up(int(slot.max()) + 1)
        question, pool = self.model.select(self.question, self.pool, asked)
        tokens, depths = np.zeros((2, len(asked), width), "int32")
        mask, past = self._own(len(asked), width), pad(beams.past, self.entries + width)
        tokens[batch, slot], depths[batch, slot] = nodes.tokens, nodes.depths
        for i, parent in enumerate(nodes.parents.tolist()):
            mask[batch[i], slot[i]] |= past[nodes.owners[i]] if parent < 0 else \
                mask[batch[i], slot[parent]]
        scores, _ = self.model.extend(question, pool, tokens, depths, mask,
                                      _filled(np.stack([batch, slot], 1)), rows, targets)
        return scores.numpy()

    def keep(self, questions: np.ndarray) -> None:
        """Drops all questions but these; the caller renumbers the owners."""
        questions = _filled(questions)
        self.question, self.pool = self.model.select(self.question, self.pool, questions)
        self.first = self.first[questions]


@dataclass(frozen=True)
class Nodes:
    """Tries below hypotheses: per node its token, its depth in the answer, its parent (an
    earlier node, or −1) and the hypothesis it belongs to; all [nodes]."""

    tokens: np.ndarray
    depths: np.ndarray
    parents: np.ndarray
    owners: np.ndarray


def round_up(size: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, … (a power of two, or one and a half).

    >>> [round_up(size) for size in (1, 3, 5, 9, 13, 33)]
    [1, 3, 6, 12, 16, 48]
    """
    power = 1 << (size - 1).bit_length()
    return power * 3 // 4 if power >= 4 and size <= power * 3 // 4 else power


def _filled(rows: np.ndarray) -> np.ndarray:
    """The rows, and the first one again up to a number that ``round_up`` returns."""
    return np.concatenate([rows, np.repeat(rows[:1], round_up(len(rows)) - len(rows), axis=0)])


def pad(past: np.ndarray, entries: int) -> np.ndarray:
    """Masks over the pool [n, entries], widened to its present size."""
    return np.pad(past, ((0, 0), (0, entries - past.shape[1])))

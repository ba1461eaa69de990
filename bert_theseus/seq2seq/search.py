"""Beam search over the tree that keeps what it found and knows when to stop.

A hypothesis' score is the log probability of its tokens, each normalised over the tokens the tree
allows: the scores of all keys are those of one distribution, finished and unfinished ones are
comparable without any correction for length, and an unfinished one can only lose. So finished
hypotheses are kept, and the search of a question ends when no open one can get into its n best.

Tokens without an alternative cost nothing: they wait and are run together with the next choice,
and a hypothesis with one key left below it is finished at once.
"""

from dataclasses import dataclass

import numpy as np

from bert_theseus.prefix_tree import PrefixTree
from bert_theseus.seq2seq import lookahead
from bert_theseus.seq2seq.beams import Beams, Nodes, Session, pad

RULES = ("none", "look-ahead", "exact", "exact+look-ahead")


@dataclass(frozen=True)
class Finished:
    """A key that was reached: its log probability and its leaf [1]."""

    score: float
    leaf: np.ndarray


class Search:
    """One batch: questions as token ids, answered by ``run``.

    rule: "none" normalises every step over the allowed tokens; "look-ahead" is the article's;
    "exact" searches the subject step by step, then scores each of its predicates as a whole, in
    one batch, and after that each meaning: P(predicate | subject) ∝ Π p(token) over the full
    vocabulary, so that a first character that fits cannot lead into a predicate that does not;
    "exact+look-ahead" raises that product to 1 / (D + 1), D what the whole predicate covers.
    """

    def __init__(self, session: Session, tree: PrefixTree, questions: list[np.ndarray],
                 beam_size: int, n_best: int, rule: str, max_tokens: int):
        self.session, self.tree, self.questions = session, tree, questions
        self.beam_size, self.n_best, self.max_tokens = beam_size, n_best, max_tokens
        self.whole, self.ahead = rule.startswith("exact"), rule.endswith("look-ahead")
        self.finished: list[list[Finished]] = [[] for _ in questions]
        self.number = np.arange(len(questions))   # of the questions still in the session

    def run(self) -> list[list[Finished]]:
        """The best keys of every question, best first."""
        beams = self._start()
        if self.whole:
            beams = self._subjects(beams)
        while len(beams):
            grown = self._most_promising(beams) if self.whole else self._step(beams)
            beams = self._drop_answered(self._best(self._settle(grown), self._bar()))
        return [sorted(found, key=lambda f: -f.score)[:self.n_best] for found in self.finished]

    def _start(self) -> Beams:
        count = len(self.questions)
        beams = Beams(np.arange(count), np.zeros(count), np.repeat(self.tree.root, count),
                      np.zeros((count, 0), bool), np.zeros(count, "int64"),
                      [[] for _ in range(count)],
                      [(lookahead.first_row(question), 0) for question in self.questions])
        beams.follow_forced(self.tree, across_parts=not self.whole)
        return self._settle(beams)

    # ---- one step --------------------------------------------------------------------------
    def _step(self, beams: Beams) -> Beams:
        """Every open hypothesis goes on by one choice; the best of each question are returned."""
        owners, tokens = self.tree.children(beams.cursor)
        weights = self._weights(beams, owners, tokens)
        logs = self.session.feed(beams, owners, tokens)
        scores = beams.score[owners] + _normalised(weights * logs, owners)
        best = _top(beams.owner[owners], scores, 2 * self.beam_size)
        grown = beams.take(owners[best])
        grown.score = scores[best]
        grown.push(self.tree, np.arange(len(grown)), tokens[best])
        grown.follow_forced(self.tree, across_parts=not self.whole)
        return grown

    def _weights(self, beams: Beams, owners: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The exponents 1 / (D + 1) of the look-ahead [c], 1 where it does not apply."""
        weights = np.ones(len(tokens))
        if not self.ahead:
            return weights
        choices = np.bincount(owners, minlength=len(beams))
        ahead = np.array([i for i in np.flatnonzero(choices > 1).tolist()
                          if self.tree.end_id in beams.tokens[i]], int)
        paths = self.tree.paths(beams.cursor[ahead])
        for place, i in enumerate(ahead.tolist()):
            question = self.questions[self.number[beams.owner[i]]]
            gain = lookahead.gains(self._row(beams, i, question),
                                   paths.tokens[paths.owners == place], question)
            mine = np.flatnonzero(owners == i)
            weights[mine] = [1 / (gain[token] + 1) for token in tokens[mine].tolist()]
        return weights

    def _row(self, beams: Beams, i: int, question: np.ndarray) -> np.ndarray:
        """The look-ahead row of a hypothesis, moved on by its tokens since the last time."""
        row, done = beams.rows[i]
        for token in beams.tokens[i][done:]:
            row = lookahead.next_row(row[None], np.array([token]), question)[0]
        beams.rows[i] = row, len(beams.tokens[i])
        return row

    # ---- what stays ------------------------------------------------------------------------
    def _settle(self, beams: Beams) -> Beams:
        """Hands finished hypotheses to their question and returns the open ones."""
        whole, key = self.tree.sole(beams.cursor), self.tree.is_key(beams.cursor)
        leaves = beams.cursor.copy()
        leaves[whole] = self.tree.finish(beams.cursor[whole])
        for i in np.flatnonzero(whole | key).tolist():
            self.finished[self.number[beams.owner[i]]].append(
                Finished(float(beams.score[i]), leaves[i:i + 1]))
        fits = np.array([len(tokens) < self.max_tokens for tokens in beams.tokens], bool)
        return beams.take(np.flatnonzero(~whole & ~key & fits))

    def _bar(self, others: Beams | None = None, count: int | None = None) -> np.ndarray:
        """Per question the score of its ``count``-th best finished (or other) hypothesis: an open
        one that is not above it cannot matter any more."""
        count, bars = count or self.n_best, np.full(len(self.number), -np.inf)
        for place, number in enumerate(self.number.tolist()):
            scores = [f.score for f in self.finished[number]]
            if others is not None:
                scores += others.score[others.owner == place].tolist()
            if len(scores) >= count:
                bars[place] = sorted(scores, reverse=True)[count - 1]
        return bars

    def _best(self, beams: Beams, bars: np.ndarray) -> Beams:
        """The ``beam_size`` best hypotheses of each question that are above its bar."""
        beams = beams.take(np.flatnonzero(beams.score > bars[beams.owner]))
        return beams.take(_top(beams.owner, beams.score, self.beam_size))

    def _drop_answered(self, beams: Beams) -> Beams:
        """Takes answered questions out of the batch once they are half of it."""
        alive = np.unique(beams.owner)
        if 0 < len(alive) <= len(self.number) // 2:
            self.session.keep(alive)
            self.number = self.number[alive]
            beams.owner = np.searchsorted(alive, beams.owner)
        return beams

    # ---- exact scoring of whole parts ------------------------------------------------------
    def _subjects(self, beams: Beams) -> Beams:
        """The best subjects of every question: hypotheses that stand right behind a subject."""
        complete = beams.take(np.zeros(0, int))
        while len(beams):
            behind = np.array([tokens[-1:] == [self.tree.end_id] for tokens in beams.tokens])
            complete = _join(complete, beams.take(np.flatnonzero(behind)), self.session.entries)
            complete = complete.take(_top(complete.owner, complete.score, self.beam_size))
            bars = np.maximum(self._bar(), self._bar(complete, self.beam_size))
            beams = self._best(beams.take(np.flatnonzero(~behind)), bars)
            if len(beams):
                beams = self._settle(self._step(beams))
        return self._best(complete, self._bar())

    def _most_promising(self, beams: Beams) -> Beams:
        """The ``n_best`` best hypotheses of each question go on, the others wait: mostly they
        need not go on at all."""
        going = _top(beams.owner, beams.score, self.n_best)
        waiting = np.setdiff1d(np.arange(len(beams)), going)
        grown = self._parts(beams.take(going))
        return _join(grown, beams.take(waiting), self.session.entries)

    def _parts(self, beams: Beams) -> Beams:
        """Each hypothesis with each of its next parts (predicates, or meanings), scored whole."""
        paths = self.tree.paths(beams.cursor, until_end=True)
        choices = np.bincount(paths.owners, minlength=len(beams))
        scores = np.zeros(len(paths.owners))
        open_ = np.flatnonzero(choices[paths.owners] > 1)
        if len(open_):
            owners, tokens = paths.owners[open_], paths.tokens[open_]
            scores[open_] = self._path_weights(beams, owners, tokens) * self._path_scores(
                beams, owners, tokens)
        scores = beams.score[paths.owners] + _normalised(scores, paths.owners)
        grown = beams.take(paths.owners)
        grown.score, grown.cursor = scores, paths.cursors
        lengths = (paths.tokens >= 0).sum(1)
        grown.pending = grown.pending + lengths
        for own, path, length in zip(grown.tokens, paths.tokens.tolist(), lengths.tolist()):
            own.extend(path[:length])
        return grown

    def _path_weights(self, beams: Beams, owners: np.ndarray, paths: np.ndarray) -> np.ndarray:
        """The exponents 1 / (D + 1) of whole parts [paths], 1 without the look-ahead."""
        weights = np.ones(len(owners))
        for i in np.unique(owners).tolist() if self.ahead else ():
            question, mine = self.questions[self.number[beams.owner[i]]], owners == i
            gain = lookahead.path_gains(self._row(beams, i, question), paths[mine], question)
            weights[mine] = 1 / (gain + 1)
        return weights

    def _path_scores(self, beams: Beams, owners: np.ndarray, paths: np.ndarray) -> np.ndarray:
        """Σ log P of every path's tokens [paths] over the full vocabulary."""
        firsts, owner_of = np.unique(np.stack([owners, paths[:, 0]], 1), axis=0,
                                     return_inverse=True)
        first = self.session.feed(beams, firsts[:, 0], firsts[:, 1])[owner_of.ravel()]
        rest = np.concatenate([
            self._rest_scores(beams, owners[start:start + NODE_PATHS],
                              paths[start:start + NODE_PATHS])
            for start in range(0, len(paths), NODE_PATHS)])
        return first + rest

    def _rest_scores(self, beams, owners, paths) -> np.ndarray:
        """The same without each path's first token; common prefixes are run once."""
        inner = (paths[:, 1:] >= 0)                        # tokens that something follows
        fresh = np.ones(inner.shape, bool)
        same = (paths[1:, :-1] == paths[:-1, :-1]) & (owners[1:] == owners[:-1])[:, None]
        fresh[1:] = ~np.logical_and.accumulate(same, axis=1)
        fresh &= inner
        number = np.where(fresh, np.cumsum(fresh).reshape(fresh.shape) - 1, -1)
        number = np.maximum.accumulate(number, axis=0)     # a repeated prefix is the one above
        row, column = np.nonzero(fresh)
        parents = np.where(column > 0, number[row, np.maximum(column - 1, 0)], -1)
        lengths = np.array([len(tokens) for tokens in beams.tokens])
        nodes = Nodes(paths[row, column], lengths[owners[row]] + column, parents, owners[row])
        if not len(row):
            return np.zeros(len(paths))
        path, place = np.nonzero(inner)
        logs = self.session.score_nodes(beams, nodes, number[path, place], paths[path, place + 1])
        return np.bincount(path, logs, len(paths))


NODE_PATHS = 256  # paths scored in one call


def _normalised(logs: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Log softmax of ``logs`` within each group of ``owners`` (sorted)."""
    if not len(logs):
        return logs
    starts = np.flatnonzero(np.append(True, owners[1:] != owners[:-1]))
    sizes = np.diff(np.append(starts, len(owners)))
    shifted = logs - np.repeat(np.maximum.reduceat(logs, starts), sizes)
    return shifted - np.repeat(np.log(np.add.reduceat(np.exp(shifted), starts)), sizes)


def _top(groups: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the ``count`` best of each group, by group, best first."""
    order = np.lexsort((-scores, groups))
    ordered = groups[order]
    return order[np.arange(len(order)) - np.searchsorted(ordered, ordered) < count]


def _join(one: Beams, two: Beams, entries: int) -> Beams:
    """Hypotheses of two times in one; the pool has grown in between."""
    joined = {name: np.concatenate([getattr(one, name), getattr(two, name)])
              for name in ("owner", "score", "cursor", "pending")}
    past = np.concatenate([pad(one.past, entries), pad(two.past, entries)])
    return Beams(past=past, tokens=one.tokens + two.tokens, rows=one.rows + two.rows, **joined)

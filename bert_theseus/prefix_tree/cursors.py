"""Moving through the sorted tables: ranges of rows as cursors, all moves over arrays of them.

A cursor stands in one of three tables, ``stage`` 0 to 2 (subjects, then the predicate and the
meaning column of the keys), with ``depth`` tokens of that table's sequence behind it; rows
``lo … hi − 1`` are those that begin with them. ``stage`` 3 is a leaf: all tokens are consumed.
"""

import numpy as np

from bert_theseus.prefix_tree.container import Reader
from bert_theseus.prefix_tree.tables import ragged

CURSOR = np.dtype([("lo", "i8"), ("hi", "i8"), ("node", "i8"), ("extra", "i8"),
                   ("depth", "i4"), ("stage", "i4")])
LEAF, DEAD = 3, -1
_SCAN = 64  # ranges up to this long are read through, longer ones are bisected


class Tables:
    """The arrays of a tree's file and the moves on them; knows nothing of changed facts."""

    def __init__(self, reader: Reader, end_id: int):
        array = reader.array
        self.end_id = end_id
        self.ids = [array(f"{field}.ids") for field in ("subject", "predicate", "meaning")]
        self.starts = [array(f"{field}.starts") for field in ("subject", "predicate", "meaning")]
        self.columns = [None, array("key.predicate"), array("key.meaning")]
        self.node_token, self.node_row = array("node.token"), array("node.row")
        self.node_child, self.subject_keys = array("node.child"), array("subject.keys")

    def root(self) -> np.ndarray:
        """[1] cursor over everything."""
        cursor = np.zeros(1, CURSOR)
        cursor["hi"] = len(self.starts[0]) - 1
        return cursor

    def token(self, stage: int, rows: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """The token at ``depth`` of each row's sequence in the stage's table."""
        column = self.columns[stage]
        rows = rows if column is None else column[rows]
        return self.ids[stage][self.starts[stage][rows].astype("int64") + depth]

    def key_range(self, cursors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and last + 1 row of the keys below each cursor."""
        early = cursors["stage"] == 0
        lo, hi = cursors["lo"].copy(), cursors["hi"].copy()
        lo[early] = self.subject_keys[lo[early]]
        hi[early] = self.subject_keys[hi[early]]
        return lo, hi

    def sole(self, cursors: np.ndarray) -> np.ndarray:
        """Whether exactly one token path is left below each cursor."""
        lo, hi = self.key_range(cursors)
        last = np.maximum(hi - 1, lo)
        one_subject = (cursors["stage"] > 0) | (cursors["hi"] - cursors["lo"] == 1)
        one = (hi > lo) & one_subject
        for column in self.columns[1:]:
            one[one] = column[lo[one]] == column[last[one]]
        return one

    # ---- children --------------------------------------------------------------------------
    def children(self, cursors: np.ndarray):
        """(owner, token, lo, hi) of every child, by owner, then token."""
        size = cursors["hi"] - cursors["lo"]
        open_ = (cursors["stage"] >= 0) & (cursors["stage"] < LEAF)
        parts = [self._only_child(cursors, np.flatnonzero(open_ & (size == 1)))]
        wide = open_ & (size > 1)
        parts.append(self._node_children(cursors, np.flatnonzero(wide & (cursors["stage"] == 0))))
        for stage in (1, 2):
            which = np.flatnonzero(wide & (cursors["stage"] == stage))
            parts.append(self._run_children(cursors, which, stage))
        owner, token, lo, hi = (np.concatenate(column) for column in zip(*parts))
        order = np.argsort(owner, kind="stable")
        return owner[order], token[order], lo[order], hi[order]

    def _only_child(self, cursors, which):
        token = np.zeros(len(which), "int64")
        for stage in range(LEAF):
            here = cursors["stage"][which] == stage
            rows = which[here]
            token[here] = self.token(stage, cursors["lo"][rows], cursors["depth"][rows])
        return which, token, cursors["lo"][which], cursors["hi"][which]

    def _node_children(self, cursors, which):
        node = cursors["node"][which]
        first = self.node_child[node].astype("int64")
        counts = self.node_child[node + 1] - first
        nodes, owner = ragged(first, counts), np.repeat(which, counts)
        return owner, self.node_token[nodes].astype("int64"), *self._node_range(
            nodes, np.repeat(first + counts, counts), cursors["hi"][owner])

    def _node_range(self, nodes, end, parent_hi):
        """Rows of a node: up to its next sibling, or to the end of its parent."""
        following = np.minimum(nodes + 1, len(self.node_row) - 1)
        return (self.node_row[nodes].astype("int64"),
                np.where(nodes + 1 < end, self.node_row[following], parent_hi))

    def _run_children(self, cursors, which, stage):
        if not len(which):
            return (which,) * 4
        lo, hi = cursors["lo"][which], cursors["hi"][which]
        depth = cursors["depth"][which]
        long = np.flatnonzero(hi - lo > _SCAN)
        short = np.flatnonzero(hi - lo <= _SCAN)
        owner, start = (np.concatenate(pair) for pair in zip(
            self._scan(lo, hi, depth, short, stage), self._bisect(lo, hi, depth, long, stage)))
        order = np.lexsort((start, owner))
        owner, start = owner[order], start[order]
        end = np.append(start[1:], 0)
        last = np.append(owner[1:] != owner[:-1], True)
        end[last] = hi[owner[last]]
        token = self.token(stage, start, depth[owner]).astype("int64")
        return which[owner], token, start, end

    def _scan(self, lo, hi, depth, owners, stage):
        sizes = hi[owners] - lo[owners]
        rows, owner = ragged(lo[owners], sizes), np.repeat(owners, sizes)
        token = self.token(stage, rows, depth[owner])
        fresh = np.ones(len(rows), bool)
        fresh[1:] = (token[1:] != token[:-1]) | (owner[1:] != owner[:-1])
        return owner[fresh], rows[fresh]

    def _bisect(self, lo, hi, depth, owners, stage):
        """Where the token changes in long ranges: halves without a change are never read."""
        owner, a, b = owners, lo[owners], hi[owners] - 1
        found = [(owners, lo[owners])]
        while len(owner):
            differ = self.token(stage, a, depth[owner]) != self.token(stage, b, depth[owner])
            owner, a, b = owner[differ], a[differ], b[differ]
            next_to = b - a == 1
            found.append((owner[next_to], b[next_to]))
            owner, a, b = owner[~next_to], a[~next_to], b[~next_to]
            middle = (a + b) // 2
            owner, a, b = np.tile(owner, 2), np.append(a, middle), np.append(middle, b)
        return tuple(np.concatenate(column) for column in zip(*found))

    # ---- advance ---------------------------------------------------------------------------
    def advance(self, cursors: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The cursors one token further; dead where the token is no child."""
        result = cursors.copy()
        size = cursors["hi"] - cursors["lo"]
        found = np.zeros(len(cursors), bool)
        for stage in range(LEAF):
            here = (cursors["stage"] == stage) & (size > 0)
            rows = np.flatnonzero(here & ((size == 1) | (stage > 0)))
            found[rows] = self._advance_rows(result, rows, tokens[rows], stage)
            if stage == 0:
                nodes = np.flatnonzero(here & (size > 1))
                found[nodes] = self._advance_nodes(result, nodes, tokens[nodes])
        result["depth"] += 1
        for field in ("lo", "hi", "node", "depth"):
            result[field][~found] = 0
        result["stage"][~found] = DEAD
        self._next_part(result, np.flatnonzero(found & (tokens == self.end_id)))
        return result

    def _advance_nodes(self, result, which, tokens):
        """Binary search among the children of branching nodes."""
        node = result["node"][which]
        first, end = self.node_child[node].astype("int64"), self.node_child[node + 1]
        place = _lower_bound(first, end, lambda at, where: self.node_token[at] < tokens[where])
        found = place < end
        found[found] = self.node_token[place[found]] == tokens[found]
        place = np.where(found, place, first)
        lo, hi = self._node_range(place, end, result["hi"][which])
        result["lo"][which], result["hi"][which], result["node"][which] = lo, hi, place
        return found

    def _advance_rows(self, result, which, tokens, stage):
        """Binary search for both ends of the run of rows that go on with the token."""
        lo, hi, depth = (result[field][which] for field in ("lo", "hi", "depth"))
        start = _lower_bound(lo, hi, lambda at, where:
                             self.token(stage, at, depth[where]) < tokens[where])
        found = start < hi
        found[found] = self.token(stage, start[found], depth[found]) == tokens[found]
        end = _lower_bound(start, hi, lambda at, where:
                           self.token(stage, at, depth[where]) <= tokens[where])
        result["lo"][which], result["hi"][which] = start, end
        return found

    def _next_part(self, result, which):
        """After the end token: from a subject to its keys, from a predicate to its meanings."""
        subjects = which[result["stage"][which] == 0]
        lo = result["lo"][subjects]
        result["lo"][subjects] = self.subject_keys[lo]
        result["hi"][subjects] = self.subject_keys[lo + 1]
        result["stage"][which] += 1
        result["depth"][which] = result["node"][which] = 0


def _lower_bound(lo: np.ndarray, hi: np.ndarray, below) -> np.ndarray:
    """First place in each [lo, hi) that is not ``below(place, index of the range)``."""
    lo, hi = lo.astype("int64"), hi.astype("int64")
    active = np.flatnonzero(lo < hi)
    while len(active):
        middle = (lo[active] + hi[active]) // 2
        under = below(middle, active)
        lo[active[under]] = middle[under] + 1
        hi[active[~under]] = middle[~under]
        active = active[lo[active] < hi[active]]
    return lo

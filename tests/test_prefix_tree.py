"""The tree against the article's own: nested dictionaries walked from the root."""

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bert4keras.tokenizers import Tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_theseus.errors import InputError
from bert_theseus.prefix_tree import (PrefixTree, build, cursors, join_subject,
                                      split_subject, strings)
from bert_theseus.prefix_tree.tables import Sequences, sort_sequences
from bert_theseus.prefix_tree.tokens import BatchTokenizer

WORDS = ("[PAD] [UNK] [CLS] [SEP] [MASK] a b ##a ##b 1 ##1 （ ） 《 甲 乙 丙 丁 子 丑 · é "
         "e ##e ab ! 中 国").split()
TOKENIZER = Tokenizer({word: i for i, word in enumerate(WORDS)}, do_lower_case=True)
NAMES = st.text("甲乙丙丁子龘靐aAb1（）· ", min_size=1, max_size=5).filter(str.strip)
TRIPLES = st.lists(st.tuples(NAMES, st.text("甲乙子丑a", min_size=1, max_size=4),
                             st.text("甲乙a1", min_size=1, max_size=3)), min_size=1, max_size=40)
FEW = settings(max_examples=15, deadline=None,
               suppress_health_check=[HealthCheck.function_scoped_fixture])


def article_ids(subject, predicate, meaning):
    """As in the article: encode(s, p)[1:] + encode(m)[1:]."""
    return TOKENIZER.encode(subject, predicate)[0][1:] + TOKENIZER.encode(meaning)[0][1:]


def reference(triples):
    """Token ids of each key → its objects by full subject and predicate, in file order."""
    keys = {}
    for name, predicate, text in triples:
        subject, meaning = split_subject(name)
        ids = tuple(article_ids(subject, predicate, meaning))
        texts = keys.setdefault(ids, {}).setdefault((subject, predicate, meaning), [])
        if (text := " ".join(text.split())) not in texts:
            texts.append(text)
    return keys


def write(triples, path="knowledge.txt"):
    text = "".join("\t".join(triple) + "\n" for triple in triples)
    Path(path).write_text(text, encoding="utf-8", newline="\n")
    return path


def check_equal(tree, keys):
    """The tree's children, keys and objects are those of ``keys``, prefix by prefix."""
    below = {}
    for ids in keys:
        for length in range(len(ids)):
            below.setdefault(ids[:length], set()).add(ids[length])
    prefixes = sorted(below)
    cursors = np.concatenate([tree.walk(prefix) for prefix in prefixes])
    owners, tokens = tree.children(cursors)
    found = {prefix: set() for prefix in prefixes}
    for owner, token in zip(owners.tolist(), tokens.tolist()):
        found[prefixes[owner]].add(token)
    assert found == below
    assert len(tokens) == sum(map(len, below.values()))
    assert not tree.is_key(cursors).any()
    for ids, facts in keys.items():
        leaf = tree.walk(ids)
        assert tree.is_key(leaf).all()
        assert {(f.subject, f.predicate, f.meaning): list(f.objects)
                for f in tree.facts(leaf)} == facts


@FEW
@given(TRIPLES, st.booleans())
def test_it_is_the_articles_tree(triples, in_pieces):
    with pytest.MonkeyPatch.context() as patch:
        if in_pieces:  # many chunks, buckets and blocks, and no range short enough to be scanned
            for module, name, value in ((build, "CHUNK_BYTES", 64), (build, "BUCKET_LINES", 4),
                                        (strings, "SHARE_STRINGS", 3), (cursors, "_SCAN", 1),
                                        (strings, "RANGE_STRINGS", 2), (build, "BLOCK", 2)):
                patch.setattr(module, name, value)
        tree = PrefixTree.build(write(triples), TOKENIZER, "k.tree", threads=2)
        check_equal(tree, reference(triples))
        tree.verify()


@FEW
@given(TRIPLES, st.lists(st.integers(0, len(WORDS) - 1), max_size=6))
def test_a_token_that_is_no_child_leaves_the_tree(triples, tokens):
    tree = PrefixTree.build(write(triples), TOKENIZER, "k.tree", threads=1)
    prefixes = {ids[:n] for ids in reference(triples) for n in range(len(ids) + 1)}
    cursor = tree.walk(tokens)
    inside = tuple(tokens) in prefixes
    assert inside == bool(len(tree.children(cursor).tokens) or tree.is_key(cursor)[0])
    if not inside:
        assert tree.objects(cursor) == []


@FEW
@given(TRIPLES)
def test_paths_are_the_keys_and_a_sole_path_can_be_followed_at_once(triples):
    tree = PrefixTree.build(write(triples), TOKENIZER, "k.tree", threads=1)
    keys = sorted(reference(triples))
    paths = [tuple(t for t in row if t >= 0) for row in tree.paths(tree.root).tokens.tolist()]
    assert paths == keys
    prefixes = sorted({ids[:n] for ids in keys for n in range(len(ids))})
    at = np.concatenate([tree.walk(prefix) for prefix in prefixes])
    below = [[ids for ids in keys if ids[:len(prefix)] == prefix] for prefix in prefixes]
    assert tree.sole(at).tolist() == [len(found) == 1 for found in below]
    for leaf, found in zip(tree.finish(at[tree.sole(at)])[:, None],
                           [b for b in below if len(b) == 1]):
        assert tree.facts(leaf) == tree.facts(tree.walk(found[0]))


@given(st.lists(st.text(max_size=12) | NAMES, min_size=1, max_size=8), st.booleans())
@settings(max_examples=100, deadline=None)
def test_batch_tokens_are_those_of_bert4keras(texts, lower):
    tokenizer = Tokenizer(TOKENIZER._token_dict, do_lower_case=lower)
    texts = [text for text in texts if not any("\ud800" <= c <= "\udfff" for c in text)]
    ids, lengths = BatchTokenizer(tokenizer).encode(texts)
    expected = [tokenizer.encode(text)[0][1:] for text in texts]
    assert ids.tolist() == [token for row in expected for token in row]
    assert lengths.tolist() == [len(row) for row in expected]


def test_a_tokenizer_of_another_kind_is_used_as_it_is():
    cut = Tokenizer(TOKENIZER._token_dict, pre_tokenize=lambda text: [text[:2], text[2:]])
    cut._token_dict = {**cut._token_dict, "甲乙": 4}
    ids, _ = BatchTokenizer(cut).encode(["甲乙丙"])
    assert ids.tolist() == cut.encode("甲乙丙")[0][1:] != TOKENIZER.encode("甲乙丙")[0][1:]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=30),
       st.sampled_from([0, 70_000]))
@settings(deadline=None)
def test_sequences_are_sorted_like_tuples(rows, offset):
    rows = [[token + 1 + offset for token in row] + [9 + offset] for row in rows]
    order, fresh = sort_sequences(Sequences(np.concatenate(rows), np.array(list(map(len, rows)))))
    ordered = [rows[i] for i in order]
    assert ordered == sorted(rows)
    assert fresh.tolist() == [i == 0 or ordered[i] != ordered[i - 1] for i in range(len(rows))]


@given(NAMES)
def test_a_bracket_comes_off_and_on_again(name):
    subject, meaning = split_subject(name)
    assert join_subject(subject, meaning) == name or not meaning


def test_unknown_characters_keep_their_subjects_apart():
    tree = PrefixTree.build(write([("龘", "甲", "a"), ("靐", "甲", "b"), ("A", "甲", "1"),
                                   ("a", "甲", "2")]), TOKENIZER, "k.tree")
    assert tree.info["counts"]["subjects with [UNK]"] == 2
    assert tree.info["counts"]["subjects sharing their ids"] == 4
    facts = tree.facts(tree.find("龘", "甲"))
    assert sorted((fact.subject, fact.objects) for fact in facts) == [("靐", ("b",)), ("龘", ("a",))]


def test_files_that_differ_in_form_only():
    triples = [("甲（乙）", "子", "一  二\u3000三 "), ("丙", "丑", "a\u00a0b\u2009c"),
               ("丁", "子", "“x”")]
    keys = reference(triples)
    text = "".join("\t".join(triple) + "\n" for triple in triples).encode()
    forms = {"plain.txt": text, "dos.txt": text.replace(b"\n", b"\r\n"), "open.txt": text[:-1],
             "bom.txt": b"\xef\xbb\xbf" + text, "blank.txt": b"\n" + text + b"\n\n",
             "packed.gz": gzip.compress(text)}
    for name, data in forms.items():
        Path(name).write_bytes(data)
        check_equal(PrefixTree.build(name, TOKENIZER, "k.tree"), keys)


@pytest.mark.parametrize("text, where", [
    ("甲\t子\t一\n甲\t子\n", "k.txt:2"), ("\n甲\t子\t一\t二\n", "k.txt:2"), ("\t子\t一\n", "k.txt:1"),
    ("甲\t\t一\n", "k.txt:1"), ("甲\n", "k.txt:1"), ("", "k.txt"),
    (b"a\tb\tc\n\xff\ta\tb\n", "k.txt:2")])
def test_a_line_that_is_no_triple_is_named(text, where):
    Path("k.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as error:
        PrefixTree.build("k.txt", TOKENIZER, "k.tree")
    assert error.value.where is not None and str(error.value.where) == where
    assert sorted(os.listdir(".")) == ["k.tree.overlay.lock", "k.txt"]


def test_a_damaged_gzip_file_is_refused():
    Path("k.gz").write_bytes(gzip.compress(b"a\tb\tc\n" * 9)[:-9])
    with pytest.raises(InputError, match="gzip"):
        PrefixTree.build("k.gz", TOKENIZER, "k.tree")


def small_tree():
    return PrefixTree.build(write([("甲（乙）", "子", "一"), ("甲", "子", "二"), ("丙丁", "丑", "三")]),
                            TOKENIZER, "k.tree", threads=1)


def test_truncated_damaged_and_foreign_files_are_refused():
    small_tree()
    data = Path("k.tree").read_bytes()
    for length in (0, 7, 31, 40, len(data) // 2, len(data) - 1):
        Path("cut.tree").write_bytes(data[:length])
        with pytest.raises(InputError):
            PrefixTree.open("cut.tree")
    with pytest.raises(InputError, match="another version"):
        Path("old.tree").write_bytes(b"BTPTREE0" + data[8:])
        PrefixTree.open("old.tree")
    with pytest.raises(InputError, match="no prefix tree"):
        PrefixTree.open(write([("a", "b", "c")], "text.tree"))
    with pytest.raises(InputError, match="no such"):
        PrefixTree.open("absent.tree")
    for place in range(64, len(data) - 2000, 97):
        damaged = bytearray(data)
        damaged[place] ^= 1
        Path("bad.tree").write_bytes(damaged)
        with pytest.raises(InputError):
            PrefixTree.open("bad.tree").verify()
            assert data[place:place + 1] == b"\0"  # padding between arrays is not covered
            raise InputError("padding")


def test_another_tokenizer_is_refused():
    small_tree()
    with pytest.raises(InputError, match="another tokenizer"):
        PrefixTree.open("k.tree", Tokenizer(TOKENIZER._token_dict, do_lower_case=False))


# ---- changed facts -----------------------------------------------------------------------------

SUBJECTS, RELATIONS, OBJECTS = ["甲", "甲（乙）", "甲乙", "丙", "龘", "靐"], ["子", "子丑"], ["一", "二"]
CHANGES = st.lists(st.tuples(st.sampled_from(["add", "replace", "delete"]),
                             st.sampled_from(SUBJECTS), st.sampled_from(RELATIONS),
                             st.lists(st.sampled_from(OBJECTS), max_size=2, unique=True)),
                   max_size=12)
FACTS = st.lists(st.tuples(st.sampled_from(SUBJECTS), st.sampled_from(RELATIONS),
                           st.sampled_from(OBJECTS)), min_size=1, max_size=8)


def changed(triples, changes):
    """The triples after the changes, key by key."""
    texts = {}
    for subject, predicate, text in triples:
        texts.setdefault((subject, predicate), []).append(text)
    for do, subject, predicate, objects in changes:
        old = texts.get((subject, predicate), [])
        texts[subject, predicate] = {
            "add": old + objects, "replace": objects,
            "delete": [text for text in old if objects and text not in objects]}[do]
    return [(*key, text) for key, own in texts.items() for text in own]


@settings(FEW, max_examples=12)
@given(FACTS, CHANGES)
def test_changes_are_seen_at_once_by_others_and_after_compact(triples, changes):
    tree = PrefixTree.build(write(triples), TOKENIZER, "k.tree", threads=1)
    other = PrefixTree.open("k.tree")
    changes = [change for change in changes if change[3] or change[0] == "delete"]
    for do, subject, predicate, objects in changes:
        getattr(tree, do)(subject, predicate, *objects)
    keys = reference(changed(triples, changes))
    for one in (tree, other, PrefixTree.open("k.tree")):
        check_equal(one, keys)
    if keys:
        tree.compact(TOKENIZER)
        assert not Path("k.tree.overlay").exists()
        for one in (tree, other, PrefixTree.open("k.tree")):
            check_equal(one, keys)


def test_an_overridden_answer_survives_a_restart_and_compact():
    tree = small_tree()
    tree.override("谁？", "甲（乙）", "子")
    tree.add("丁", "子", "五")
    for one in (tree, PrefixTree.open("k.tree", TOKENIZER)):
        assert one.overridden("谁？").objects == ("一",)
        assert one.overridden("谁") is None
    tree.compact(TOKENIZER)
    assert PrefixTree.open("k.tree", TOKENIZER).overridden("谁？").name == "甲（乙）"
    tree.delete("甲（乙）", "子")
    assert tree.overridden("谁？") is None


def test_a_change_needs_the_tokenizer_and_an_object():
    small_tree()
    with pytest.raises(InputError, match="tokenizer"):
        PrefixTree.open("k.tree").add("甲", "子", "一")
    with pytest.raises(InputError, match="object"):
        PrefixTree.open("k.tree", TOKENIZER).add("甲", "子")
    with pytest.raises(InputError, match="no subject"):
        PrefixTree.open("k.tree", TOKENIZER).add("甲\t乙", "子", "一")


def test_a_torn_last_line_of_the_overlay_is_not_taken_in():
    tree = small_tree()
    tree.add("丁", "子", "五")
    whole = Path("k.tree.overlay").read_bytes()
    tree.add("丁", "丑", "六")
    torn = Path("k.tree.overlay").read_bytes()
    for length in range(len(whole), len(torn)):
        Path("k.tree.overlay").write_bytes(torn[:length])
        tree = PrefixTree.open("k.tree", TOKENIZER)
        assert tree.objects(tree.find("丁", "子")) == ["五"]
        assert tree.objects(tree.find("丁", "丑")) == []
    tree.add("丁", "丑", "七")  # goes on after the last whole line
    tree = PrefixTree.open("k.tree", TOKENIZER)
    assert tree.objects(tree.find("丁", "丑")) == ["七"]


def test_an_overlay_of_another_tree_is_refused():
    small_tree().add("丁", "子", "五")
    log = Path("k.tree.overlay").read_bytes()
    PrefixTree.build(write([("甲", "子", "一")]), TOKENIZER, "other.tree")
    Path("other.tree.overlay").write_bytes(log)
    with pytest.raises(InputError, match="another tree"):
        PrefixTree.open("other.tree")


# ---- processes ---------------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from bert_theseus.prefix_tree import PrefixTree, container, tree as tree_module
assert "tensorflow" not in sys.modules
class Letters:
    _token_start = "["; _token_end = "]"; _token_unk = "?"; _token_translate = {}
    _token_end_id = 1; _token_unk_id = 0; _vocab_size = 200
    def encode(self, text): return [2] + [min(ord(c), 199) for c in text] + [1], None
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
"""


def run_program(code):
    return subprocess.run([sys.executable, "-c", PROGRAM + code], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})


def test_a_killed_build_or_compact_leaves_what_was_there():
    write([("a", "b", "c"), ("d", "e", "f")])
    done = run_program('''
if os.fork() == 0:
    tree_module.Build.gather = die
    PrefixTree.build("knowledge.txt", Letters(), "k.tree")
assert os.wait()[1] == signal.SIGKILL
assert not os.path.exists("k.tree")
tree = PrefixTree.build("knowledge.txt", Letters(), "k.tree")
assert not os.path.exists(".k.tree.building")
tree.add("x", "y", "z")
def check():
    new = PrefixTree.open("k.tree", Letters())
    assert new.objects(new.find("x", "y")) == ["z"] and new.objects(new.find("a", "b")) == ["c"]
    new.verify()
for owner, name in ((tree_module.Build, "scatter"), (container.Writer, "write"),
                    (container.os, "replace"), (Path, "unlink")):
    if os.fork() == 0:
        setattr(owner, name, die)
        tree.compact(Letters())
    assert os.wait()[1] == signal.SIGKILL
    check()
tree.refresh()
tree.compact(Letters())
check()
assert sorted(os.listdir(".")) == ["k.tree", "k.tree.overlay.lock", "knowledge.txt"]
''')
    assert done.returncode == 0, done.stderr


def test_two_processes_read_while_one_adds():
    write([("a", "b", "c")])
    done = run_program('''
tree = PrefixTree.build("knowledge.txt", Letters(), "k.tree")
for reader in range(2):
    if os.fork() == 0:
        mine, seen, end = PrefixTree.open("k.tree"), 0, time.time() + 30
        while seen < 60 and time.time() < end:
            found = mine.objects(mine.walk([*map(ord, "ab"), 1, 98, 1, 1]))
            assert found == ["%d" % i for i in range(len(found))] and len(found) >= seen
            seen = len(found)
            assert mine.objects(mine.walk([97, 1, 98, 1, 1])) == ["c"]
        os._exit(seen != 60)
for i in range(60):
    tree.add("ab", "b", str(i))
    if i == 30:
        tree.compact(Letters())
assert [os.wait()[1] for _ in range(2)] == [0, 0]
''')
    assert done.returncode == 0, done.stderr

"""KgCLUE: metric, training examples, calibration, report, server."""

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from bert4keras.models import build_transformer_model
from bert4keras.snippets import longest_common_subsequence
from bert4keras.tokenizers import Tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_theseus import kgclue, kgclue_report, kgclue_server
from bert_theseus.checkpoint import random_bert
from bert_theseus.errors import InputError
from bert_theseus.kgclue_demo import make_demo
from bert_theseus.seq2seq import Answer, lookahead

from running import refusal, run_script

WORDS = "[PAD] [UNK] [CLS] [SEP] 龙 晶 繁 体 游 戏 ？".split()
TOKENIZER = Tokenizer({word: i for i, word in enumerate(WORDS)}, do_lower_case=True)


@given(st.text("abc甲", max_size=8), st.text("abc甲", max_size=8))
@settings(max_examples=60, deadline=None)
def test_f1_is_twice_the_common_subsequence_over_the_lengths(one, two):
    common = longest_common_subsequence(one, two)[0]
    expected = 2 * common / (len(one) + len(two)) if one or two else 0
    assert kgclue.f1_similarity(one, two) == pytest.approx(expected)


def test_the_metric_on_a_case_worked_out_by_hand():
    predicted = [("龙晶", "繁体", "A  b"), ("龙", "作者", "张三")]
    expected = [("龙晶", "繁体", "a b"), ("龙（书）", "作者", "张四")]
    found = kgclue.kgclue_metric(predicted, expected)
    assert found == pytest.approx({
        "EM-S": 0.5, "EM-P": 1, "EM-O": 0.5, "EM-All": 0.5, "F1-S": (1 + 2 / 5) / 2, "F1-P": 1,
        "F1-O": (1 + 2 / 4) / 2, "F1-All": (1 + 2 * 4 / 13) / 2, "score": (0.5 + 0.75) / 2})
    with pytest.raises(ValueError):
        kgclue.kgclue_metric(predicted, expected[:1])


def test_a_training_example_is_the_articles():
    question = kgclue.Question("龙晶？", "龙晶（游戏）", "繁体", "龍晶")
    (tokens, segments), targets = next(iter(
        kgclue.training_batches([question], TOKENIZER, 128, 1).epoch(0)))
    assert tokens[0].tolist() == [2, 4, 5, 10, 3, 4, 5, 3, 6, 7, 3, 8, 9, 3]
    assert segments[0].tolist() == [0] * 5 + [1] * 9
    assert targets[0].tolist() == [0] * 4 + [4, 5, 3, 6, 7, 3, 8, 9, 3] + [0]


def test_the_question_is_cut_and_padding_is_no_target():
    long = kgclue.Question("龙" * 90, "龙晶", "繁体", "")
    (tokens, segments), targets = next(iter(kgclue.training_batches(
        [long, kgclue.Question("龙", "晶", "体", "")], TOKENIZER, 20, 2).epoch(0)))
    row = np.argmax(tokens.astype(bool).sum(1))
    assert (segments[row] == 0).sum() == 11 and tokens.shape[1] == 18
    assert (targets > 0).sum(1).tolist()[1 - row] == 5


def test_logits_and_loss_are_those_of_the_answer_tokens_in_the_whole_model():
    whole = build_transformer_model(
        None, None, "roformer", "unilm", with_mlm="linear", vocab_size=12, hidden_size=8,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, hidden_act="gelu")
    inputs, targets = next(iter(kgclue.training_batches(
        [kgclue.Question("龙晶？", "龙晶（游戏）", "繁体", ""), kgclue.Question("龙", "晶", "体", "")],
        TOKENIZER, 128, 2).epoch(0)))
    logits = whole.predict_on_batch(inputs)[targets > 0]
    model = kgclue.answer_model(whole)
    found = model.predict_on_batch(inputs)
    np.testing.assert_allclose(found, logits, atol=1e-5)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.take_along_axis(logs, targets[targets > 0][:, None], 1).mean()
    loss = float(kgclue.answer_token_crossentropy(targets, found))
    assert loss == pytest.approx(expected, rel=1e-5)
    model.compile("sgd", kgclue.answer_token_crossentropy)
    assert model.train_on_batch(inputs, targets) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("text, what", [
    ('{"question": ""}', "no question"), ('{"question": "a", "answer": "b"}', "1 parts"),
    ("[1]", "q:1"), ("", "no question in the file")])
def test_a_bad_question_file_is_refused(text, what):
    Path("q").write_text(text)
    with pytest.raises(InputError, match=what):
        kgclue.load_questions("q")


def test_a_part_of_an_answer_may_be_empty():
    Path("q").write_text('{"question": "a", "answer": "甲 ||| 乙 |||"}\n{"question": "b"}\n')
    assert [vars(q) for q in kgclue.load_questions("q")] == [
        {"text": "a", "subject": "甲", "predicate": "乙", "object": "", "id": None},
        {"text": "b", "subject": "", "predicate": "", "object": "", "id": None}]


def write_questions(path, texts):
    path.write_text("".join(f'{{"question": "{text}"}}\n' for text in texts))


def test_dev_is_cut_from_train_where_there_is_no_dev_file():
    folder = Path("set")
    folder.mkdir()
    write_questions(folder / "train.json", "abcde")
    sets = kgclue.load_sets(folder, ("train", "dev"), 2)
    assert [[q.text for q in own] for own in sets.values()] == [["a", "b", "c"], ["d", "e"]]
    with pytest.raises(InputError, match="no dev file"):
        kgclue.load_sets(folder, ("train",), 5)
    write_questions(folder / "valid.json", "xyz")
    sets = kgclue.load_sets(folder, ("train", "dev"), 2)
    assert [[q.text for q in own] for own in sets.values()] == [list("abcde"), ["x", "y"]]
    with pytest.raises(InputError, match="test.json"):
        kgclue.load_sets(folder, ("test",), 2)


def test_an_evaluation_is_kept_for_the_same_and_no_other():
    made = kgclue_report.Evaluation({"score": 0.5}, [["甲", "乙", "丙"]], np.array([0.25]),
                                    np.array([True]), 1.5)
    runs = []

    def kept(identity, resume):
        return kgclue_report.Evaluation.kept(Path("e/one.json"), identity, resume,
                                             lambda: runs.append(identity) or made)

    kept("a", True)
    again = kept("a", True)
    assert runs == ["a"] and vars(again) == vars(made) and again.right.dtype == bool
    kept("b", True)
    kept("b", False)
    assert runs == ["a", "b", "b"]


def test_the_calibration_belongs_to_what_was_chosen_on_dev():
    assert kgclue_report.Chosen.read(Path()) == kgclue_report.Chosen("look-ahead", 3, 1)
    fitted = kgclue_report.Chosen("exact", 5, 2, kgclue.Calibration(0.5, 1.0))
    fitted.write(Path())
    found = kgclue_report.Chosen.read(Path())
    assert found == found.but() == found.but(beam=5) == fitted
    assert found.but(beam=1).calibration == kgclue.Calibration()


def test_the_leaderboard_file_has_a_line_per_question_under_its_own_id():
    Path("q.json").write_text('{"question": "问"}\n{"id": 7, "question": "答"}\n')
    kgclue.write_leaderboard("p.json", kgclue.load_questions("q.json"), [("甲", "乙", "丙")] * 2)
    assert [json.loads(line) for line in Path("p.json").read_text().splitlines()] == [
        {"id": 0, "question": "问", "answer": "甲 ||| 乙 ||| 丙"},
        {"id": 7, "question": "答", "answer": "甲 ||| 乙 ||| 丙"}]


def test_further_relations_are_new_to_their_subject_and_the_old_stay():
    lines = [f"s{i}\tp{i % 7}\to{i}" for i in range(40)]
    Path("k.txt").write_text("\n".join(lines) + "\n")
    kgclue.join_knowledge(["k.txt"], "hard.txt", further=10, seed=3)
    rows = [tuple(line.split("\t")) for line in Path("hard.txt").read_text().splitlines()]
    assert rows[:40] == [tuple(line.split("\t")) for line in lines]
    assert len({row[:2] for row in rows}) == len(rows) > 40 * 5
    assert {(p, o) for _, p, o in rows[40:]} <= {(p, o) for _, p, o in rows[:40]}
    assert Path("hard.txt").read_bytes() == kgclue.join_knowledge(
        ["k.txt"], "again.txt", further=10, seed=3).read_bytes()


def test_calibration_recovers_a_known_distortion():
    random = np.random.default_rng(0)
    true = random.uniform(0.02, 0.98, 20_000)
    distorted = 1 / (1 + np.exp(-(np.log(true / (1 - true)) - 0.5) / 0.4))
    right = random.random(20_000) < true
    found = kgclue.Calibration.fit(distorted, right)
    assert found.slope == pytest.approx(0.4, abs=0.03)
    assert found.offset == pytest.approx(0.5, abs=0.05)
    assert kgclue.calibration_error(found(distorted), right) < 0.02 < \
        kgclue.calibration_error(distorted, right)


def test_coverage_and_accuracy_by_hand():
    share, accuracy = kgclue.coverage_accuracy(np.array([0.9, 0.1, 0.5]), np.array([1, 0, 0]))
    assert share.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert accuracy.tolist() == pytest.approx([1, 1 / 2, 1 / 3])


def test_the_demo_is_the_same_every_time_and_its_answers_are_in_its_knowledge():
    folder = make_demo("demo", persons=40)
    facts = set((folder / "knowledge.txt").read_text().splitlines())
    for name in ("train", "dev", "test"):
        for q in kgclue.load_questions(folder / "kgclue" / f"{name}.json"):
            assert f"{q.subject}\t{q.predicate}\t{q.object}" in facts
    assert sorted(facts) == sorted((make_demo("two", persons=40) / "knowledge.txt")
                                   .read_text().splitlines())


def test_the_script_answers_from_its_demo(monkeypatch, capsys):
    monkeypatch.setattr("bert_theseus.kgclue_demo.make_demo", lambda folder: make_demo(folder, 30))
    run_script(monkeypatch, "kgclue", "--epochs", 1, "--beam", 1, "--rule", "exact", "--abstain",
               0.1)
    table, record = capsys.readouterr().out, json.loads(
        Path("output/kgclue/results.json").read_text())
    assert "test, exact, beam 1" in table and record["article"] == 8802
    assert all(row["published"] is None for row in record["rows"])
    assert {path.name for path in Path("output/kgclue").iterdir()} >= {
        "knowledge.tree", "score.png", "coverage.png", "calibration.json", "kgclue_predict.json"}
    answers = iter(["赵文武的职业是什么？", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    run_script(monkeypatch, "kgclue", "ask", "--bert_dir", "output/kgclue/demo/bert", "--beam", 1)
    assert "→" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, what", [
    (["build"], "--bert_dir"), (["build", "--bert_dir", "b"], "--knowledge"),
    (["evaluate", "--bert_dir", "b"], "knowledge.tree"),
    (["build", "--bert_dir", "b", "--knowledge", "absent.txt"], "absent.txt")])
def test_the_script_refuses_what_is_missing(monkeypatch, capsys, arguments, what):
    random_bert("b", WORDS + ["[MASK]"], 1, 8, heads=1)
    assert what in refusal(monkeypatch, capsys, "kgclue", *arguments)


def test_the_server_without_its_packages_names_the_command(monkeypatch, capsys):
    random_bert("b", WORDS + ["[MASK]"], 1, 8, heads=1)
    monkeypatch.delitem(sys.modules, "bert_theseus.kgclue_server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    line = refusal(monkeypatch, capsys, "kgclue", "serve", "--bert_dir", "b")
    assert "pip install starlette uvicorn" in line


# ---- server --------------------------------------------------------------------------------------

class Echo:
    """Answers every question with itself; counts its calls."""

    rule, beam_size, tree = "none", 3, [0] * 7

    def __init__(self, probability=0.9, fail=False):
        self.calls, self.probability, self.fail = [], probability, fail

    def answer(self, questions, n_best=1):
        self.calls.append(list(questions))
        if self.fail:
            raise RuntimeError("broken")
        return [[Answer(q, f"p{i}", "", (q,), self.probability / (i + 1))
                 for i in range(n_best)] for q in questions]


def ask(decoder, *requests, abstain=0.0):
    """The replies to requests made together."""
    app = kgclue_server.make_app(kgclue_server.Answerer(decoder, abstain=abstain))

    async def run():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with app.router.lifespan_context(app), httpx.AsyncClient(
                transport=transport, base_url="http://test") as client:
            return await asyncio.gather(*(client.request(*a, **k) for a, k in requests))
    return asyncio.run(run())


def post(body):
    return (("POST", "/answer"), {"content": body if isinstance(body, (str, bytes))
                                  else json.dumps(body)})


def test_requests_made_together_are_answered_together_and_to_the_right_one():
    decoder = Echo()
    replies = ask(decoder, *(post({"questions": [f"q{i}", "x"], "n_best": 1 + i % 3})
                             for i in range(20)))
    for i, reply in enumerate(replies):
        first, _ = reply.json()["answers"]
        assert reply.status_code == 200 and len(first) == 1 + i % 3
        assert first[0]["subject"] == f"q{i}" and first[0]["objects"] == [f"q{i}"]
    assert len(decoder.calls) < 10


@pytest.mark.parametrize("body, status", [
    ("{", 400), (b"\xff", 400), ("[" * 30000, 400), ([], 400), ({}, 400), ({"questions": "a"}, 400),
    ({"questions": []}, 400), ({"questions": [1]}, 400), ({"questions": [" "]}, 400),
    ({"questions": ["a"] * 65}, 400), ({"questions": ["a"], "n_best": 0}, 400),
    ({"questions": ["a"], "n_best": True}, 400), ({"questions": ["a" * 301]}, 413),
    ('{"questions": ["\\ud800"]}', 400), (" " * 70_000, 413)])
def test_bad_input_gets_a_4xx_and_one_line(body, status):
    decoder = Echo()
    reply, = ask(decoder, post(body))
    assert reply.status_code == status and reply.json()["error"] and decoder.calls == []


def test_health_page_and_wrong_methods():
    health, page, got, absent = ask(Echo(), (("GET", "/health"), {}), (("GET", "/"), {}),
                                    (("GET", "/answer"), {}), (("GET", "/x"), {}))
    assert health.json() == {"status": "ok", "keys": 7, "rule": "none", "beam": 3}
    assert "知识库问答" in page.text and (got.status_code, absent.status_code) == (405, 404)


def test_a_failing_batch_is_a_500_and_the_server_goes_on():
    decoder = Echo(fail=True)
    replies = ask(decoder, post({"questions": ["a"]}), post({"questions": ["b"]}))
    assert [reply.status_code for reply in replies] == [500, 500]


def test_sigterm_lets_a_request_finish_and_ends_with_status_0():
    """The client terminates the server while its question is being answered."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, replies = f"http://127.0.0.1:{port}", []

    class Terminated(Echo):
        def answer(self, questions, n_best=1):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
            return super().answer(questions, n_best)

    def client():
        for _ in range(200):
            try:
                replies.append(httpx.post(f"{url}/answer", json={"questions": ["a"]}))
                return
            except httpx.ConnectError:
                time.sleep(0.05)

    def killed(*_):
        raise AssertionError("ended by the signal")

    before, thread = signal.signal(signal.SIGTERM, killed), threading.Thread(target=client)
    try:
        thread.start()
        with pytest.raises(SystemExit) as end:
            kgclue_server.serve(kgclue_server.Answerer(Terminated()), "127.0.0.1", port)
        assert end.value.code == 0 and signal.getsignal(signal.SIGTERM) is killed
    finally:
        signal.signal(signal.SIGTERM, before)
    thread.join()
    assert [reply.status_code for reply in replies] == [200]


def test_it_abstains_below_the_threshold():
    sure, = ask(Echo(0.9), post({"questions": ["a"]}), abstain=0.5)
    unsure, = ask(Echo(0.3), post({"questions": ["a"]}), abstain=0.5)
    assert len(sure.json()["answers"][0]) == 1 and unsure.json()["answers"] == [[]]


def test_a_row_of_the_look_ahead_is_the_common_subsequence():
    random = np.random.default_rng(0)
    for _ in range(30):
        one, two = random.integers(0, 4, 9), random.integers(0, 4, random.integers(1, 12))
        row = lookahead.first_row(two)
        for i, token in enumerate(one):
            row = lookahead.next_row(row[None], np.array([token]), two)[0]
            assert row[-1] == longest_common_subsequence(one[:i + 1].tolist(), two.tolist())[0]

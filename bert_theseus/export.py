"""Stand-alone models: what leaves this package needs nothing of it.

    FOLDER/bert/           bert_config.json, vocab.txt, bert_model.ckpt.* as published
    FOLDER/classifier.npz  "kernel" [hidden_size, labels] and "bias" [labels] of the output layer
    FOLDER/labels.txt      one label a line, in the order of the outputs

A program that only has bert4keras and numpy loads it:

    bert = build_transformer_model('FOLDER/bert/bert_config.json', 'FOLDER/bert/bert_model.ckpt')
    head = np.load('FOLDER/classifier.npz')
    scores = bert.predict([token_ids, segment_ids])[:, 0] @ head['kernel'] + head['bias']
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bert_theseus.checkpoint import save_bert
from bert_theseus.errors import InputError
from bert_theseus.results import replace_file


def export_bert(transformer, classifier, folder: str | os.PathLike, vocab,
                labels: Sequence[str]) -> Path:
    """Writes a fine-tuned transformer and its output layer as a stand-alone folder.

    transformer: a bert4keras transformer of the BERT family.
    classifier:  its head; the weights must be one kernel and one bias, as those of
                 ``classification_head`` and ``tagging_head`` are.
    vocab:       as for :func:`bert_theseus.checkpoint.save_bert`; labels: names of the outputs.
    Raises InputError for a head of another form, or labels that are not as many as outputs.
    """
    weights = classifier.get_weights()
    if [np.ndim(weight) for weight in weights] != [2, 1]:
        raise InputError(f"the classifier has {len(weights)} weights, not a kernel and a bias",
                         "export_bert", "save your own head with classifier.save")
    if len(labels) != len(weights[1]):
        raise InputError(f"{len(labels)} labels for {len(weights[1])} outputs", "export_bert")
    folder = Path(folder)
    save_bert(transformer, folder / "bert", vocab)
    replace_file(folder / "classifier.npz",
                 lambda beside: np.savez(beside, kernel=weights[0], bias=weights[1]))
    text = "".join(f"{label}\n" for label in labels)
    replace_file(folder / "labels.txt", lambda beside: beside.write_text(text, encoding="utf-8"))
    return folder

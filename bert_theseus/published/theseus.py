"""BERT-of-Theseus, kexue.fm 7575: CLUE IFLYTEK, validation accuracy."""

from bert_theseus.published import KEXUE, Published

_SOURCE = KEXUE + "7575"

NUMBERS = tuple(
    Published(name, "accuracy", value, _SOURCE, "iflytek")
    for name, value in (
        ("fine-tuned, all 12 layers", 0.6011),
        ("fine-tuned, first 6 layers", 0.5899),
        ("fine-tuned, first 3 layers", 0.5796),
        ("Theseus, 6 layers", 0.5961),
        ("Theseus, 3 layers", 0.5936),
    )
)

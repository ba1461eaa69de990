"""Performer, kexue.fm 7921: no own measurements, one estimate that can be measured."""

from bert_theseus.published import KEXUE, Published

NUMBERS = (
    Published("linear attention pays", "from length", 5000, KEXUE + "7921"),
)

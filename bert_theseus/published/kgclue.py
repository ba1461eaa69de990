"""Seq2Seq + prefix tree on KgCLUE, kexue.fm 8802, and what its code's README says of the cost.

The article's table heads its first two columns F1, EM; they are EM, F1: F1 is never below EM under
KgCLUE's metric, and the leaderboard shows EM-O 86.033, F1-O 88.446 for the same entry.
"""

from bert_theseus.published import KEXUE, Published

_SOURCE = KEXUE + "8802"
_README = "https://github.com/bojone/KgCLUE-bert4keras"
_BOARD = "https://github.com/CLUEbenchmark/KgCLUE"

NUMBERS = tuple(
    Published("Seq2Seq + prefix tree", metric, value, _SOURCE, setting)
    for setting, values in (("dev", (0.8920, 0.9104, 0.9012)), ("test", (0.9025, 0.9248, 0.9137)),
                            ("private test", (0.8603, 0.8845, 0.8724)))
    for metric, value in zip(("EM-O", "F1-O", "score"), values)
) + (
    Published("without look-ahead", "EM-O", 0.845, _SOURCE, "dev"),
    Published("first on the leaderboard", "score", 0.88913, _BOARD, "private test"),
    Published("official baseline", "score", 0.83941, _BOARD, "private test"),
    Published("build", "minutes", 30, _README),
    Published("open", "minutes", 5, _README),
    Published("file", "GB", 1.8, _README),
    Published("memory", "GB", 30, _README),
)

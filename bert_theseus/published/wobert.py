"""WoBERT, kexue.fm 7758: classification, speed, title generation (CSL, LCSTS)."""

from bert_theseus.published import KEXUE, Published

_SOURCE = KEXUE + "7758"
_README = "https://github.com/ZhuiyiTechnology/WoBERT"
_METRICS = ("Rouge-L", "Rouge-1", "Rouge-2", "BLEU")
_TITLES = {  # task → (name, beam) → Rouge-L, Rouge-1, Rouge-2, BLEU in %
    "csl": {("BERT", 1): (63.81, 65.45, 54.91, 45.52), ("WoBERT", 1): (66.38, 68.22, 57.83, 47.76),
            ("BERT", 2): (64.44, 66.09, 55.75, 46.39), ("WoBERT", 2): (66.65, 68.68, 58.5, 48.4),
            ("BERT", 3): (64.75, 66.34, 56.06, 46.7), ("WoBERT", 3): (66.83, 68.81, 58.67, 48.6)},
    "lcsts": {("BERT", 1): (27.99, 29.57, 18.04, 11.72),
              ("WoBERT", 1): (31.51, 32.90, 21.13, 13.74),
              ("BERT", 2): (29.20, 30.70, 19.17, 12.64),
              ("WoBERT", 2): (31.91, 33.35, 21.55, 14.13),
              ("BERT", 3): (29.45, 30.95, 19.50, 12.93),
              ("WoBERT", 3): (32.19, 33.72, 21.81, 14.29)},
}

NUMBERS = (
    *(Published(name, "accuracy", value, source) for name, value, source in (
        ("BERT, iflytek", 0.6031, _SOURCE), ("WoBERT, iflytek", 0.6115, _SOURCE),
        ("WoBERT Plus, iflytek", 0.6192, _README), ("BERT, tnews", 0.5694, _SOURCE),
        ("WoBERT, tnews", 0.5705, _SOURCE), ("WoBERT Plus, tnews", 0.5820, _README))),
    *(Published(f"WoBERT, {length} characters", "speed-up", value, _SOURCE)
      for length, value in ((128, 1.16), (256, 1.22), (512, 1.28))),
    *(Published(f"{name}, {task}, beam {beam}", metric, value / 100, _SOURCE)
      for task, table in _TITLES.items() for (name, beam), values in table.items()
      for metric, value in zip(_METRICS, values)),
    Published("WoBERT", "tokens in the vocabulary", 33586, _SOURCE),
)

"""BERT-of-Theseus, compression by module replacing (模型压缩), https://kexue.fm/archives/7575.

A fine-tuned deep BERT, the predecessor, is cut into as many modules as the successor has layers.
While the successor learns, every module l of every step is one or the other:

    x_{l+1} = r_l · successor_l(x_l) + (1 − r_l) · predecessor_l(x_l),    r_l ~ Bernoulli(p)

with p the replacing rate, and the only loss is the task's. At inference r = 1.

Done differently here, and why:

* the article computes both branches and adds them; here one branch is executed (``lazy``), and
  frozen weights are constants to the gradient, so that a step costs less than half;
* groups of layers may be uneven, the rate may follow a schedule, draws may be per sample;
* no trainable flag is touched: the model itself knows that only the successor learns, so the
  stages may be compiled and run in any order (the article relies on flags of compile time).

>>> from bert_theseus.theseus import LinearRate, module_groups
>>> module_groups(7, 3), LinearRate(k=0.01, b=0.3)(20)
([[0, 1, 2], [3, 4], [5, 6]], 0.5)
"""

from bert_theseus.theseus.distillation import distillation_model
from bert_theseus.theseus.layers import BinaryRandomChoice, ModuleReplacing, ReplacingDraws
from bert_theseus.theseus.model import (TheseusModel, bert_of_theseus, classification_head,
                                        layers_model, module_groups, tagging_head)
from bert_theseus.theseus.schedules import (ConstantRate, LinearRate, ReplacingRateScheduler,
                                            check_schedule)

__all__ = ["BinaryRandomChoice", "ModuleReplacing", "ReplacingDraws", "TheseusModel",
           "bert_of_theseus", "classification_head", "distillation_model", "layers_model",
           "module_groups", "tagging_head", "ConstantRate", "LinearRate", "ReplacingRateScheduler",
           "check_schedule"]

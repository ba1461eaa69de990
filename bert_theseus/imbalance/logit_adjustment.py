"""Mutual information instead of probability, or logit adjustment: https://kexue.fm/archives/7615

Let f_y(x) model log p(y|x)/p(y) instead of log p(y|x): p(y|x) = softmax(f + τ log p(y)), hence

    loss = log( 1 + Σ_{i≠y} (p(i)/p(y))^τ e^{f_i − f_y} ).

Two ways to predict, whichever way the model was trained:

    rule        trained with this loss     trained with plain cross-entropy (post hoc)
    "balanced"  argmax f_y                 argmax z_y − τ log p(y)
    "overall"   argmax f_y + τ log p(y)    argmax z_y

Done differently: a prior with a zero is refused instead of log(prior + 1e-8), and the logarithm is
taken once, when the loss is made. Note what follows from the formula: for a model with a trained
bias in its last layer, this loss is plain cross-entropy with that bias started at τ log p(y)
instead of 0 (the article's "simplest implementation"); loss and post-hoc adjustment differ by
where training starts, and agree where it has converged to a unique optimum.
"""

import logging

import numpy as np
import tensorflow as tf

from bert_theseus.errors import InputError
from bert_theseus.imbalance.base import (CrossentropyLoss, number_of_classes, per_class, register)
from bert_theseus.imbalance.priors import checked_prior

logger = logging.getLogger(__name__)


@register
class LogitAdjustedCrossentropy(CrossentropyLoss):
    """Cross-entropy of logits + τ log prior; the logits themselves are balanced scores.

    Optimises: log(1 + Σ_{i≠y} (p(i)/p(y))^τ e^{f_i − f_y}).
    Arguments: prior, one number a class, positive, summing to 1 ([negative, positive] for binary
               labels), see :func:`class_prior`; tau, 1 is the article's; the rest as in
               :class:`CrossentropyLoss`.
    Reference: https://kexue.fm/archives/7615; https://arxiv.org/abs/2007.07314
    Accepts:   integer, one-hot (also soft) and binary labels; logits [..., classes].
    Relations: tau = 0 or equal priors are plain cross-entropy; see :func:`adjust_logits` for the
               same thing after training, :func:`prediction_scores` for the two ways to predict.
    Warns:     where sample weights that differ are given as well: the prior already accounts for
               the imbalance, weights by class on top break the derivation.
    Raises:    InputError for a prior that has zeros, does not sum to 1 or fit the classes.

    >>> loss = LogitAdjustedCrossentropy(prior=[0.75, 0.25])
    >>> round(float(loss([1], [[0.0, 0.0]])), 5)              # log 4: the rare class must lead
    1.38629
    """

    def __init__(self, prior, tau: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.prior, self.tau = checked_prior(prior).tolist(), _checked_tau(tau)
        self._warned = False

    def adjust(self, labels, logits):
        """f + τ log p; for binary labels x + τ log(p_1 / p_0)."""
        log_prior = np.log(per_class(self.prior, number_of_classes(labels, logits), "prior"))
        if labels.kind == "binary":
            return logits + self.tau * (log_prior[1] - log_prior[0])
        return logits + tf.constant(self.tau * log_prior, logits.dtype)

    def __call__(self, y_true, y_pred, sample_weight=None):
        """The reduced loss; warns once where it is stacked on weights."""
        if sample_weight is not None and not self._warned and _may_reweight(sample_weight):
            self._warned = True
            logger.warning("LogitAdjustedCrossentropy is given sample weights: if they reweight "
                           "classes (class_weight=…), drop one of the two, since the prior already "
                           "accounts for the imbalance; weights that only mask are fine")
        return super().__call__(y_true, y_pred, sample_weight)

    def get_config(self):
        """Every argument of the constructor."""
        return {"prior": self.prior, "tau": self.tau, **super().get_config()}


def adjust_logits(logits, prior, tau: float = 1.0, new_prior=None):
    """Logits of a model trained with plain cross-entropy, moved from its prior to another one.

    logits [..., classes] (or [..., 1] with prior [negative, positive]) − τ log prior, plus
    τ log new_prior where one is given; without it the new prior is uniform: argmax of the result
    maximises balanced accuracy, softmax of it (τ = 1) is p(y|x) under the new prior. numpy in,
    numpy out; tensors in, tensors out. Raises InputError for priors that do not fit.

    >>> import numpy as np
    >>> adjust_logits(np.log([[0.75, 0.25]]), prior=[0.75, 0.25]).round(6).tolist()
    [[0.0, 0.0]]
    """
    shift = -np.log(checked_prior(prior))
    if new_prior is not None:
        new = checked_prior(new_prior)
        shift += np.log(per_class(new, len(shift), "new_prior"))
    shift *= _checked_tau(tau)
    if logits.shape[-1] == 1 and len(shift) == 2:
        shift = shift[1:] - shift[:1]
    per_class(shift, logits.shape[-1], "prior")
    if isinstance(logits, tf.Tensor):
        return logits + tf.constant(shift, logits.dtype)
    return logits + shift.astype(logits.dtype)


def prediction_scores(logits, prior, rule: str, trained: str, tau: float = 1.0):
    """Scores [..., classes] whose argmax follows the rule asked for (table in the module's head).

    rule: "balanced" (every class counts the same) or "overall" (every example does). trained:
    "adjusted" with :class:`LogitAdjustedCrossentropy` of this tau, or "plain". For a single
    binary logit the score is compared with 0. Raises InputError for other words.

    >>> import numpy as np
    >>> prediction_scores(np.zeros([1, 2]), [0.9, 0.1], "overall", "adjusted").argmax()
    np.int64(0)
    """
    if rule not in ("balanced", "overall"):
        raise InputError(f"unknown rule {rule!r}", "rule", "use balanced or overall")
    if trained not in ("plain", "adjusted"):
        raise InputError(f"unknown training {trained!r}", "trained", "use plain or adjusted")
    if (rule, trained) in (("balanced", "adjusted"), ("overall", "plain")):
        checked_prior(prior)
        return logits
    return adjust_logits(logits, prior, tau if rule == "balanced" else -tau)


def estimate_prior(probabilities, prior, steps: int = 1000, tolerance: float = 1e-8) -> np.ndarray:
    """The class prior of unlabelled data from what a trained model says about it.

    probabilities [examples, classes]: p(y|x) under the training ``prior``, calibrated. Iterates
    new prior ← mean of p(y|x) new(y)/prior(y), normalised per example (expectation-maximisation),
    until the change is below ``tolerance``. For a prior that is unknown or has shifted; the result
    goes into ``adjust_logits(new_prior=…)``. Raises InputError for rows that do not sum to 1.
    Source: Saerens, Latinne, Decaestecker 2002, Neural Computation 14(1).

    >>> import numpy as np
    >>> sure = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> estimate_prior(sure, prior=[0.5, 0.5]).tolist()
    [0.75, 0.25]
    """
    old, p = checked_prior(prior), np.asarray(probabilities, "float64")
    if p.ndim != 2 or np.abs(p.sum(-1) - 1).max(initial=0) > 1e-3 or not p.size:
        raise InputError("rows that do not sum to 1", "probabilities",
                         "give softmax(logits), [examples, classes]")
    per_class(p[0], len(old), "probabilities")
    new = old
    for _ in range(steps):
        posterior = p * (new / old)
        before, new = new, (posterior / posterior.sum(-1, keepdims=True)).mean(0)
        if np.abs(new - before).max() < tolerance:
            break
    return new


def _checked_tau(tau: float) -> float:
    if not np.isfinite(tau):
        raise InputError(f"tau {tau}", "tau", "it is a finite number, usually 1")
    return float(tau)


def _may_reweight(sample_weight) -> bool:
    """Whether weights take more than one value besides 0; unknown inside a graph, then True."""
    weights = tf.get_static_value(tf.convert_to_tensor(sample_weight))
    return weights is None or len(np.unique(weights[weights != 0])) > 1

"""Rules for the line integral over one training step, kexue.fm/archives/8009.

    f_{t+1}(q) − f_t(q) = ∫_0^1 ∂f(q; θ_t + s Δ_t)/∂θ ds · Δ_t  ≈  Σ_k w_k J_q(θ_t + s_k Δ_t) · Δ_t

The article integrates over continuous time; training makes straight steps, so the integral over
one step's segment is all that has to be approximated. The left point is the article's own formula
at a finite step; midpoint and Simpson cost more gradients of the queries (not of the examples).

>>> rule("simpson").nodes
(0.0, 0.5, 1.0)
"""

from dataclasses import dataclass

from bert_theseus.errors import InputError


@dataclass(frozen=True)
class Rule:
    """Nodes in [0, 1], their weights (sum 1) and the power of the step the residual falls with.

    >>> sum(rule("midpoint").weights)
    1.0
    """

    name: str
    nodes: tuple[float, ...]
    weights: tuple[float, ...]
    order: int


RULES = {
    "left": Rule("left", (0.0,), (1.0,), 1),
    "midpoint": Rule("midpoint", (0.5,), (1.0,), 2),
    "simpson": Rule("simpson", (0.0, 0.5, 1.0), (1 / 6, 4 / 6, 1 / 6), 4),
}


def rule(name: str) -> Rule:
    """The rule of that name; :class:`InputError` for another one.

    >>> rule("left").order
    1
    """
    if name not in RULES:
        raise InputError(f"unknown quadrature {name!r}", "fit(quadrature=…)",
                         f"use one of {', '.join(RULES)}")
    return RULES[name]

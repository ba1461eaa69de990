"""The critics by name: what each maximises, what holds it back, and what its number means.

Every method is an objective (``objectives.py``) with a constraint (``penalties.py``,
``spectral.py``). ``Method.estimate`` of the trainer's log is the objective's value alone,
never with the penalty in it, and always with this sign: larger means that the critic tells real
from generated better; two equal sets give 0 in the Wasserstein and transform methods.
"""

import dataclasses
from dataclasses import dataclass

from bert_theseus.errors import InputError

DISTANCE, SCALED, NATS = "distance", "distance times an unknown factor", "nats"


@dataclass(frozen=True)
class Method:
    """One critic.

    objective:  "wasserstein", "c_transform", "c_epsilon_transform" or "gan".
    constraint: "none", "clipping", "spectral_norm", or a penalty: "gradient", "one_sided",
                "zero_centered".
    estimate:   the unit of the logged estimate: "distance" (to be compared with W_1), "distance
                times an unknown factor" (the critic's slope is not held at 1), or "nats".
    weight:     factor of the penalty; power: exponent of the zero-centred one; clip: bound of
                the weights; epsilon: that of the (c, ε)-transform, in units of the distance.

    >>> METHODS["zero_centered_penalty"].weight, METHODS["zero_centered_penalty"].power
    (2.0, 6.0)
    """

    name: str
    objective: str
    constraint: str = "none"
    estimate: str = DISTANCE
    weight: float = 10.
    power: float = 6.
    clip: float = 0.01
    epsilon: float = 0.1

    @property
    def penalised(self) -> bool:
        """Whether the gradient at interpolated samples enters the loss."""
        return self.constraint in ("gradient", "one_sided", "zero_centered")


METHODS = {method.name: method for method in (
    Method("clipping", "wasserstein", "clipping", SCALED),
    Method("gradient_penalty", "wasserstein", "gradient"),
    Method("one_sided_penalty", "wasserstein", "one_sided"),
    Method("zero_centered_penalty", "wasserstein", "zero_centered", SCALED, weight=2.),
    Method("spectral_norm", "wasserstein", "spectral_norm"),
    Method("c_transform", "c_transform"),
    Method("c_epsilon_transform", "c_epsilon_transform"),
    Method("gan", "gan", estimate=NATS),
    Method("gan_gradient_penalty", "gan", "gradient", NATS),
    Method("gan_zero_centered_penalty", "gan", "zero_centered", NATS, weight=2.),
    Method("gan_spectral_norm", "gan", "spectral_norm", NATS),
)}


def get_method(name: "str | Method", **changes) -> Method:
    """The method of that name, with some of its numbers changed.

    Raises InputError for an unknown name or number, and for numbers out of range.

    >>> get_method("c_epsilon_transform", epsilon=1.).epsilon
    1.0
    """
    if not isinstance(name, Method) and name not in METHODS:
        raise InputError(f"unknown method {name!r}", "method", f"use one of {', '.join(METHODS)}")
    method = name if isinstance(name, Method) else METHODS[name]
    unknown = set(changes) - {"weight", "power", "clip", "epsilon"}
    if unknown:
        raise InputError(f"{method.name} has no {', '.join(sorted(unknown))}", "method",
                         "change weight, power, clip or epsilon")
    method = dataclasses.replace(method, **changes)
    for number in ("weight", "power", "clip", "epsilon"):
        if not 0 < getattr(method, number) < float("inf"):
            raise InputError(f"{number} = {getattr(method, number)}", method.name,
                             "use a positive number")
    return method

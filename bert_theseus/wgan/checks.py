"""What is refused before training starts: samples, batches and networks that cannot work."""

import numpy as np

from bert_theseus.backend import keras
from bert_theseus.errors import InputError
from bert_theseus.wgan.spectral import _Spectral

_BATCH_NORMS = (keras.layers.BatchNormalization,)


def check_samples(samples, where: str = "samples") -> np.ndarray:
    """The samples as float32 [n, features…]; InputError for NaN, text, or fewer than two.

    >>> check_samples([[0., 1.], [2., 3.]]).shape
    (2, 2)
    """
    try:
        samples = np.asarray(samples, "float32")
    except (TypeError, ValueError):
        raise InputError("not an array of numbers", where, "give [n, features]") from None
    if samples.ndim < 2 or len(samples) < 2:
        raise InputError(f"samples of shape {list(samples.shape)}", where,
                         "give at least two, [n, features]")
    if not np.isfinite(samples).all():
        bad = int(np.argwhere(~np.isfinite(samples))[0][0])
        raise InputError("NaN or infinity in the data", f"{where}, sample {bad}",
                         "remove or repair it")
    return samples


def check_batch_size(batch_size: int, where: str = "batch_size") -> None:
    """InputError for a batch of fewer than two samples."""
    if batch_size is not None and batch_size < 2:
        raise InputError(f"a batch of {batch_size}", where,
                         "use at least 2 samples: a distance between single points is no estimate")


def mixes_samples(network: keras.Model) -> bool:
    """Whether the network normalises over the batch, so that outputs depend on other samples."""
    return any(isinstance(layer, _BATCH_NORMS) for layer in network.submodules)


def check_networks(generator: keras.Model | None, critic: keras.Model, method, seeds, runs) -> None:
    """InputError when generator, critic, method and number of runs do not fit together."""
    wanted = critic.input_shape
    made = generator.output_shape if generator is not None else wanted
    if len(made) != len(wanted) or made[1:] != wanted[1:]:
        raise InputError(f"the generator makes {list(made)}, the critic takes {list(wanted)}",
                         "Trainer", "give both the same features")
    if critic.output_shape[-1] != 1:
        raise InputError(f"the critic gives {list(critic.output_shape)}", "Trainer",
                         "end it with one score a sample, [batch, 1]")
    if runs is not None and len(wanted) != 3:
        raise InputError(f"{runs} seeds with a critic that takes {list(wanted)}", "Trainer",
                         "use dense_network(..., seed=seeds), or one seed")
    if len(set(seeds)) != len(seeds) or not seeds:
        raise InputError(f"seeds {list(seeds)}", "Trainer", "give different seeds, at least one")
    if method.penalised and mixes_samples(critic):
        raise InputError("batch normalisation in the critic", method.name,
                         "the penalty is about the gradient at one sample; use layer "
                         "normalisation or none")
    if method.constraint == "spectral_norm":
        _check_spectral(critic)


def _check_spectral(critic: keras.Model) -> None:
    for layer in critic.submodules:
        if isinstance(layer, keras.layers.Layer) and hasattr(layer, "kernel") \
                and not isinstance(layer, _Spectral):
            raise InputError(f"layer {layer.name} is not spectrally normalised", "Trainer",
                             "build the critic with spectral=True")

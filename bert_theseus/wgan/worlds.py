"""The distributions of the training studies, each with what its samples are judged by."""

import numpy as np

from bert_theseus.wgan.data import World, digits, ring, ring_centers
from bert_theseus.wgan.quality import classifier_opinion, mode_coverage


def ring_world(count: int = 4000, held_out: int = 500) -> World:
    """Eight Gaussians on a circle of radius 2, standard deviation 0.1; a mode's radius is 3 of it.

    >>> sorted(ring_world(100, 50).measures(ring(80)))
    ['mode coverage', 'on a mode']
    """
    return World("eight Gaussians", ring(count, seed=1), ring(held_out, seed=2),
                 lambda samples: mode_coverage(samples, ring_centers(), 0.3))


def digits_world(held_out: int = 300) -> World:
    """The 8×8 digits; the classifier that judges is trained on all of them."""
    images, labels = digits()
    return World("digits 8×8", images[held_out:], images[:held_out],
                 classifier_opinion(images, labels), "sigmoid")


def images_world(images: np.ndarray, held_out: int = 500) -> World:
    """Own images [n, height, width, channels]: the distances and neighbours only."""
    held_out = min(held_out, len(images) // 4)
    order = np.random.RandomState(0).permutation(len(images))
    images = images[order]
    return World("images", images[held_out:], images[:held_out], lambda samples: {}, "sigmoid")

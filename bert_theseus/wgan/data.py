"""What the studies draw from: a ring of Gaussians, shifted Gaussians, digits, own images.

Nothing is downloaded: the digits (1797 images of 8×8) come with scikit-learn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert_theseus.errors import InputError
from bert_theseus.wgan.checks import check_samples

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


@dataclass(frozen=True)
class World:
    """One distribution to learn.

    train: [n, features…], what the trainer sees; held_out: [m, features…], what it is judged by;
    measures: samples → {name: number}, quality beyond distance (modes, classifier);
    output_activation: of the generator's last layer (None: the whole line, "sigmoid": [0, 1]).
    """

    name: str
    train: np.ndarray
    held_out: np.ndarray
    measures: Callable[[np.ndarray], dict]
    output_activation: str | None = None


def ring_centers(modes: int = 8, radius: float = 2.) -> np.ndarray:
    """Centres on a circle: [modes, 2].

    >>> ring_centers(4, 1.).round(6).tolist()
    [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [-0.0, -1.0]]
    """
    angles = 2 * np.pi * np.arange(modes) / modes
    return radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def ring(count: int, seed: int = 0, modes: int = 8, radius: float = 2.,
         std: float = 0.1) -> np.ndarray:
    """``count`` samples of a mixture of Gaussians on a circle, equal shares: [count, 2].

    >>> ring(100).shape
    (100, 2)
    """
    random = np.random.RandomState(seed)
    centers = ring_centers(modes, radius)[random.randint(modes, size=count)]
    return (centers + std * random.randn(count, 2)).astype("float32")


def shifted_gaussians(dimension: int, count: int, seed: int = 0,
                      shift: float = 3.) -> tuple[np.ndarray, np.ndarray]:
    """``count`` samples each of N(0, I) and N(m, I), |m| = shift: twice [count, dimension].

    Equal covariances, so W_1 = W_2 = shift whatever the dimension: the truth in closed form.

    >>> x, y = shifted_gaussians(3, 1000)
    >>> bool(abs(np.linalg.norm(y.mean(0) - x.mean(0)) - 3) < 0.3)
    True
    """
    random = np.random.RandomState(seed)
    x, y = random.randn(2, count, dimension)
    return x.astype("float32"), (y + shift / np.sqrt(dimension)).astype("float32")


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The 1797 digits of scikit-learn, in an order of their own: [1797, 64] in [0, 1], labels.

    >>> images, labels = digits()
    >>> images.shape, float(images.max()), labels.shape
    ((1797, 64), 1.0, (1797,))
    """
    from sklearn.datasets import load_digits
    data = load_digits()
    order = np.random.RandomState(0).permutation(len(data.data))
    return (data.data[order] / 16).astype("float32"), data.target[order]


def load_images(path: str | Path, size: int = 28) -> np.ndarray:
    """Images of a folder (every image file below it) or of an .npz, in [0, 1].

    A folder gives [n, size, size, 3], each image cut to its middle square and scaled. An .npz
    gives its array "images" (or its only one), [n, height, width] or [n, height, width, channels];
    integers are divided by 255.

    Raises InputError for a missing path, no images, unreadable ones, an array of another form.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in _IMAGES)
        if not files:
            raise InputError("no images", path, f"use files named *{', *'.join(_IMAGES)}")
        return check_samples(np.stack([_square(file, size) for file in files]), str(path))
    if not path.is_file():
        raise InputError("no such folder or file", path, "give a folder of images or an .npz")
    return _from_npz(path)


def _square(file: Path, size: int) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError
    try:
        with Image.open(file) as image:
            return np.asarray(ImageOps.fit(image.convert("RGB"), (size, size))) / np.float32(255)
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"cannot read the image ({error})", file, "remove or repair it") from None


def _from_npz(path: Path) -> np.ndarray:
    try:
        with np.load(path) as arrays:
            name = "images" if "images" in arrays else arrays.files[0] if len(arrays.files) == 1 \
                else None
            images = None if name is None else arrays[name]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"cannot read the arrays ({error})", path, "save it with numpy.savez") \
            from None
    if images is None or images.ndim not in (3, 4):
        raise InputError("no array of images", path,
                         "store one named images, [n, height, width(, channels)]")
    images = images / 255 if np.issubdtype(images.dtype, np.integer) else images
    return check_samples(images[..., None] if images.ndim == 3 else images, str(path))

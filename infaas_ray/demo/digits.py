"""Four handwritten-digit classifiers of one family, from a linear one to a wide convolutional one, trained here.

The data are scikit-learn's 1,797 images of 8x8 pixels. Rule: rows are split once, by seed, into rows to train on,
rows to calibrate quantisation with and rows to score, and no row serves two of these. On one machine, the
same seed gives the same weights.

Needs torch and scikit-learn at import; `demo.models` imports it only when it has to make something.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from infaas_ray.domain import Array

SEED = 0
SCORED_ROWS = 600
CALIBRATION_ROWS = 200
EPOCHS = 30
BATCH_ROWS = 32
LEARNING_RATE = 3e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """All rows, and the numbers of those that belong to each part.

    `images` are FP32 [n, 1, 8, 8] in 0..1, `labels` INT64 [n] in 0..9.
    """

    images: Array
    labels: Array
    training: Array
    calibration: Array
    scored: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one member of the family is built, and whether its training images are shifted by up to one pixel."""

    build: Callable[[], nn.Sequential]
    shifted: bool = False


def _linear() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def _mlp() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def _convolution(channels_in: int, channels_out: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1), nn.ReLU()


def _cnn() -> nn.Sequential:
    first = (*_convolution(1, 12), nn.MaxPool2d(2))
    second = (*_convolution(12, 24), nn.MaxPool2d(2))
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(96, 10))


def _wide_cnn() -> nn.Sequential:
    first = (*_convolution(1, 48), *_convolution(48, 48), nn.MaxPool2d(2))
    second = (*_convolution(48, 96), *_convolution(96, 96), nn.MaxPool2d(2))
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Dropout(0.3), nn.Linear(384, 10))


# From least to most work per image. Only the widest network has enough weights to gain from shifted images.
FAMILY: Mapping[str, Recipe] = {
    "digits-linear": Recipe(build=_linear),
    "digits-mlp": Recipe(build=_mlp),
    "digits-cnn": Recipe(build=_cnn),
    "digits-cnn-wide": Recipe(build=_wide_cnn, shifted=True),
}


class Classifier(nn.Module):
    """A network whose output has a name: `image` FP32 [n, 1, 8, 8] in 0..1 → `logits` FP32 [n, 10]."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Score ten classes per image."""
        return {"logits": self.network(image)}


def load(seed: int = SEED) -> Digits:
    """Read the data set and split it by `seed`."""
    raw = load_digits()
    images = (np.asarray(raw.images, dtype=np.float32) / 16)[:, np.newaxis]
    order = np.random.default_rng(seed).permutation(len(images))
    scored, calibration, training = np.split(order, [SCORED_ROWS, SCORED_ROWS + CALIBRATION_ROWS])
    return Digits(
        images=images,
        labels=np.asarray(raw.target, dtype=np.int64),
        training=training,
        calibration=calibration,
        scored=scored,
    )


def validation(digits: Digits) -> dict[str, Array]:
    """The arrays of the validation file: `image`, `label`, and `calibration`, true where a row is not scored."""
    rows = np.concatenate([digits.calibration, digits.scored])
    return {
        "image": digits.images[rows],
        "label": digits.labels[rows],
        "calibration": np.arange(len(rows)) < len(digits.calibration),
    }


def train(architecture: str, digits: Digits, seed: int = SEED) -> Classifier:
    """Train one member of `FAMILY` on the training rows, ready to infer. The caller's random state stays untouched."""
    recipe = FAMILY[architecture]
    images = torch.from_numpy(digits.images[digits.training])
    labels = torch.from_numpy(digits.labels[digits.training])
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = recipe.build()
        optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
        steps = EPOCHS * -(-len(labels) // BATCH_ROWS)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
        for _ in range(EPOCHS):
            for rows in torch.split(torch.randperm(len(labels)), BATCH_ROWS):
                batch = _shift(images[rows]) if recipe.shifted else images[rows]
                loss = nn.functional.cross_entropy(network(batch), labels[rows])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
    return Classifier(network.eval())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: the networks are too small for more, and sums then do not depend on the core count."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _shift(images: Tensor) -> Tensor:
    """Move a batch by -1, 0 or 1 pixels along each axis, filling with background."""
    down, right = torch.randint(0, 3, (2,)).tolist()
    return nn.functional.pad(images, (1, 1, 1, 1))[:, :, down : down + 8, right : right + 8]

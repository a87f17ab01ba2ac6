"""Pictures to tell digits in: real handwritten digits somewhere in a cluttered scene, 64 x 64 pixels.

Each scene shows one of scikit-learn's 1,797 digits, enlarged, turned and placed at random, among pieces of other
digits and noise, after the "cluttered MNIST" of Mnih et al. ("Recurrent Models of Visual Attention", 2014). It is hard
enough for a small network to err where a large one does not. Rule: scenes to train on, to calibrate with and to score
show different digits (the demonstration's split), and their clutter comes from the digits to train on.

Needs torch and scikit-learn at import.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from infaas_ray.demo import digits
from infaas_ray.domain import Array

SIDE = 64
TRAINING, CALIBRATION, SCORED = 12_000, 200, 2000  # the first for each epoch
_PIECES = 4  # of other digits, in each scene
_AT_ONCE = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenes:
    """`images` FP32 [n, 1, 64, 64], about 0..1 with noise around; `labels` INT64 [n] in 0..9."""

    images: Array
    labels: Array


def training(epoch: int) -> Scenes:
    """The scenes of an epoch of training, different in each."""
    data = digits.load()
    return _scenes(data, data.training, TRAINING, seed=10 + epoch)


def validation() -> dict[str, Array]:
    """The arrays of the validation file: `image`, `label`, and `calibration`, true where a row is not scored."""
    data = digits.load()
    parts = [_scenes(data, data.calibration, CALIBRATION, seed=1), _scenes(data, data.scored, SCORED, seed=2)]
    return {
        "image": np.concatenate([x.images for x in parts]),
        "label": np.concatenate([x.labels for x in parts]),
        "calibration": np.arange(CALIBRATION + SCORED) < CALIBRATION,
    }


def _scenes(data: digits.Digits, rows: Array, count: int, seed: int) -> Scenes:
    rng = np.random.default_rng(seed)
    shown = rng.choice(rows, count)
    images = [
        _draw(data.images[shown[at : at + _AT_ONCE]], data.images[data.training], rng)
        for at in range(0, count, _AT_ONCE)
    ]
    return Scenes(images=np.concatenate(images), labels=data.labels[shown])


def _draw(shown: Array, others: Array, rng: np.random.Generator) -> Array:
    """One scene for each digit shown: both are FP32 [n, 1, 8, 8]."""
    count = len(shown)
    scene = torch.zeros(count, 1, SIDE, SIDE)
    for _ in range(_PIECES):
        down, right = rng.integers(0, 5, 2)
        pieces = others[rng.integers(0, len(others), count), :, down : down + 4, right : right + 4]
        side, turn, place = (
            rng.uniform(10, 18, count),
            rng.uniform(-3.2, 3.2, count),
            rng.uniform(-0.9, 0.9, (count, 2)),
        )
        scene = torch.maximum(scene, _placed(pieces, side, turn, place, rng.uniform(0.5, 1.0, count)))
    side = rng.uniform(24, 42, count)
    place = rng.uniform(-1, 1, (count, 2)) * (1 - side / SIDE)[:, None]
    digit = _placed(shown, side, rng.uniform(-0.3, 0.3, count), place, rng.uniform(0.6, 1.0, count))
    scene = torch.maximum(scene, digit)
    noisy: Array = scene.numpy() + rng.normal(0, 0.1, scene.shape).astype(np.float32)
    return noisy


def _placed(images: Array, side: Array, turn: Array, place: Array, strength: Array) -> Tensor:
    """Each image with that many pixels a side, turned by radians, its middle at `place` (-1..1) of an empty scene."""
    scale = SIDE / side
    cosine, sine = scale * np.cos(turn), scale * np.sin(turn)
    to_image = np.stack([np.stack([cosine, sine], 1), np.stack([-sine, cosine], 1)], 1)
    shift = -np.einsum("nij,nj->ni", to_image, place)[:, :, None]
    theta = torch.from_numpy(np.concatenate([to_image, shift], 2).astype(np.float32))
    grid = affine_grid(theta, [len(images), 1, SIDE, SIDE], align_corners=False)
    placed = grid_sample(torch.from_numpy(np.ascontiguousarray(images)), grid, align_corners=False)
    return placed * torch.from_numpy(strength.astype(np.float32))[:, None, None, None]

"""The two networks of the benchmark with real data: a ResNet-18 trained here on handwritten digits, and MiniLM.

The digits are scikit-learn's, enlarged from 8x8 to 64x64 so that the network does the work of small photographs. The
sentence encoder and its labelled sentences are the demonstration's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infaas_ray.demo import digits, minilm, sentences
from infaas_ray.demo.models import export, make_once
from infaas_ray.domain import UseCase

SIDE = 64
EPOCHS, BATCH_ROWS, LEARNING_RATE = 5, 32, 2e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A model file with its validation rows."""

    name: str
    path: Path
    validation: Path
    metric: str
    use_case: UseCase


def cnn(folder: Path) -> Network:
    """A ResNet-18, trained for a minute or two where its file is not there yet."""
    make_once(folder / "digits64.npz", _write_digits)
    make_once(folder / "resnet18.pt2", _write_resnet)
    return Network(
        name="resnet18-digits",
        path=folder / "resnet18.pt2",
        validation=folder / "digits64.npz",
        metric="top1_accuracy",
        use_case=UseCase(task="digit-classification", dataset="digits64"),
    )


def encoder(folder: Path) -> Network:
    """MiniLM with its published weights."""
    make_once(
        folder / "sentences.npz", lambda path: np.savez_compressed(path, allow_pickle=False, **sentences.validation())
    )
    make_once(folder / "minilm.pt2", _write_encoder)
    return Network(
        name="minilm-l6",
        path=folder / "minilm.pt2",
        validation=folder / "sentences.npz",
        metric="centroid_accuracy",
        use_case=UseCase(task="sentence-embedding", dataset="stdlib-docs"),
    )


NETWORKS: dict[str, Callable[[Path], Network]] = {"cnn": cnn, "minilm": encoder}


def enlarged(images: np.ndarray, side: int) -> np.ndarray:
    """Images [n, 1, 8, 8] as [n, 3, side, side]."""
    import torch

    tensor = torch.nn.functional.interpolate(torch.from_numpy(images), (side, side), mode="bilinear")
    return tensor.repeat(1, 3, 1, 1).numpy()


def digits_at(side: int) -> dict[str, np.ndarray]:
    """The arrays of a validation file of digits enlarged to `side`."""
    arrays = digits.validation(digits.load())
    return {**arrays, "image": enlarged(arrays["image"], side)}


def _write_digits(path: Path) -> None:
    np.savez_compressed(path, allow_pickle=False, **digits_at(SIDE))


def _write_encoder(path: Path) -> None:
    import torch

    tokens = torch.ones(2, sentences.TOKENS, dtype=torch.int64)
    export(minilm.load(sentences.weights_folder()), {"input_ids": tokens, "attention_mask": tokens.clone()}, path)


def _write_resnet(path: Path) -> None:
    import torch

    from benchmarks.resnet import ResNet

    torch.manual_seed(0)
    data = digits.load()
    images = torch.from_numpy(enlarged(data.images[data.training], SIDE))
    labels = torch.from_numpy(data.labels[data.training])
    network = ResNet().train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the annotations lack it
    steps = EPOCHS * -(-len(labels) // BATCH_ROWS)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(labels)), BATCH_ROWS):
            loss = torch.nn.functional.cross_entropy(network(images[rows])["logits"], labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    export(network.eval(), {"image": torch.zeros(2, 3, SIDE, SIDE)}, path)

"""The family that tells the digits of `scenes`: residual networks from very small to ResNet-18.

They differ in width and in blocks per stage (`benchmarks/resnet.py`). Rule: training computes on one thread, so that it
gives the same weights on one kind of machine, and does not mind neighbours.

Needs torch at import.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.live.scenes import TRAINING, Scenes
from benchmarks.resnet import ResNet

BATCH_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a member of the family is built and trained. `width` is that of the first stage."""

    width: int
    blocks: int
    epochs: int
    learning_rate: float


# From least to most work per picture; the last is ResNet-18 with one channel of input.
FAMILY: Mapping[str, Recipe] = {
    "scenes-resnet10-w8": Recipe(width=8, blocks=1, epochs=10, learning_rate=5e-3),
    "scenes-resnet10-w24": Recipe(width=24, blocks=1, epochs=8, learning_rate=4e-3),
    "scenes-resnet18": Recipe(width=64, blocks=2, epochs=6, learning_rate=2e-3),
}


def train(recipe: Recipe, scenes: Callable[[int], Scenes]) -> ResNet:
    """One member of the family, ready to infer; minutes for the largest. `scenes` gives those of an epoch."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = ResNet(recipe.width, recipe.blocks, channels=1).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the annotations lack it
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, epochs=recipe.epochs, steps_per_epoch=-(-TRAINING // BATCH_ROWS)
    )
    for epoch in range(recipe.epochs):
        drawn = scenes(epoch)
        images, labels = torch.from_numpy(drawn.images), torch.from_numpy(drawn.labels)
        for rows in torch.split(torch.randperm(TRAINING), BATCH_ROWS):
            with torch.autocast("cpu", torch.bfloat16):  # half the time where the processor computes in it
                logits = network(images[rows])["logits"]
            loss = nn.functional.cross_entropy(logits.float(), labels[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return network.eval()

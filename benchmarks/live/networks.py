"""The family that tells the digits of `scenes`: residual networks from very small to ResNet-18.

All have the shape of He et al., "Deep Residual Learning for Image Recognition", 2015: a stem, four stages that halve
the side and double the width, a mean over places. They differ in width and in blocks per stage. Rule: training
computes on one thread, so that it gives the same weights on one kind of machine, and does not mind neighbours.

Needs torch at import.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.live.scenes import TRAINING, Scenes

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


def _convolution(width_in: int, width: int, side: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(width_in, width, side, stride, side // 2, bias=False), nn.BatchNorm2d(width)


class Block(nn.Module):
    """Two convolutions, added to their input."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            *_convolution(width_in, width, 3, stride), nn.ReLU(), *_convolution(width, width, 3, 1)
        )
        same = stride == 1 and width_in == width
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(width_in, width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.path(x) + self.shortcut(x))


class ResNet(nn.Module):
    """`image` FP32 [n, 1, side, side] to `logits` FP32 [n, 10]."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_convolution(1, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        width_in = width
        for stage in range(4):
            wide = width << stage
            for block in range(blocks):
                layers.append(Block(width_in, wide, 2 if stage and not block else 1))
                width_in = wide
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width_in, 10)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.body(image).mean((2, 3)))}


def train(recipe: Recipe, scenes: Callable[[int], Scenes]) -> ResNet:
    """One member of the family, ready to infer; minutes for the largest. `scenes` gives those of an epoch."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = ResNet(recipe.width, recipe.blocks).train()
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

"""Residual networks of He et al., "Deep Residual Learning for Image Recognition", 2015, of any size.

Needs torch at import.
"""

import torch
from torch import Tensor, nn


class ResNet(nn.Module):
    """`image` FP32 [n, channels, side, side] to `logits` FP32 [n, classes].

    A stem, four stages of so many `blocks` that halve the side and double the `width`, a mean over places. With a
    width of 64 and 2 blocks it is ResNet-18.
    """

    def __init__(self, width: int = 64, blocks: int = 2, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_convolution(channels, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        width_in = width
        for stage in range(4):
            wide = width << stage
            for block in range(blocks):
                layers.append(Block(width_in, wide, 2 if stage and not block else 1))
                width_in = wide
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width_in, classes)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.body(image).mean((2, 3)))}


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


def _convolution(width_in: int, width: int, side: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(width_in, width, side, stride, side // 2, bias=False), nn.BatchNorm2d(width)

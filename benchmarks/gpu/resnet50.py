"""A ResNet-50 for the GPU benchmark, trained on enlarged handwritten digits. Needs PyTorch at import.

`python -m benchmarks.gpu.resnet50 SIDE FILE` trains and exports one.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.variants.networks import enlarged
from infaas_ray.demo import digits
from infaas_ray.demo.models import export

EPOCHS, BATCH_ROWS, LEARNING_RATE = 8, 64, 1e-3
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride of the first


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the output is four times as wide."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            *_convolution(width_in, width, 1, 1),
            nn.ReLU(),
            *_convolution(width, width, 3, stride),
            nn.ReLU(),
            *_convolution(width, 4 * width, 1, 1),
        )
        same = stride == 1 and width_in == 4 * width
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(width_in, 4 * width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.path(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """`image` FP32 [n, 3, side, side] to `logits` (He et al., "Deep Residual Learning for Image Recognition", 2015)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        width_in = 64
        for width, blocks, stride in STAGES:
            for block in range(blocks):
                layers.append(Bottleneck(width_in, width, stride if block == 0 else 1))
                width_in = 4 * width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width_in, classes)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.body(image).mean((2, 3)))}


def write_resnet50(path: Path, side: int) -> None:
    """Train on the GPU and export."""
    torch.manual_seed(0)
    data = digits.load()
    images = torch.from_numpy(data.images[data.training])
    labels = torch.from_numpy(data.labels[data.training]).cuda()
    network = ResNet50(10).cuda().train()
    steps = EPOCHS * -(-len(labels) // BATCH_ROWS)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(labels)), BATCH_ROWS):
            batch = torch.from_numpy(enlarged(images[rows].numpy(), side)).cuda()
            loss = nn.functional.cross_entropy(network(batch)["logits"], labels[rows.cuda()])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    export(network.cpu().eval(), {"image": torch.zeros(2, 3, side, side)}, path)


def _convolution(width_in: int, width: int, side: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(width_in, width, side, stride, side // 2, bias=False), nn.BatchNorm2d(width)


if __name__ == "__main__":
    write_resnet50(Path(sys.argv[2]), int(sys.argv[1]))

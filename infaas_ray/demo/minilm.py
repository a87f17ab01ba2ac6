"""The sentence encoder all-MiniLM-L6-v2 as a small PyTorch module, with its published weights.

Six BERT layers, mean-pooled over the real tokens and scaled to length 1. Written out here rather than taken from
transformers because it is used for one export: that import costs seconds and hundreds of megabytes, and its graph
carries branches that this task never takes.

Needs torch and safetensors at import; `demo.models` imports it only when it has to make something.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WIDTH = 384
INNER_WIDTH = 1536
HEADS = 12
LAYERS = 6
WORDS = 30522
POSITIONS = 512
EPSILON = 1e-12

# Added to the score of a padded token; its softmax is then 0, and the number still fits half precision.
_HIDDEN = -10_000.0

# BERT's weight names -> ours, applied in this order; longer names come first because shorter ones are part of them.
_RENAMED = {
    "encoder.layer.": "layers.",
    "attention.self.": "",
    "attention.output.dense": "mix",
    "attention.output.LayerNorm": "mix_norm",
    "intermediate.dense": "grow",
    "output.dense": "shrink",
    "output.LayerNorm": "shrink_norm",
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings": "positions",
    "embeddings.token_type_embeddings": "segments",
    "embeddings.LayerNorm": "norm",
}


class Layer(nn.Module):
    """One transformer layer: attention, then two dense ones, each added to its input and normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.mix = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.mix_norm = nn.LayerNorm(WIDTH, EPSILON)
        self.grow = nn.Linear(WIDTH, INNER_WIDTH)
        self.shrink = nn.Linear(INNER_WIDTH, WIDTH)
        self.shrink_norm = nn.LayerNorm(WIDTH, EPSILON)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Map `x` [n, s, width] to the same shape; `hidden` [n, 1, 1, s] is added to the attention scores."""
        query, key, value = (_by_head(project(x)) for project in (self.query, self.key, self.value))
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=hidden)
        x = self.mix_norm(x + self.mix(attended.transpose(1, 2).flatten(2)))
        out: Tensor = self.shrink_norm(x + self.shrink(nn.functional.gelu(self.grow(x))))
        return out


class MiniLM(nn.Module):
    """`input_ids` and `attention_mask` INT64 [n, s] → `embedding` FP32 [n, 384] of length 1; s is at most 512."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.segments = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, EPSILON)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Embed each row; tokens whose mask is 0 count for nothing."""
        # A sentence stands alone, so every token is in the first segment.
        fixed = self.positions.weight[: input_ids.shape[1]] + self.segments.weight[0]
        # Not `self.words(...)`: that graph node would be named `embedding`, and ONNX export then fails because an
        # output has the same name.
        words = self.words.weight.index_select(0, input_ids.flatten()).reshape(*input_ids.shape, WIDTH)
        x = self.norm(words + fixed)
        real = attention_mask.type_as(x)
        hidden = ((1 - real) * _HIDDEN)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, hidden)
        mean = (x * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
        return {"embedding": nn.functional.normalize(mean)}


def load(folder: Path) -> MiniLM:
    """The encoder with the weights of `folder`/model.safetensors, ready to infer.

    Raises RuntimeError where these are the weights of another network.
    """
    weights = load_file(folder / "model.safetensors")
    unused = ("pooler.", "embeddings.position_ids")
    with torch.device("meta"):  # do not fill 90 MB with random numbers first
        model = MiniLM()
    model.load_state_dict({_renamed(k): v for k, v in weights.items() if not k.startswith(unused)}, assign=True)
    return model.eval()


def _by_head(x: Tensor) -> Tensor:
    """Split the last dimension: [n, s, width] → [n, heads, s, width / heads]."""
    return x.reshape(*x.shape[:2], HEADS, WIDTH // HEADS).transpose(1, 2)


def _renamed(name: str) -> str:
    for old, new in _RENAMED.items():
        name = name.replace(old, new)
    return name

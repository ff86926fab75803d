"""The network of the person finder: a square of a picture -> who is there, and where the joints of one of them are.

One network, two uses. With an empty hint it looks at a whole picture and marks the middle of every person, with the
distances from there to the four sides of the box. With a person's box as the hint it looks at that person closely and
says where the 18 keypoints are. Both are read from maps of 32 x 32 cells.

Letters: B squares, SIDE = 128 pixels, CELLS = 32, K = 18 keypoints. A residual U-Net; sizes follow from WIDTHS.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ComoviError
from .people import NUM_KEYPOINTS

SIDE, CELLS = 128, 32
STRIDE = SIDE // CELLS
WIDTHS = (32, 64, 96, 112)
WEIGHTS = Path(__file__).resolve().parents[1] / "assets" / "finder.safetensors"
AROUND = 2  # cells on either side of the best one that belong to the same guess


class Block(nn.Module):
    """Two 3 x 3 convolutions beside the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)
        self.first_norm, self.second_norm = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.first_norm(self.first(x)))
        return F.relu(x + self.second_norm(self.second(inner)))


@dataclass
class Seen:
    """What the network says of B squares; logits where not said otherwise."""

    centre: Tensor  # (B, 32, 32)
    sides: Tensor  # (B, 4, 32, 32): left, top, right, bottom of the box, distances from the cell's middle in cells
    keypoints: Tensor  # (B, K, 32 * 32 + 1): for each keypoint where it is, the last one for "not to be seen"


class FinderNet(nn.Module):
    def __init__(self, widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        first = widths[0]
        self.stem = nn.Sequential(_down(4, first // 2, 5), _down(first // 2, first), Block(first))
        self.down = nn.ModuleList(
            nn.Sequential(_down(narrow, wide), Block(wide), Block(wide)) for narrow, wide in pairwise(widths)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(wide, narrow, 1) for narrow, wide in pairwise(widths))
        self.up = nn.ModuleList(Block(width) for width in widths[:-1])
        self.maps = nn.Conv2d(first, 5 + NUM_KEYPOINTS, 1)
        self.absent = nn.Linear(widths[-1], NUM_KEYPOINTS)
        nn.init.constant_(self.maps.bias[:1], -4.0)  # hardly any cell is the middle of a person

    def forward(self, squares: Tensor) -> Seen:
        """(B, 4, 128, 128): red, green, blue in -1..1 and the hint, 1 inside the box of who is meant."""
        features = [self.stem(squares)]
        for step in self.down:
            features.append(step(features[-1]))
        x = features[-1]
        absent = self.absent(x.mean((2, 3)))
        for level in range(len(self.up) - 1, -1, -1):
            x = self.up[level](F.interpolate(self.lateral[level](x), scale_factor=2.0) + features[level])
        maps = self.maps(x).float()
        sides = F.softplus(maps[:, 1:5]) * (CELLS / 8)
        return Seen(maps[:, 0], sides, torch.cat([maps[:, 5:].flatten(2), absent.float()[..., None]], -1))


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def _down(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, outputs, kernel, 2), nn.BatchNorm2d(outputs), nn.ReLU())


def read_keypoints(logits: Tensor) -> Tensor:
    """Logits (B, K, 32 * 32 + 1) -> (B, K, 3): x, y in pixels of the square, and the probability that it is there."""
    share = logits.softmax(-1)[..., :-1].unflatten(-1, (CELLS, CELLS))  # (B, K, 32, 32)
    best = share.flatten(2).argmax(-1)
    row, column = (best // CELLS)[..., None], (best % CELLS)[..., None]  # (B, K, 1)
    cells = torch.arange(CELLS, device=logits.device)
    near_row = ((cells - row).abs() <= AROUND).to(share)  # (B, K, 32)
    near_column = ((cells - column).abs() <= AROUND).to(share)
    share = share * near_row[..., None] * near_column[..., None, :]
    mass = share.sum((2, 3))
    middles = (cells + 0.5) * STRIDE
    x = (share.sum(2) * middles).sum(-1) / mass.clamp_min(1e-9)
    y = (share.sum(3) * middles).sum(-1) / mass.clamp_min(1e-9)
    return torch.stack([x, y, mass], -1)


def read_boxes(seen: Seen, row: int, threshold: float, most: int) -> tuple[Tensor, Tensor]:
    """Of square `row`: boxes (n, 4) in its pixels and scores (n,), best first; some may be of the same person."""
    score = seen.centre[row].sigmoid()
    peak = score >= F.max_pool2d(score[None, None], 3, 1, 1)[0, 0]
    found = (peak & (score > threshold)).nonzero()  # (n, 2)
    order = score[found[:, 0], found[:, 1]].argsort(descending=True)[:most]
    found = found[order]
    sides = seen.sides[row][:, found[:, 0], found[:, 1]].T  # (n, 4)
    middle = found.flip(-1) + 0.5
    boxes = torch.cat([middle - sides[:, :2], middle + sides[:, 2:]], -1) * STRIDE
    return boxes, score[found[:, 0], found[:, 1]]


@lru_cache(maxsize=1)
def load_finder() -> FinderNet:
    """The network that is shipped, ready for use on the CPU."""
    return read_weights(WEIGHTS)


def read_weights(path: Path) -> FinderNet:
    """A network from a file of training/finder_train.py."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
        network = FinderNet()
        network.load_state_dict(tensors, strict=False)
        missing = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")} - set(tensors)
        if missing:
            raise KeyError(min(missing))
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ComoviError(f"{path}: the person finder is missing or damaged ({reason}); install again.") from None
    return network.eval().to(memory_format=torch.channels_last)

"""HRNet (Wang et al., 2019): four resolutions side by side, here with width 48 and a pooled read-out.

B pictures of 256 x 256 pixels, W the width of the finest branch; branch b has W * 2^b channels at 1/4 / 2^b of the
size. Parameter names are those of the published field-of-view network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODULES = (1, 4, 3)  # of stages 2, 3, 4, which have 2, 3, 4 branches
BLOCKS = 4  # in every branch of a module


def conv_bn(inside: int, outside: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """A convolution without bias and its batch norm."""
    return [nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outside)]


class BasicBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(channels, channels, 3)
        self.conv2, self.bn2 = conv_bn(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Bottleneck(nn.Module):
    def __init__(self, inside: int, planes: int):
        super().__init__()
        outside = 4 * planes
        self.conv1, self.bn1 = conv_bn(inside, planes, 1)
        self.conv2, self.bn2 = conv_bn(planes, planes, 3)
        self.conv3, self.bn3 = conv_bn(planes, outside, 1)
        self.downsample = nn.Sequential(*conv_bn(inside, outside, 1)) if inside != outside else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Exchange(nn.Module):
    """One module: every branch by itself, then every branch reads all of them."""

    def __init__(self, widths: list[int]):
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(width) for _ in range(BLOCKS))) for width in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(fuse(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        x = [branch(part) for branch, part in zip(self.branches, x, strict=True)]
        fused = []
        for target, layers in enumerate(self.fuse_layers):
            parts = []
            for source, layer in enumerate(layers):
                part = layer(x[source])
                if source > target:
                    part = F.interpolate(part, scale_factor=2 ** (source - target), mode="nearest")
                parts.append(part)
            fused.append(F.relu(sum(parts[1:], parts[0])))
        return fused


def fuse(widths: list[int], source: int, target: int) -> nn.Module:
    """From one branch to another: 1x1 towards finer ones (enlarged later), halving steps towards coarser ones."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(*conv_bn(widths[source], widths[target], 1))
    steps = []
    for k in range(target - source):
        last = k == target - source - 1
        step = conv_bn(widths[source], widths[target] if last else widths[source], 3, 2)
        steps.append(nn.Sequential(*step, *([] if last else [nn.ReLU()])))
    return nn.Sequential(*steps)


class HRNet(nn.Module):
    def __init__(self, width: int = 48):
        super().__init__()
        widths = [width * 2**branch for branch in range(4)]
        self.conv1, self.bn1 = conv_bn(3, 64, 3, 2)
        self.conv2, self.bn2 = conv_bn(64, 64, 3, 2)
        self.layer1 = nn.Sequential(Bottleneck(64, 64), *(Bottleneck(256, 64) for _ in range(3)))
        self.transition1 = nn.ModuleList([transition(256, widths[0], 1), nn.Sequential(transition(256, widths[1], 2))])
        self.transition2 = new_branch(2, widths)
        self.transition3 = new_branch(3, widths)
        self.stage2, self.stage3, self.stage4 = (
            nn.Sequential(*(Exchange(widths[: 2 + stage]) for _ in range(count))) for stage, count in enumerate(MODULES)
        )
        for branch in range(3):  # halved until they are as small as the coarsest branch
            halvings = [layer for _ in range(3 - branch) for layer in transition(widths[branch], widths[branch], 2)]
            setattr(self, f"downsample_stage_{branch + 1}", nn.Sequential(*halvings))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 256, 256) -> (B, 15 W), the mean over the picture of all branches."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer1(F.relu(self.bn2(self.conv2(x))))
        branches = self.stage2([layer(x) for layer in self.transition1])
        branches = self.stage3([*branches, self.transition2[2](branches[-1])])
        branches = self.stage4([*branches, self.transition3[3](branches[-1])])
        small = [getattr(self, f"downsample_stage_{b + 1}")(branches[b]) for b in range(3)]
        return torch.cat([*small, branches[3]], dim=1).mean(dim=(2, 3))


def transition(inside: int, outside: int, stride: int) -> nn.Sequential:
    return nn.Sequential(*conv_bn(inside, outside, 3, stride), nn.ReLU())


def new_branch(index: int, widths: list[int]) -> nn.ModuleList:
    """The layers into stage index + 1: branches that exist pass, the last one makes a coarser neighbour."""
    kept: list[nn.Module] = [nn.Identity() for _ in range(index)]
    return nn.ModuleList([*kept, nn.Sequential(transition(widths[index - 1], widths[index], 2))])

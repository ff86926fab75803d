"""What the frames of a motion map say, at two resolutions: where the body is, and its colours.

Letters: F frames, H W pixels of the map, h w pixels of a level (cropped to the person), B poses, P points.

The silhouette comes from the luma alone, because chroma is stored at half resolution and bleeds. Its edge lies where
the luma has fallen to half of the local contrast, which blur does not move; deep inside, a fixed level decides, so that
bright parts beside dark ones leave no holes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.2126, 0.7152, 0.0722)
DARKNESS = 0.10  # 1 - luma of a body pixel; the darkest background noise is 0.05
LOCAL = 13  # pixels at 640 pixels height: the window of the local contrast
DEEP = 5  # pixels inside the fixed-level mask where the local contrast is not asked
SMALLEST_BLOB = 0.02  # of the largest one
MARGIN = 14  # pixels of a level kept around the person
SDF_BLUR = 1.0  # pixels of a level
SDF_LIMIT = 12.0
GROUP = 8  # frames worked on at once
# Channels of Level.field
COLOUR, SLOPE_X, SLOPE_Y, CORE, SDF, SDF_SLOPE, OUTSIDE = (
    slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 10), slice(10, 11), slice(11, 13), slice(13, 15),
)  # fmt: skip
CHANNELS = 15


@dataclass(frozen=True)
class Level:
    """One resolution. Pixel (0, 0) of the level covers scale x scale pixels of the map from (left, top) * scale."""

    scale: int
    left: int
    top: int
    K: Tensor  # (F, 3, 3), of the cropped level
    cover: Tensor  # (F, h, w), covered fraction of each pixel
    field: Tensor  # (F, h, w, 15)

    @cached_property
    def mask(self) -> Tensor:
        """(F, h, w) bool"""
        return self.cover >= 0.5

    @cached_property
    def distance(self) -> Tensor:
        """(F, h, w, 3): SDF and SDF_SLOPE only"""
        return self.field[..., SDF.start : SDF_SLOPE.stop].contiguous()

    @cached_property
    def shuffled(self) -> Tensor:
        """(h * w,) int64: the numbers of all pixels in a random order, always the same."""
        order = torch.rand(self.size[0] * self.size[1], generator=torch.Generator().manual_seed(0))
        return order.argsort(descending=True).to(self.cover.device)

    @property
    def size(self) -> tuple[int, int]:
        """h, w"""
        return self.cover.shape[1], self.cover.shape[2]

    def sample(self, frame: Tensor, points: Tensor, field: Tensor | None = None) -> Tensor:
        """Bilinear values (B, P, 15) of frames (B,) at pixel positions (B, P, 2); of another field if given."""
        height, width = self.size
        x = (points[..., 0] - 0.5).clamp(0, width - 1.001)
        y = (points[..., 1] - 0.5).clamp(0, height - 1.001)
        left, top = x.floor(), y.floor()
        across, down = (x - left)[..., None], (y - top)[..., None]
        index = (frame[:, None] * height + top.long()) * width + left.long()
        flat = (self.field if field is None else field).flatten(0, 2)
        upper = torch.lerp(flat[index], flat[index + 1], across)
        lower = torch.lerp(flat[index + width], flat[index + width + 1], across)
        return torch.lerp(upper, lower, down)


@dataclass(frozen=True)
class Observation:
    fine: Level
    coarse: Level
    area: Tensor  # (F,) share of the map that is covered

    def __len__(self) -> int:
        return len(self.area)


def foreground(frames: Tensor) -> Tensor:
    """RGB (F, H, W, 3) in 0..1 -> (F, H, W) bool."""
    out = torch.zeros(frames.shape[:3], dtype=torch.bool, device=frames.device)
    scale = max(frames.shape[1] / 640, 0.35)
    dark = 1 - (frames @ frames.new_tensor(LUMA))[:, None]  # (F, 1, H, W)
    rows, columns = _rough_box(dark, round(4 * LOCAL * scale))
    dark = dark[:, :, rows, columns]
    if not dark.numel():
        return out
    window = 2 * round(LOCAL * scale / 2) + 1
    highest = _maximum(_blur(dark, max(scale, 0.4)), window)
    edge = (dark > 0.5 * highest) & (highest > 0.12)
    thick = dark > DARKNESS
    deep = -_maximum(-thick.to(dark), 2 * round(DEEP * scale) + 1) > 0.5
    out[:, rows, columns] = _without_specks((edge & (dark > 0.4 * DARKNESS)) | deep)[:, 0]
    return out


def _rough_box(dark: Tensor, margin: int) -> tuple[slice, slice]:
    """Rows and columns of (F, 1, H, W) outside of which there is certainly nobody."""
    small = F.avg_pool2d(dark, 4, ceil_mode=True, count_include_pad=False).amax((0, 1)) > 0.4 * DARKNESS
    out = []
    for line, length in ((small.any(1), dark.shape[2]), (small.any(0), dark.shape[3])):
        hit = line.nonzero().squeeze(1)
        first, last = (4 * int(hit[0]), 4 * int(hit[-1]) + 4) if len(hit) else (margin, -margin)
        out.append(slice(max(first - margin, 0), min(last + margin, length)))
    return out[0], out[1]


def _maximum(picture: Tensor, window: int) -> Tensor:
    """The greatest value in a square of odd width `window` around each pixel, by doubling."""
    half = window // 2
    picture = F.pad(picture, [half] * 4, value=-torch.inf)
    for axis in (2, 3):
        size = 1
        while size < window:
            step = min(size, window - size)
            length = picture.shape[axis] - step
            picture = torch.maximum(picture.narrow(axis, 0, length), picture.narrow(axis, step, length))
            size += step
    return picture


def _blur(picture: Tensor, sigma: float) -> Tensor:
    """(F, C, H, W) blurred, edges repeated."""
    radius = max(1, math.ceil(2.5 * sigma))
    offset = torch.arange(-radius, radius + 1, device=picture.device, dtype=picture.dtype)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = picture.shape[1]
    padded = F.pad(picture, [radius] * 4, mode="replicate")
    padded = F.conv2d(padded, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(padded, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def _without_specks(mask: Tensor) -> Tensor:
    """(F, 1, H, W) bool without blobs smaller than 2 % of the largest one of the frame."""
    small = F.max_pool2d(mask.float(), 4, 4, ceil_mode=True)[:, 0] > 0  # blobs at a quarter of the size
    frames, height, width = small.shape
    number = torch.arange(1, height * width + 1, device=mask.device, dtype=torch.float32).view(1, height, width)
    label = torch.where(small, number, 0.0)
    for _ in range(height + width):
        spread = torch.where(small, F.max_pool2d(label[:, None], 3, 1, 1)[:, 0], 0.0)
        for _ in range(3):  # a label names a pixel of its blob, which may know a greater one
            named = spread.flatten(1).gather(1, (spread.flatten(1).long() - 1).clamp_min(0)).view_as(spread)
            spread = torch.where(small, named, 0.0)
        if torch.equal(spread, label):
            break
        label = spread
    owner = label.long() + torch.arange(frames, device=mask.device)[:, None, None] * (height * width + 1)
    count = torch.bincount(owner.flatten(), minlength=frames * (height * width + 1)).view(frames, -1)
    count[:, 0] = 0
    keep = count >= SMALLEST_BLOB * count.amax(1, keepdim=True).clamp_min(1)
    kept = keep.gather(1, label.long().flatten(1)).view_as(small) & small
    large = kept.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, : mask.shape[2], : mask.shape[3]]
    return mask & large[:, None]


def level_scales(height: int, width: int) -> tuple[int, int]:
    """Pixels of the map per pixel of the fine and of the coarse level: about 320 and 160 pixels on the longer side."""
    fine = max(1, round(max(height, width) / 320))
    return fine, 2 * fine


@dataclass(frozen=True)
class Calibration:
    """Per channel: shown = gain * drawn + offset."""

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def undo(self, frames: Tensor) -> Tensor:
        """uint8 (..., 3) -> float 0..1, as drawn."""
        picture = frames.float() / 255
        if self == Calibration():
            return picture
        return (picture - picture.new_tensor(self.offset)) / picture.new_tensor(self.gain)


def observe(frames: Tensor, K: Tensor, calibration: Calibration = Calibration()) -> Observation:
    """Map (F, H, W, 3) uint8, K (F, 3, 3) in its pixels."""
    groups = [slice(i, i + GROUP) for i in range(0, len(frames), GROUP)]
    masks = torch.cat([foreground(calibration.undo(frames[group])) for group in groups])
    box = _box(masks)
    fine, coarse = level_scales(frames.shape[1], frames.shape[2])
    levels = [_level(frames, masks, K, scale, box, calibration) for scale in (fine, coarse)]
    return Observation(levels[0], levels[1], masks.float().mean((1, 2)))


def _box(masks: Tensor) -> tuple[int, int, int, int]:
    """left, top, right, bottom of all silhouettes of the clip; everything where there is none."""
    rows, columns = masks.any(0).any(1).nonzero(), masks.any(0).any(0).nonzero()
    if not len(rows):
        return 0, 0, masks.shape[2], masks.shape[1]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _level(
    frames: Tensor, masks: Tensor, K: Tensor, scale: int, box: tuple[int, int, int, int], calibration: Calibration
) -> Level:
    height, width = frames.shape[1] // scale, frames.shape[2] // scale
    left, top = max(box[0] // scale - MARGIN, 0), max(box[1] // scale - MARGIN, 0)
    right, bottom = min(box[2] // scale + MARGIN, width), min(box[3] // scale + MARGIN, height)
    window = (slice(top * scale, bottom * scale), slice(left * scale, right * scale))
    covers, fields = [], []
    for start in range(0, len(frames), GROUP):
        group = slice(start, start + GROUP)
        colour = calibration.undo(frames[group, window[0], window[1]]).permute(0, 3, 1, 2)
        mask = masks[group, window[0], window[1]].to(colour.dtype)[:, None]
        cover = F.avg_pool2d(mask, scale) if scale > 1 else mask
        # Only covered pixels speak for the colour of a cell.
        colour = (F.avg_pool2d(colour * mask, scale) if scale > 1 else colour * mask) / cover.clamp_min(1e-3)
        covers.append(cover[:, 0])
        fields.append(_field(colour, cover[:, 0]))
    shift = torch.tensor([[1 / scale, 0, -left], [0, 1 / scale, -top], [0, 0, 1]], dtype=K.dtype, device=K.device)
    return Level(scale, left, top, shift @ K, torch.cat(covers), torch.cat(fields))


def _field(colour: Tensor, cover: Tensor) -> Tensor:
    """Colours (F, 3, h, w) and covered fractions (F, h, w) -> all channels (F, h, w, 15)."""
    mask = cover >= 0.5
    core = -F.max_pool2d(-(cover > 0.99).to(cover)[:, None], 3, 1, 1)[:, 0]
    slope_x, slope_y = torch.zeros_like(colour), torch.zeros_like(colour)
    slope_x[..., 1:-1] = (colour[..., 2:] - colour[..., :-2]) / 2
    slope_y[..., 1:-1, :] = (colour[..., 2:, :] - colour[..., :-2, :]) / 2
    out_x, out_y = nearest_offset(mask)
    outside = torch.stack([out_x, out_y], 1)
    sdf = signed_distance(mask, cover, outside)
    padded = F.pad(sdf[:, None], [1] * 4, mode="replicate")
    sdf_slope = torch.stack([padded[:, 0, 1:-1, 2:] - padded[:, 0, 1:-1, :-2],
                             padded[:, 0, 2:, 1:-1] - padded[:, 0, :-2, 1:-1]], 1) / 2  # fmt: skip
    return (
        torch.cat(
            [colour, slope_x * core[:, None], slope_y * core[:, None], core[:, None], sdf[:, None], sdf_slope, outside],
            1,
        )
        .permute(0, 2, 3, 1)
        .contiguous()
    )


def depth_inside(mask: Tensor, limit: int) -> Tensor:
    """(F, h, w) bool -> pixels to the nearest False one in each row and column direction and between, at most limit."""
    height = mask.shape[1]
    row = torch.arange(height, device=mask.device).view(1, -1, 1).expand_as(mask)
    above = torch.where(mask, -limit, row).cummax(1).values
    below = torch.where(mask, height + limit, row).flip(1).cummin(1).values.flip(1)
    column = torch.minimum(row - above, below - row).clamp_max(limit).float().square()  # in the same column
    padded = F.pad(column, [limit, limit], value=float(limit**2))
    nearest = column
    for shift in range(-limit, limit + 1):
        nearest = torch.minimum(nearest, padded[..., limit + shift : limit + shift + mask.shape[2]] + shift**2)
    return nearest.sqrt()


def nearest_offset(mask: Tensor) -> tuple[Tensor, Tensor]:
    """(F, h, w) bool -> steps in x and y (F, h, w) from each pixel to the nearest True one, exact; 0 where none."""
    frames, height, width = mask.shape
    row = torch.arange(height, device=mask.device).view(1, -1, 1).expand_as(mask)
    far = 4 * (height + width)
    above = torch.where(mask, row, -far).cummax(1).values
    below = torch.where(mask, row, far).flip(1).cummin(1).values.flip(1)
    dy = torch.where(row - above <= below - row, above - row, below - row)  # nearest in the same column
    column = torch.arange(width, device=mask.device, dtype=torch.float32)
    apart = (column[:, None] - column[None]).square()  # (w, w')
    out_x, out_y = torch.empty(mask.shape, device=mask.device), torch.empty(mask.shape, device=mask.device)
    for f in range(frames):
        cost = dy[f].float().square()[:, None, :] + apart  # (h, w, w')
        best = cost.argmin(-1)
        out_x[f] = (best - column.long()).float()
        out_y[f] = dy[f].gather(1, best).float()
    empty = ~mask.any(2).any(1)
    out_x[empty], out_y[empty] = 0, 0
    return out_x, out_y


def signed_distance(mask: Tensor, cover: Tensor, outside: Tensor) -> Tensor:
    """Pixels (F, h, w) to the outline, positive outside; sub-pixel near it, at most SDF_LIMIT away from it."""
    inner = depth_inside(mask, round(SDF_LIMIT) + 1) - 0.5
    rough = torch.where(mask, -inner, outside.norm(dim=1) - 0.5)
    sigma = math.sqrt(SDF_BLUR**2 + 1 / 12)  # of the blur and of the pixel itself
    share = _blur(cover[:, None], SDF_BLUR)[:, 0]
    # Across a straight edge, the blurred share is the normal distribution of the distance.
    smooth = -sigma * math.sqrt(2) * torch.erfinv((2 * share - 1).clamp(-0.98, 0.98))
    blend = ((rough.abs() - 1.0) / 1.0).clamp(0, 1)
    return torch.lerp(smooth, rough, blend).clamp(-SDF_LIMIT, SDF_LIMIT)

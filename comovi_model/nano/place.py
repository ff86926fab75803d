"""Where the body is: the pose head gives rotations without a place, the motion map shows the place without numbers.

Letters: F frames, D trial depths, H x W pixels. body/root.py reads the place from centre and area of the silhouette,
which is exact for clean maps. Generated maps smear fast limbs, and the smear moves centre and area: a waving arm pulls
the body half a metre through the room. So here the figure is drawn at several depths, each drawing is slid to where it
overlaps the silhouette most, and the depth of the best overlap wins: the trunk decides, and a limb that the map shows
elsewhere does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from ..body.map_colours import silhouette
from ..body.map_render import visible_body
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel, pose_body, rest_joints

SOLID = 0.75  # level of the silhouette: below BACKGROUND_LEVEL, where the pale smear of generated maps begins
DEPTHS = torch.arange(-6, 5) * 0.02  # trial changes of depth, as shares of it; a walk towards the camera ends at -0.1
STILLNESS = 2.0  # overlap that a change of depth costs, per square of its share: 0.005 for half a metre
REACH = 48  # pixels that a figure may be from where it was in frame 0, sideways and vertically
BLUR = 5  # pixels; a figure smaller than the silhouette then rests in its middle
DEPTH_FRAMES, PLACE_FRAMES = 3.0, 0.7  # standard deviations of the averages over time
GROUNDED, AIRBORNE = 0.05, 0.14  # metres above the floor
LEAST_PIXELS = 200  # a smaller silhouette says nothing


def place_motion(
    model: BodyModel, motion: BodyMotion, motion_map: Tensor, progress: Callable[[int, int], None] | None = None
) -> BodyMotion:
    """A motion in the camera frame near its right places -> the same, moved to where its map shows it.

    A body that stays in the place of frame 0 is near enough when its camera is as far as the nano model's (DEPTHS).
    motion_map (F, H, W, 3) uint8, of the size of the motion's camera. Frame 0 keeps its place. progress(done, total)
    is called after every trial depth.
    """
    camera = motion.camera
    assert motion.frame == "camera"
    assert camera is not None
    target = silhouette(motion_map.float() / 255, SOLID)
    pelvis = rest_joints(model, motion.betas)[0] + motion.transl  # (F, 3)
    vertices = pose_body(model, motion.rotations, motion.betas, motion.transl).vertices
    tried = []
    for depth in DEPTHS.tolist():  # along the ray of the pelvis, so that its pixel stays
        drawn = visible_body(model, vertices + depth * pelvis[:, None], camera.K, *target.shape[1:]).mask()
        tried.append(best_slide(drawn, target))
        if progress is not None:
            progress(len(tried), len(DEPTHS))
    overlap, slide = (torch.stack(column, 1) for column in zip(*tried, strict=True))  # (F, D), (F, D, 2)
    overlap[target.flatten(1).sum(1) < LEAST_PIXELS] = 0.0
    overlap = averaged(overlap - STILLNESS * DEPTHS**2, DEPTH_FRAMES, through_ends=False)
    step = highest(overlap)  # (F,) in steps of DEPTHS
    share = DEPTHS[0] + step * (DEPTHS[1] - DEPTHS[0])
    across = averaged(between(slide, step), PLACE_FRAMES)  # (F, 2) pixels
    focal = camera.K[[0, 1], [0, 1]]
    sideways = pad(across / focal, (0, 1)) * (pelvis[:, 2] * (1 + share))[:, None]
    move = averaged(share[:, None], DEPTH_FRAMES) * pelvis + sideways
    return replace(motion, transl=motion.transl + move - move[:1])  # what frame 0 shows is the error of measuring


def keep_on_floor(model: BodyModel, motion: BodyMotion, up: Tensor) -> BodyMotion:
    """The same motion with its lowest point on the floor of frame 0 wherever it was found near or below it.

    up (3,) is the world's y axis in the camera frame. A place read from smeared pixels is some centimetres off, and a
    person who floats or sinks looks wrong at once; only what rises further, a jump, is left in the air.
    """
    lowest = torch.cat([
        (pose_body(model, part.rotations, part.betas, part.transl).vertices @ up).amin(1)
        for part in (motion.slice(start, start + 16) for start in range(0, len(motion), 16))
    ])  # fmt: skip
    height = lowest - lowest[0]
    standing = ((AIRBORNE - height) / (AIRBORNE - GROUNDED)).clamp(0, 1)  # 1 on the floor, 0 in the air
    lift = averaged((-height * standing)[:, None], PLACE_FRAMES)
    return replace(motion, transl=motion.transl + lift * up)


def best_slide(drawn: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Masks (F, H, W) -> greatest overlap (F,) as a share of the union, and the slide (F, 2) that gives it, in pixels.

    Overlaps of all slides are one product of Fourier transforms; a parabola finds the place between the pixels.
    """
    size = [side + 2 * REACH for side in target.shape[1:]]  # room, so that nothing comes in on the other side
    soft = avg_pool2d(target[:, None].float(), BLUR, 1, BLUR // 2)[:, 0]
    product = torch.fft.rfft2(soft, size) * torch.fft.rfft2(drawn.float(), size).conj()
    common = torch.fft.irfft2(product, size).roll((REACH, REACH), (1, 2))[:, : 2 * REACH + 1, : 2 * REACH + 1]
    place = common.flatten(1).argmax(1)
    row, column = place // (2 * REACH + 1), place % (2 * REACH + 1)
    frame = torch.arange(len(common))
    most = common[frame, row, column]
    union = (drawn.flatten(1).sum(1) + target.flatten(1).sum(1) - most).clamp_min(1)
    slide = torch.stack([highest(common[frame, row], column), highest(common[frame, :, column], row)], 1) - REACH
    return most / union, slide


def highest(values: Tensor, at: Tensor | None = None) -> Tensor:
    """The place (F,) of the greatest of (F, n), between the numbers by a parabola; `at` (F,) when it is known."""
    middle = (values.argmax(1) if at is None else at).clamp(1, values.shape[1] - 2)
    before, top, after = (values.gather(1, (middle + i)[:, None])[:, 0] for i in (-1, 0, 1))
    bend = (before - 2 * top + after).clamp_max(-1e-6)
    return middle + (0.5 * (before - after) / bend).clamp(-1, 1)


def between(values: Tensor, place: Tensor) -> Tensor:
    """Rows of (F, D, n) at places (F,) that may lie between two -> (F, n)."""
    low = place.floor().long().clamp(0, values.shape[1] - 2)
    share = (place - low)[:, None]
    frame = torch.arange(len(values))
    return (1 - share) * values[frame, low] + share * values[frame, low + 1]


def averaged(values: Tensor, frames: float, through_ends: bool = True) -> Tensor:
    """(F, n) averaged over time with a Gaussian of that many frames; through_ends=True keeps both ends in place."""
    reach = min(round(3 * frames), len(values) - 1)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / frames) ** 2)
    before, after = values[1 : reach + 1].flip(0), values[-reach - 1 : -1].flip(0)
    if through_ends:  # continued as if turned by 180 degrees about the end points
        before, after = 2 * values[:1] - before, 2 * values[-1:] - after
    longer = torch.cat([before, values, after])  # (F + 2 reach, n)
    return longer.unfold(0, 2 * reach + 1, 1) @ (weights / weights.sum())

"""One picture and the boxes of its people to bodies in the camera's frame.

A picture is (H, W, 3) uint8 RGB. The principal point is the middle of the picture. A body is a `BodyMotion` of one
frame in frame "camera"; its pelvis is at rest_joints(model, betas)[0] + transl, as everywhere in this package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..body.cameras import Camera, intrinsics
from ..body.motion import BodyMotion
from ..body.rotations import matrix_from_6d_columns
from ..errors import ComoviError
from .checkpoint import check_kind, fill, mean_parameters, read_checkpoint
from .crop import COLUMNS, Square, camera_condition, crop, normalised, square_of, translation
from .decoder import DecoderConfig, Heads, SmplHead
from .field_of_view import CHANNEL_ORDERS, FieldOfViewNet, focal_from_field_of_view, network_picture
from .vit import VisionTransformer, VitConfig

Box = Any  # four numbers in a tuple, list, array or tensor: left, top, right, bottom in pixels
BODY_MODEL = "smpl-neutral"


class BodyNet(nn.Module):
    """Backbone and head, under the published names."""

    def __init__(self, vit: VitConfig | None = None, decoder: DecoderConfig | None = None):
        super().__init__()
        self.backbone = VisionTransformer(vit or VitConfig())
        self.smpl_head = SmplHead(decoder or DecoderConfig())

    def forward(self, pixels: Tensor, condition: Tensor) -> Heads:
        """Crops (B, 3, 256, 192), normalised, and camera conditions (B, 3); the head runs in float32."""
        tokens = self.backbone(pixels.to(self.backbone.pos_embed.dtype))
        return self.smpl_head(tokens.to(self.smpl_head.decpose.weight.dtype), condition)


@dataclass(frozen=True)
class CameraHMR:
    """Both networks; the field-of-view network may be absent where the focal length is always given."""

    body: BodyNet
    field_of_view: FieldOfViewNet | None = None
    fov_channels: str = "bgr"

    def focal(self, picture: np.ndarray) -> float:
        """Focal length in pixels, estimated from the whole picture."""
        if self.field_of_view is None:
            raise ComoviError(
                "the focal length is not given and the field-of-view network is not loaded; give a focal length in "
                "pixels or load cam_model_cleaned.ckpt."
            )
        read = network_picture(picture, self.fov_channels).to(self.field_of_view.fc1.weight)
        with torch.inference_mode():
            radians = float(self.field_of_view(read)[0, 1])
        if not 0 < radians < 3:
            raise ComoviError(f"the estimated field of view of {radians:.2f} radians cannot be; give a focal length.")
        return focal_from_field_of_view(radians, picture.shape[0])

    def estimate(
        self,
        picture: np.ndarray,
        boxes: Sequence[Box],
        focal: float | None = None,
        *,
        chunk: int = 8,
        interrupted: Callable[[], bool] | None = None,
    ) -> list[BodyMotion]:
        """One body per box. chunk: how many crops go through the network together."""
        height, width = picture.shape[:2]
        squares = [square_of(box, width, height) for box in boxes]
        focal = self.focal(picture) if focal is None else float(focal)
        said: list[Heads] = []
        for start in range(0, len(squares), chunk):
            if interrupted is not None and interrupted():
                break
            said.append(self._read([(picture, square) for square in squares[start : start + chunk]], focal))
        heads = [Heads(*row) for part in said for row in zip(*part, strict=True)]
        view = Camera(intrinsics(focal, width / 2, height / 2), width, height)
        return [as_motion(head, square, view) for head, square in zip(heads, squares, strict=False)]

    def estimate_frames(
        self,
        views: Sequence[tuple[np.ndarray, Box]],
        focal: float,
        *,
        chunk: int = 8,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[BodyMotion]:
        """One body per picture and box, for pictures of one size: crops of several frames go through together.

        on_progress(done, of) is called after every chunk; what it raises ends the work.
        """
        found: list[BodyMotion] = []
        for start in range(0, len(views), chunk):
            part = views[start : start + chunk]
            height, width = part[0][0].shape[:2]
            squares = [square_of(box, width, height) for _, box in part]
            said = self._read([(picture, square) for (picture, _), square in zip(part, squares, strict=True)], focal)
            view = Camera(intrinsics(focal, width / 2, height / 2), width, height)
            heads = [Heads(*row) for row in zip(*said, strict=True)]
            found += [as_motion(head, square, view) for head, square in zip(heads, squares, strict=True)]
            if on_progress is not None:
                on_progress(len(found), len(views))
        return found

    def _read(self, views: Sequence[tuple[np.ndarray, Square]], focal: float) -> Heads:
        device = self.body.smpl_head.decpose.weight.device
        pixels = torch.stack([normalised(crop(picture, square)) for picture, square in views])[..., COLUMNS]
        conditions = torch.stack(
            [camera_condition(square, focal, picture.shape[1], picture.shape[0]) for picture, square in views]
        )
        with torch.inference_mode():
            heads = self.body(pixels.to(device), conditions.to(device))
        return Heads(*(part.float().cpu() for part in heads))


def as_motion(head: Heads, square: Square, view: Camera) -> BodyMotion:
    """What the head says of one crop as a body of one frame."""
    focal = float(view.K[0, 0])
    return BodyMotion(
        rotations=matrix_from_6d_columns(head.pose.unflatten(-1, (24, 6)))[None],
        betas=head.betas,
        transl=translation(head.camera, square, focal, view.width, view.height)[None],
        frame="camera",
        camera=view,
        body_model=BODY_MODEL,
        provenance={"made_by": "CameraHMR", "square": [*square.centre, square.side]},
    )


def load_camerahmr(
    body: str | Path,
    field_of_view: str | Path | None = None,
    *,
    mean: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    fov_channels: str = "bgr",
) -> CameraHMR:
    """Both networks from the published files (.ckpt, or .safetensors of `convert`).

    mean: smpl_mean_params.npz, for a checkpoint without the mean body. dtype: of the backbone; the head stays float32.
    fov_channels: "bgr" as CoMoVi's data were made, "rgb" as the network was trained.
    """
    if fov_channels not in CHANNEL_ORDERS:
        raise ComoviError(f"fov_channels is {fov_channels!r}; choose one of {', '.join(CHANNEL_ORDERS)}.")
    tensors = read_checkpoint(body)
    check_kind(tensors, body, "body")
    if mean is not None:
        tensors = {**mean_parameters(mean), **tensors}
    network = _empty(BodyNet)
    fill(network, tensors, str(body))
    network.backbone.to(dtype)
    view = None
    if field_of_view is not None:
        tensors = read_checkpoint(field_of_view)
        check_kind(tensors, field_of_view, "field of view")
        view = _empty(FieldOfViewNet)
        fill(view, tensors, str(field_of_view))
        view.to(device)
    return CameraHMR(network.to(device), view, fov_channels)


def _empty(kind: type[nn.Module]) -> nn.Module:
    """A network without memory of its own, to be filled from a file."""
    with torch.device("meta"):
        return kind()

"""Our CameraHMR on the inputs of a golden file, tensor by tensor."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..body.rotations import matrix_from_6d_columns
from .checkpoint import fill
from .crop import COLUMNS, SIDE, Square, camera_condition, crop, normalised, square_of, translation
from .decoder import DecoderConfig, SmplHead
from .estimator import BodyNet
from .field_of_view import FieldOfViewNet, focal_from_field_of_view, letterbox, network_picture
from .vit import VitConfig

if TYPE_CHECKING:
    from ..verify import Golden

Case = tuple[str, Mapping[str, Tensor]]


def is_result(name: str) -> bool:
    """Whether a tensor of such a file is something to reproduce."""
    inputs = r"^(model|flnet)\.|^image_rgb$|^crop\.boxes|^rot6d\.input|^cases\.(image_wh|box_|focal|weak_persp)"
    return not re.search(inputs, name) and name != "net.kp_ignored"


def run_cases(golden: Golden) -> Iterator[Case]:
    """The parts of the pipeline in their order."""
    picture = golden.tensors["image_rgb"].numpy()
    yield from field_of_view_cases(golden, picture)
    yield from crop_cases(golden, picture)
    yield from network_cases(golden, picture)
    yield from formula_cases(golden)


def field_of_view_cases(golden: Golden, picture: np.ndarray) -> Iterator[Case]:
    config = golden.facts["config"]
    network = FieldOfViewNet(config["hrnet_width"], config["flnet_fc"])
    fill(network, golden.under("flnet."), golden.path.name)
    first, last = config["portrait_columns"]
    views = {
        "landscape": (picture, "rgb"),
        "portrait": (picture[:, first:last], "rgb"),
        "landscape_bgr": (picture, "bgr"),
    }
    for name, (view, channels) in views.items():
        ours = {}
        if f"fov.{name}.letterbox_uint8" in golden.tensors:
            ours[f"fov.{name}.letterbox_uint8"] = torch.from_numpy(letterbox(np.ascontiguousarray(view)))
        read = network_picture(np.ascontiguousarray(view), channels)
        output = network(read)
        height, width = view.shape[:2]
        focal = focal_from_field_of_view(float(output[0, 1]), height)
        ours[f"fov.{name}.pooled"] = network.backbone(read)
        ours[f"fov.{name}.output"] = output
        ours[f"fov.{name}.cam_int"] = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        yield f"fov.{name}", ours


def squares(golden: Golden, picture: np.ndarray) -> list[Square]:
    height, width = picture.shape[:2]
    return [square_of(box, width, height) for box in golden.tensors["crop.boxes_xyxy"]]


def crop_cases(golden: Golden, picture: np.ndarray) -> Iterator[Case]:
    found = squares(golden, picture)
    scale = torch.tensor([SIDE / square.side for square in found], dtype=torch.float64)
    centres = torch.tensor([square.centre for square in found], dtype=torch.float64)
    affine = torch.zeros(len(found), 2, 3, dtype=torch.float64)
    affine[:, 0, 0] = affine[:, 1, 1] = scale
    affine[:, :, 2] = SIDE / 2 - scale[:, None] * centres
    crops = torch.stack([crop(picture, square) for square in found])
    yield (
        "crop.boxes",
        {
            "crop.box_center": centres.float(),
            "crop.box_size": torch.tensor([square.side for square in found]),
            "crop.affine": affine.float(),
        },
    )
    yield (
        "crop.pixels",
        {
            "crop.rgb_uint8_chw": crops,
            "crop.normalised_0_every4": normalised(crops[0])[:, ::4, ::4],
        },
    )


def network_cases(golden: Golden, picture: np.ndarray) -> Iterator[Case]:
    """The body network on the golden crop itself, so that rounding of the crop does not enter."""
    config = golden.facts["config"]
    vit = VitConfig(**{key: config["vit"][key] for key in ("embed_dim", "depth", "num_heads", "mlp_ratio")})
    sizes = ("dim", "depth", "heads", "dim_head", "mlp_dim", "context_dim")
    network = BodyNet(vit, DecoderConfig(**{key: config["decoder"][key] for key in sizes}))
    fill(network, golden.under("model."), golden.path.name)
    height, width = picture.shape[:2]
    square = squares(golden, picture)[0]
    focal = float(golden.tensors["fov.landscape.cam_int"][0, 0])
    pixels = normalised(golden.tensors["crop.rgb_uint8_chw"][:1])[..., COLUMNS]
    condition = camera_condition(square, focal, width, height)[None]
    backbone, head = network.backbone, network.smpl_head
    ours: dict[str, Tensor] = {}
    embedded = backbone.patch_embed(pixels)
    ours["net.patch_embed"] = embedded[:, ::8]
    x = embedded + backbone.pos_embed[:, 1:] + backbone.pos_embed[:, :1]
    for index, block in enumerate(backbone.blocks):
        x = block(x)
        ours[f"net.vit_block{index}"] = x[:, ::8] if index == 0 else x
    tokens = backbone(pixels)
    ours["net.backbone"] = tokens.transpose(1, 2).unflatten(2, (16, 12))
    yield "net.backbone", {name: ours[name] for name in ours if name in golden.tensors}
    yield "net.head", head_tensors(head, tokens, condition, golden)
    said = head(tokens, condition)
    rotations = matrix_from_6d_columns(said.pose.unflatten(-1, (24, 6)))
    yield (
        "net.out",
        {
            "net.out.global_orient": rotations[:, :1],
            "net.out.body_pose": rotations[:, 1:],
            "net.out.betas": said.betas,
            "net.out.cam": said.camera,
            "net.out.focal": torch.tensor([focal]),
            "net.out.cam_t": translation(said.camera[0], square, focal, width, height)[None],
        },
    )


def head_tensors(head: SmplHead, tokens: Tensor, condition: Tensor, golden: Golden) -> Mapping[str, Tensor]:
    """What happens inside the head."""
    part = head.transformer
    seen: list[Tensor] = []
    query = head.query(condition)
    embedded = part.to_token_embedding(query) + part.pos_embedding
    token = part.transformer(embedded, tokens, seen)
    said = head.read(token[:, 0])
    ours = {
        "net.bbox_info": condition,
        "net.token_in": query,
        "net.token_embed": part.to_token_embedding(query),
        "net.token_out": token,
        "net.pose_delta": said.pose - head.init_body_pose,
        "net.betas_delta": said.betas - head.init_betas,
        "net.cam_delta": said.camera - head.init_cam,
        **{f"net.dec_ff{index}": added for index, added in enumerate(seen)},
    }
    return {name: ours[name] for name in ours if name in golden.tensors}


def formula_cases(golden: Golden) -> Iterator[Case]:
    given = golden.under("cases.")
    conditions, translations = [], []
    for size, centre, side, focal, camera in zip(
        given["image_wh"], given["box_center"], given["box_size"], given["focal"], given["weak_persp"], strict=True
    ):
        square = Square((float(centre[0]), float(centre[1])), float(side))
        view = (float(focal), int(size[0]), int(size[1]))
        conditions.append(camera_condition(square, *view))
        translations.append(translation(camera, square, *view))
    yield "cases", {"cases.bbox_info": torch.stack(conditions), "cases.cam_t": torch.stack(translations)}
    yield "rot6d", {"rot6d.rotmat": matrix_from_6d_columns(golden.tensors["rot6d.input"])}

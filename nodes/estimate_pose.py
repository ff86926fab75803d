"""CoMoVi_EstimatePose: one photo -> the body of the person in it, by the best way that is wired."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from comfy_api.latest import io

from ..comovi_model.body.smpl import BodyModel
from ..comovi_model.errors import ComoviError
from ..comovi_model.estimate.people import CHOICES
from ..comovi_model.estimate.people_from import people_from_masks
from ..comovi_model.estimate.photo import WAYS, Estimate, Sources, estimate_photo
from ..comovi_model.images import to_uint8
from ..comovi_model.show.overlay import iter_overlay
from .choices import listed
from .estimators import Estimator
from .frames import Steps, batch_of, frames_of
from .pose_data import EstimatedPoseData
from .schema import ADVANCED, Body, BodyMotion, make_schema
from .shown_text import shown_text
from .who import focal_input, given_camera, lens_input, mask_of, people_of_frames, who_inputs

BEST = "best at hand"
WAY_OF = {BEST: None, "CameraHMR": "camerahmr", "SAM 3D Body": "mhr", "motion": "motion", "keypoints": "keypoints"}


class EstimatePose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_EstimatePose",
            "Estimate Pose",
            "estimate",
            description="The body of the person in a photo, with the camera that sees it: what a clip starts from. By "
            "the best that is wired: your CameraHMR, SAM 3D Body's people, a motion; else keypoints, approximately.",
            search_aliases=["image to pose", "smpl", "hmr", "camerahmr", "pose estimation", "photo to pose", "mesh"],
            has_intermediate_output=True,
            inputs=[
                io.Image.Input("image", tooltip="One picture of at least one person."),
                Body.Input("body", tooltip="The body that shall stand so; from Load Body."),
                *who_inputs(CHOICES),
                Estimator.Input("estimator", optional=True, tooltip="Your CameraHMR, from Load CameraHMR."),
                EstimatedPoseData.Input(
                    "pose_data", optional=True, tooltip="What the core's SAM 3D Body says of this picture."
                ),
                BodyMotion.Input(
                    "motion", optional=True, tooltip="A pose made elsewhere for this picture; its first frame is used."
                ),
                focal_input(),
                io.Combo.Input(
                    "way",
                    options=list(WAY_OF),
                    default=BEST,
                    optional=True,
                    tooltip="By which way, if several are wired. The best comes first in this list.",
                    **ADVANCED,
                ),
                lens_input(),
            ],
            outputs=[
                BodyMotion.Output(
                    display_name="motion",
                    is_output_list=True,
                    tooltip="One frame in the camera's frame, with the camera; for 'all' a list, one per person.",
                ),
                io.Image.Output(display_name="overlay", tooltip="The picture with the bodies over it."),
                io.String.Output(display_name="report", tooltip="By which way, how well, and what was assumed."),
            ],
        )

    @classmethod
    def validate_inputs(cls, who=None, way=None):
        return listed(cls, {"who": who, "way": way})

    @classmethod
    def execute(
        cls, image, body, who, index, people=None, mask=None, estimator=None, pose_data=None, motion=None, focal_px=0.0,
        way=BEST, focal_from_keypoints=False,
    ) -> io.NodeOutput:  # fmt: skip
        if len(image) != 1:
            raise ComoviError(f"image holds {len(image)} pictures; give one, or use Estimate Motion for a video.")
        picture = frames_of(image, "image")[0]
        size = (picture.shape[0], picture.shape[1])
        given = people_of_frames(people, size, 1)
        painted = mask_of(mask, size) if who == "mask" else None
        if given is None and painted is not None:  # the mask says who it is, whatever our finder sees
            given = [people_from_masks(painted, size)]
        wanted = WAY_OF[way]
        asked = estimator is not None and wanted in (None, "camerahmr")  # another way needs no gigabytes on the GPU
        sources = Sources(
            estimator=estimator.ready() if asked else None,
            pose_data=checked_pose_data(pose_data),
            motion=motion,
            people=None if given is None else given[0],
            camera=given_camera(focal_px, size),
            lens_from_keypoints=focal_from_keypoints,
        )
        estimates = estimate_photo(
            picture.numpy(), body, sources, choice=who, index=index, mask=painted, way=wanted, on_progress=Steps(1)
        )
        report = report_of(estimates)
        drawn = batch_of(drawn_over(picture, estimates, body)[None])
        return io.NodeOutput([one.motion for one in estimates], drawn, report, ui=shown_text(report))


def checked_pose_data(data: Any) -> Mapping[str, Any] | None:
    if data is not None and not isinstance(data, Mapping):
        raise ComoviError(f"pose_data must be the pose data of SAM 3D Body, got {type(data).__name__}.")
    return data


def report_of(estimates: list[Estimate]) -> str:
    """One person a line or two; several are numbered."""
    if len(estimates) == 1:
        return "\n".join(estimates[0].report())
    return "\n\n".join(f"person {number}\n" + "\n".join(one.report()) for number, one in enumerate(estimates))


def drawn_over(picture: torch.Tensor, estimates: list[Estimate], body: BodyModel) -> torch.Tensor:
    """(H, W, 3) uint8 with every body over it."""
    for estimate in estimates:
        (picture,) = iter_overlay(iter([picture]), 1, estimate.motion, body)
        picture = torch.from_numpy(to_uint8(picture))
    return picture


assert set(WAYS) == set(filter(None, WAY_OF.values()))
NODES = [EstimatePose]

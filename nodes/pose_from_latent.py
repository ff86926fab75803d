"""The motion that the network's pose head reads off a finished latent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from comfy_api.latest import io

from ..comovi_model.body.cameras import Camera
from ..comovi_model.body.motion import BodyMotion as Motion
from ..comovi_model.body.rotations import matrix_from_6d_rows
from ..comovi_model.errors import ComoviError
from .latents import Latent, check_samples
from .native.checks import comovi_network
from .native.latent_format import CHANNELS
from .native.network import POSE_REQUEST, PoseRequest
from .schema import ADVANCED, BodyMotion, make_schema

CLIP_RATE = 16.0  # frames a second of the clips that the models make, whatever file the first pose came from
SEED = 0  # of the little noise that the finished latent is read under: the answer is always the same


class PoseFromLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_PoseFromLatent",
            "CoMoVi Pose from Latent",
            "motion",
            description=(
                "Asks the model's SMPL head, in one pass over the finished latent, how every joint turned. The body "
                "stays where it started: 'Place Motion in Map' adds its path. Models without a head: 'Motion from Map'."
            ),
            search_aliases=["smpl head", "comovi smpl", "3d motion", "body pose", "motion from latent"],
            inputs=[
                io.Model.Input("model", tooltip="The CoMoVi model that sampled the latent, with both branches."),
                io.Conditioning.Input("positive", tooltip="The sentence that the latent was sampled with."),
                io.Latent.Input("latent", tooltip="The finished latent of 96 channels."),
                BodyMotion.Input(
                    "start_pose", tooltip="The pose in the first frame, the one the motion map was drawn of."
                ),
                io.Float.Input(
                    "sigma",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much noise the head reads the latent under; 0 chooses what the model was trained for.",
                    **ADVANCED,
                ),
                io.Int.Input("batch_index", default=0, min=0, max=63, tooltip="Which clip of a batch.", **ADVANCED),
            ],
            outputs=[
                BodyMotion.Output(
                    "motion", display_name="motion", tooltip="All frames, in the camera's frame, 16 a second."
                )
            ],
        )

    @classmethod
    def execute(
        cls, model: Any, positive: Any, latent: Latent, start_pose: Motion, sigma: float, batch_index: int
    ) -> io.NodeOutput:
        samples = check_samples(latent, CHANNELS, "latent", "that a CoMoVi model sampled")
        network = comovi_network(model)
        if network.branches != "both":
            raise ComoviError(
                f"model: it was loaded with branches '{network.branches}', and the SMPL head reads both; load both, or "
                "use 'Motion from Map' on the decoded map."
            )
        if network.pose_head is None:
            raise ComoviError(
                "model: it has no SMPL head (released files have none); use 'Motion from Map' on the decoded map."
            )
        if batch_index >= len(samples):
            raise ComoviError(
                f"batch_index is {batch_index}, but the latent holds {len(samples)} clips (0 is the first)."
            )
        chosen = samples[batch_index : batch_index + 1]
        _check_start(start_pose)
        poses = read_poses(model, positive, chosen, start_pose, sigma or network.pose_sigma)
        rotations = torch.cat([start_pose.rotations[:1].cpu(), matrix_from_6d_rows(poses.cpu().unflatten(-1, (24, 6)))])
        motion = Motion(
            rotations=rotations,
            betas=start_pose.betas,
            transl=start_pose.transl[:1].expand(len(rotations), -1).clone(),
            frame=start_pose.frame,
            camera=start_pose.camera and still(start_pose.camera),
            fps=CLIP_RATE,
            body_model=start_pose.body_model,
            provenance={**start_pose.provenance, "made_by": "pose head", "sigma": sigma or network.pose_sigma},
        )
        return io.NodeOutput(motion)


def _check_start(pose: Motion) -> None:
    """The head turns on from the first pose, which must be one that is seen by the clip's camera."""
    if pose.frame != "camera" or pose.camera is None:
        raise ComoviError(
            f'start_pose: a pose seen by a camera is needed, and this one is in frame "{pose.frame}" '
            f"{'with' if pose.camera else 'without'} a camera; wire the pose that the first motion map was drawn of "
            "('Start Pose', 'Draw Nano Start', 'Put Motion before Camera' or 'Estimate Pose')."
        )
    if pose.valid is not None and not bool(pose.valid[0]):
        raise ComoviError("start_pose: its frame 0 is marked as not valid (a placeholder); choose another frame.")


def still(camera: Camera) -> Camera:
    """The camera of the first frame, for all frames."""
    return camera if camera.K.dim() == 2 else replace(camera, K=camera.K[0])


def read_poses(model: Any, positive: Any, samples: torch.Tensor, start: Motion, sigma: float) -> torch.Tensor:
    """(P, 144) poses after the first frame: one evaluation at `sigma` of a latent (1, 96, F, h, w)."""
    request = PoseRequest(start.rotations_6d()[:1].flatten(1))
    asked = model.clone()
    asked.model_options["transformer_options"] = {
        **asked.model_options.get("transformer_options", {}),
        POSE_REQUEST: request,
    }
    guider = comfy.samplers.CFGGuider(asked)
    guider.set_conds(positive, positive)
    guider.set_cfg(1.0)
    mask = torch.ones_like(samples)
    mask[:, :, 0] = 0.0
    noise = comfy.sample.prepare_noise(samples, SEED)
    guider.sample(
        noise,
        samples,
        comfy.samplers.sampler_object("euler"),
        torch.tensor([sigma, 0.0]),
        denoise_mask=mask,
        disable_pbar=True,
        seed=SEED,
    )
    if request.poses is None:
        raise ComoviError("the model did not answer with poses; another node may replace its layers. Disconnect it.")
    return request.poses[0]


NODES: list[Any] = [PoseFromLatent]

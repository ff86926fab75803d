"""What the tests of estimation share: example pictures with known bodies, their true keypoints, a small CameraHMR."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body
from comfyui_comovi.comovi_model.body.cameras import project
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.smpl import BodyModel, rest_joints
from comfyui_comovi.comovi_model.camerahmr.decoder import DecoderConfig
from comfyui_comovi.comovi_model.camerahmr.estimator import BodyNet, CameraHMR
from comfyui_comovi.comovi_model.camerahmr.vit import VitConfig
from comfyui_comovi.comovi_model.estimate.lifter_body import keypoint_body
from comfyui_comovi.comovi_model.estimate.people import Person
from comfyui_comovi.comovi_model.estimate.people_from import box_of_keypoints
from comfyui_comovi.comovi_model.nano.example_picture import example_clip, example_picture


@lru_cache(maxsize=1)
def body() -> BodyModel:
    return load_mannequin_body()


@lru_cache(maxsize=4)
def example(name: str, seed: int = 1) -> tuple[np.ndarray, BodyMotion]:
    return example_picture(name, seed)


@lru_cache(maxsize=1)
def walk() -> tuple[np.ndarray, BodyMotion]:
    """Every eighth frame of a walk."""
    frames, motion = example_clip("walking", 1, slice(0, 33, 8))
    return frames, motion


def true_people(motion: BodyMotion) -> list[Person]:
    """The person of each frame, with keypoints as a perfect detector would see them."""
    skeleton = keypoint_body(body())
    pelvis = rest_joints(body(), motion.betas)[0] + motion.transl
    points = skeleton.posed(motion.rotations).points_at(motion.betas[None].expand(len(motion), -1)) + pelvis[:, None]
    pixels = project(points, motion.camera.K).numpy()
    seen = np.ones((len(pixels), 18, 1))
    return [Person(box_of_keypoints(one), keypoints=one) for one in np.concatenate([pixels, seen], -1)]


def pose_keypoint(people: list[list[Person]], size: tuple[int, int]) -> list[dict]:
    """POSE_KEYPOINT as detectors write it."""
    return [
        {
            "canvas_height": size[0],
            "canvas_width": size[1],
            "people": [{"pose_keypoints_2d": one.keypoints.ravel().tolist()} for one in frame],
        }
        for frame in people
    ]


def small_camerahmr() -> CameraHMR:
    """Random weights at a small size: bodies without sense, but in the right place."""
    torch.manual_seed(3)
    network = BodyNet(VitConfig(32, 1, 2), DecoderConfig(24, 1, 2, 8, 24, 32))
    network.smpl_head.init_body_pose.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(24)[None])
    network.smpl_head.init_cam.copy_(torch.tensor([[0.9, 0.0, 0.0]]))
    return CameraHMR(network.eval().requires_grad_(False))

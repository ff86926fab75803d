"""Runs inside ComfyUI's own Python: the two pose data nodes, whose partners the tested cores do not have.

Called as `python pose_data_checks.py COMFYUI PACKAGE`; prints one JSON object of figures.
"""

from __future__ import annotations

import json

import in_comfy

# isort: split
import numpy as np
import torch
from comovi_pack.comovi_model.body.body_files import load_nano_body
from comovi_pack.comovi_model.body.smpl import pose_joints
from comovi_pack.comovi_model.motion_io.mhr import MHR_JOINTS

NODES = in_comfy.pack_nodes()
body = load_nano_body()
VIEW = {"width": 640, "height": 480, "field_of_view": 40.0, "distance": 4.0, "turn": 20.0, "across": 0.4, "down": 0.5}


def run(node: str, **inputs):
    return NODES[node].execute(**inputs).args


(driving,) = run("CoMoVi_LoadMotion", file="wave (example)", fps=0.0, up_axis="as in the file")[:1]
(motion,) = run("CoMoVi_SetCamera", motion=driving, body=body, **VIEW)
before = {name: getattr(motion, name).clone() for name in ("rotations", "transl", "betas")}

(data,) = run("CoMoVi_MotionToPoseData", motion=motion, body=body)
vertices = np.stack([people[0]["pred_vertices"] + people[0]["pred_cam_t"] for people in data["frames"]])

joints = pose_joints(body, motion.rotations, motion.betas, motion.transl).numpy()
frames = []
for number, place in enumerate(joints):  # what SAM 3D Body would see: its 127 joints, of which 24 are ours
    rig = np.zeros((127, 3), np.float32)
    rig[list(MHR_JOINTS)] = place - place[0]
    person = {"pred_joint_coords": rig, "pred_cam_t": place[0].astype(np.float32), "focal_length": np.float32(659.4)}
    frames.append([] if number == 5 else [person])
estimated = {"frames": frames, "image_size": (480, 640)}
found, info = run("CoMoVi_PoseDataToMotion", pose_data=estimated, body=body, person=0, fps=16.0)
again = pose_joints(body, found.rotations, found.betas, found.transl).numpy()
error = np.linalg.norm(again - joints, axis=-1)

(start,) = run(
    "CoMoVi_StartPose", body=body, pose="from motion", **{**VIEW, "distance": 0.0}, motion=found, frame_index=0
)
try:
    run("CoMoVi_PoseDataToMotion", pose_data="no data", body=body, person=0, fps=16.0)
    refused = ""
except ValueError as problem:
    refused = str(problem)

print(
    json.dumps(
        {
            "frames": len(data["frames"]),
            "image_size": list(data["image_size"]),
            "nearest": float(vertices[..., 2].min()),
            "unchanged": all(torch.equal(getattr(motion, name), value) for name, value in before.items()),
            "joint_error": float(np.delete(error, 5, 0).mean()),
            "valid": found.valid.tolist(),
            "camera": [found.camera.width, found.camera.height, float(found.camera.K[0, 0])],
            "start": [len(start), start.frame],
            "info": info,
            "refused": refused,
        }
    )
)

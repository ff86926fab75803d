"""Runs inside ComfyUI's own Python: nodes of estimation that need what no test file holds.

Called as `python estimator_checks.py COMFYUI PACKAGE`; prints one JSON object of figures.
"""

from __future__ import annotations

import json

import in_comfy

# isort: split
import comfy.model_management
import comfy.utils
import numpy as np
import torch
from comovi_pack.comovi_model.body.body_files import load_nano_body
from comovi_pack.comovi_model.camerahmr.decoder import DecoderConfig
from comovi_pack.comovi_model.camerahmr.estimator import BodyNet, CameraHMR
from comovi_pack.comovi_model.camerahmr.vit import VitConfig
from comovi_pack.comovi_model.motion_io.mhr_surface import MHR_FACES, MHR_VERTICES, table
from comovi_pack.nodes.estimators import LoadedEstimator

NODES = in_comfy.pack_nodes()
body = load_nano_body()
seen: list[list[int]] = []
comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, *rest, **more: seen.append([value, total]))


def run(node: str, **inputs):
    return NODES[node].execute(**inputs).args


torch.manual_seed(3)
network = BodyNet(VitConfig(32, 1, 2), DecoderConfig(24, 1, 2, 8, 24, 32))
network.smpl_head.init_body_pose.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(24)[None])
network.smpl_head.init_cam.copy_(torch.tensor([[0.9, 0.0, 0.0]]))
estimator = LoadedEstimator(CameraHMR(network.eval().requires_grad_(False)))

images = torch.rand(3, 96, 64, 3)
box = {"x": 8, "y": 4, "width": 40, "height": 88, "label": "person"}
pose = {"image": images[:1], "body": body, "who": "all", "index": 0, "estimator": estimator, "focal_px": 90.0}
motions, overlay, report = run("CoMoVi_EstimatePose", **pose, people=[box, {**box, "x": 20}])
clip = {"images": images, "body": body, "fps": 16.0, "smoothing": "savgol", "strength": 0.5, "longest_gap": 0.5}
seen.clear()
motion, _ = run(
    "CoMoVi_EstimateMotion", **clip, who="largest", index=0, people=[[box]] * 3, estimator=estimator, focal_px=90.0
)
steps = seen[-1]
loaded = [model.model is estimator.patcher for model in comfy.model_management.current_loaded_models]

random = np.random.default_rng(0)
surface = np.zeros((MHR_VERTICES, 3), np.float32)  # a blob of a person's size, for its outline only
surface[:] = random.uniform(-1, 1, (MHR_VERTICES, 3)) * (0.25, 0.8, 0.1)
person = {"pred_vertices": surface, "pred_cam_t": np.array([0.0, 0, 3]), "focal_length": np.float32(120)}
faces = random.integers(0, MHR_VERTICES, (MHR_FACES, 3))
data = {"frames": [[person], []], "image_size": (96, 64), "faces": faces}
drawn, _ = run("CoMoVi_PoseDataToMap", pose_data=data, person=0, shading="phong_reference")
assert len(table().part_of_vertex) == MHR_VERTICES

print(
    json.dumps(
        {
            "way": report.split("\n")[1],
            "report": report,
            "people": len(motions),
            "frames": len(motion),
            "overlay": list(overlay.shape),
            "loaded": any(loaded),
            "steps": steps,
            "map": list(drawn.shape),
            "covered": float((drawn[0] < 0.99).any(-1).float().mean()),
            "empty": float(drawn[1].min()),
        }
    )
)

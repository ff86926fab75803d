"""Builds comovi_model/assets/mhr_surface.safetensors: SMPL's vertices on the MHR mesh, and its body parts.

python tools/build_mhr_surface.py MHR_CHECKOUT

With the package importable as comfyui_comovi. MHR_CHECKOUT is a checkout of facebookresearch/MHR (Apache-2.0). Taken
from its converter: the point of the MHR mesh (triangle and weights) where each vertex of an SMPL-topology mesh lies.
Ours: the vertex of our mannequin that is nearest to each of these, in the same pose, and the part of the mannequin that
is nearest to each vertex of MHR.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body
from comfyui_comovi.comovi_model.body.smpl import pose_body
from comfyui_comovi.comovi_model.motion_io.joint_fit import motion_from_joints
from comfyui_comovi.comovi_model.motion_io.mhr import MHR_JOINTS
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
TOOL = Path("tools/mhr_smpl_conversion")
LIMBS = (0, 1, 2, 4, 5, 7, 8, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23)  # spine and collars divide the trunk otherwise
NEAR = 120  # vertices around a joint that carry it into the rest pose


def read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) in centimetres, y up, and triangles (N, 3)."""
    data = path.read_bytes()
    at = data.index(b"end_header\n") + len(b"end_header\n")
    counts = [int(line.split()[2]) for line in data[:at].decode("ascii", "replace").split("\n") if "element" in line]
    points = np.frombuffer(data, np.dtype([("place", "<f4", 3), ("colour", "u1", 4)]), counts[0], at)
    at += points.nbytes
    faces = np.frombuffer(data, np.dtype([("count", "u1"), ("corners", "<i4", 3)]), counts[1], at)
    return points["place"].astype(np.float64), faces["corners"].astype(np.int64)


def joints_at_rest(rest: np.ndarray, folder: Path) -> np.ndarray:
    """(24, 3): the vertices around each joint of the sample poses, laid on the same vertices of the rest pose."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        sample = np.load(path, allow_pickle=False)
        vertices, joints = 100.0 * sample["pred_vertices"], 100.0 * sample["pred_joint_coords"][list(MHR_JOINTS)]
        for joint in joints:
            near = np.linalg.norm(vertices - joint, axis=1).argsort()[:NEAR]
            here, there = vertices[near], rest[near]
            left, _, right = np.linalg.svd((there - there.mean(0)).T @ (here - here.mean(0)))
            left[:, 2] *= np.sign(np.linalg.det(left @ right))
            found.append(left @ right @ (joint - here.mean(0)) + there.mean(0))
    return np.median(np.array(found).reshape(-1, len(MHR_JOINTS), 3), axis=0)


def nearest_of_mannequin(points: np.ndarray, rest_joints: np.ndarray) -> torch.Tensor:
    """Points (P, 3) on the rest pose -> the nearest vertex (P,) of our mannequin, posed by the same joints."""
    body = load_mannequin_body()
    posed, _ = motion_from_joints(0.01 * rest_joints[None], body, frame="yup", fps=1.0, present=LIMBS)
    surface = pose_body(body, posed.rotations, posed.betas, posed.transl).vertices[0].double()
    return torch.cat([torch.cdist(some, surface).argmin(1) for some in torch.from_numpy(0.01 * points).split(1024)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    folder = parser.parse_args().checkout / TOOL
    rest, faces = read_ply(folder / "assets" / "mhr_face_mask.ply")
    mapping = np.load(folder / "assets" / "mhr2smpl_mapping.npz", allow_pickle=False)
    corners, weights = faces[mapping["triangle_ids"]], mapping["baryc_coords"]  # (6890, 3) both
    joints = joints_at_rest(rest, folder / "data/sam3d_body_outputs")
    part = load_mannequin_body().part_of_vertex[nearest_of_mannequin(rest, joints)]
    smpl = (weights[:, :, None] * rest[corners]).sum(1)  # (6890, 3) SMPL's vertices on MHR's rest pose
    tensors = {
        "corners": torch.from_numpy(corners.astype(np.int16)),
        "weights": torch.from_numpy(weights[:, :2].astype(np.float16)),  # the third makes the sum 1
        "part_of_vertex": part.to(torch.uint8),
        "mannequin_vertex": nearest_of_mannequin(smpl, joints).to(torch.int16),
    }
    target = ROOT / "comovi_model" / "assets" / "mhr_surface.safetensors"
    save_file(tensors, target, {"source": "facebookresearch/MHR, Apache-2.0; parts by tools/build_mhr_surface.py"})
    print(target, target.stat().st_size)


if __name__ == "__main__":
    main()

"""The motion formats we know: one table, from which the command line and the nodes make their lists."""

from __future__ import annotations

from dataclasses import dataclass

from ..body.motion import BodyMotion


@dataclass(frozen=True)
class MotionFormat:
    """One row. Names are published (workflows hold them), so they never change."""

    name: str
    suffix: str  # of the files we write, or that the format usually has
    description: str
    reads: bool
    writes: bool


@dataclass(frozen=True)
class ImportedMotion:
    """What read_motion found."""

    motion: BodyMotion
    format: str  # a name of FORMATS
    notes: tuple[str, ...]  # sentences: units, axes, what was assumed and what was left out


_TABLE = (
    MotionFormat("comovi", ".npz", "our own arrays, lossless, with the keys of AMASS beside them", True, True),
    MotionFormat("amass", ".npz", "AMASS of SMPL+H: poses (F, 156), z up; Blender's SMPL add-on reads it", True, True),
    MotionFormat("smplx", ".npz", "AMASS of SMPL-X: poses (F, 165), root_orient, pose_body, z up", True, True),
    MotionFormat("bvh", ".bvh", "skeleton and angles as text, for Blender, MotionBuilder and game engines", True, True),
    MotionFormat("glb", ".glb", "glTF: the skinned body with its animation, for viewers and engines", True, True),
    MotionFormat("usda", ".usda", "USD as text: UsdSkel body and animation", True, True),
    MotionFormat("obj", ".zip", "a zip of OBJ meshes, one per frame", True, True),
    MotionFormat("pc2", ".pc2", "point cache of the vertices, with the rest mesh as .obj beside it", True, True),
    MotionFormat("json", ".json", "names, quaternions and joint positions as JSON, for pages and scripts", True, True),
    MotionFormat("humanml3d", ".npy", "HumanML3D features (F, 263) at 20 frames per second", True, True),
    MotionFormat("joints", ".npy", "joint positions (F, 22 or 24, 3); rotations are found per bone", True, True),
    MotionFormat("smpl", ".npz", "global_orient, body_pose and transl in npz, npy, pkl or pt", True, False),
    MotionFormat("gvhmr", ".pt", "results of GVHMR: smpl_params_global and smpl_params_incam", True, False),
    MotionFormat("wham", ".pkl", "results of WHAM: pose, trans, pose_world, trans_world per person", True, False),
    MotionFormat("tram", ".npy", "results of TRAM: pred_rotmat, pred_shape, pred_trans of one track", True, False),
    MotionFormat("camerahmr", ".npy", "results of CameraHMR as CoMoVi prepares them: a file or folder", True, False),
    MotionFormat("4dhumans", ".pkl", "tracks of 4DHumans (PHALP): smpl and camera per frame and person", True, False),
    MotionFormat("comovi_smpl", ".npz", "the list `smpl` of CoMoVi's training data, as npz or JSON", True, False),
    MotionFormat("mhr", ".npz", "MHR_POSE_DATA of ComfyUI's SAM 3D Body, as npz, pt or JSON", True, False),
)
FORMATS: dict[str, MotionFormat] = {row.name: row for row in _TABLE}
NAMINGS = ("smpl", "mixamo", "unreal", "vrm")  # joint names for bvh, glb and usda
ROOTS = ("centred", "absolute", "off")  # where an exported body goes: see place.py

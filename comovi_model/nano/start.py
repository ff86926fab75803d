"""What a nano clip starts from: a first frame, the body in it, and that body's motion map.

Letters: H x W = 192 x 128 pixels. The nano model has seen one kind of start: a standing person, about 147 pixels tall,
before a level camera 8.5 to 10 m away. What is not given is drawn in that manner, from the seed; the stance is neutral,
so the first frame does not give the action away. World frame: y up, floor at y = 0, the camera looks along -z.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..body import cameras
from ..body.body_files import load_nano_body as load_nano_body_model
from ..body.files.amass import load_motion
from ..body.map_colours import silhouette, to_uint8
from ..body.map_render import draw_map
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel, pose_body, rest_joints
from ..body.upright import CAMERA_UP, levelling, with_camera_up
from ..errors import ComoviError
from ..images import read_image
from .actions import ACTION_NAMES, ActionRequest
from .draw import draw_clip
from .people import load_nano_body
from .scene import FPS, HEIGHT, LOOK_AT_HEIGHT, PIXELS_PER_METRE, WIDTH, Camera, Scene, look_at, sample_scene, skin
from .sentences import mentioned_colours
from .skeleton import rotation

BODY_NAME = "mannequin-v1"  # the nano body is the mannequin with fewer faces: same joints, same rotations
START_SEEDS = 2**40  # far from the seeds of training and validation, so that no start has been seen
NEUTRAL = ActionRequest(ACTION_NAMES.index("bow"), "", "")  # its first frame stands still, like that of every action
STANDARD_DISTANCE, STANDARD_HEIGHT = 9.25, 1.4  # metres, the middle of what the nano model has seen
SAMPLES = 2  # per pixel and direction, averaged, as in the clips of training
LARGEST_BETA = 3.0
LEAST_BODY = 200  # pixels of silhouette (a standing person has about 4000); less is not in the picture


@dataclass(frozen=True)
class Start:
    """Everything the sampler needs to begin, and what was decided on the way."""

    frame: np.ndarray  # (H, W, 3) uint8
    motion_map: np.ndarray  # (H, W, 3) uint8
    pose: BodyMotion  # one frame, camera frame, with the camera of `frame` and where up is in it
    view: Camera  # where that camera stands in the world; assumed where it is not known
    notices: tuple[str, ...] = ()

    def upright(self, motion: BodyMotion) -> BodyMotion:
        """A motion of the same camera (`frame` "camera") in world axes: y up, z towards the camera."""
        turn = torch.from_numpy(self.view.rotation.T).float()
        shift = torch.from_numpy(self.view.position).float()
        return replace(motion.moved(turn, shift, rest_joints(_body_model(), motion.betas)[0]), frame="yup", camera=None)


def make_start(prompt: str, seed: int, first_frame: Path | None = None, first_pose: Path | None = None) -> Start:
    """The start of a clip; `first_frame` is a picture file, `first_pose` a motion file whose frame 0 is used."""
    pose = None if first_pose is None else read_first_pose(first_pose)
    if first_frame is None:
        return draw_start(prompt, seed, pose)
    picture = read_image(first_frame, "first frame")
    return picture_start(picture, pose, str(first_frame))


def read_first_pose(path: Path) -> BodyMotion:
    """Frame 0 of a motion file, ours or AMASS."""
    pose = load_motion(path).slice(0, 1)
    if pose.valid is not None and not bool(pose.valid[0]):
        raise ComoviError(f"{path}: frame 0 is marked as not valid (a placeholder); cut the motion to start later.")
    return pose


def draw_start(prompt: str, seed: int, pose: BodyMotion | None = None) -> Start:
    """A drawn person: clothes as the sentence names them, the rest from the seed; neutral stance or `pose`."""
    body = load_nano_body()
    shirt, trousers = mentioned_colours(prompt)
    scene = sample_scene(START_SEEDS + seed, body, NEUTRAL, shirt, trousers)
    notices: list[str] = []
    if pose is not None:
        pose, notices = _known_figure(pose)
        scene = _on_stage(scene, pose)
    frame = draw_clip(scene, body, slice(0, 1), fast=False).video[0]
    motion = scene_pose(scene)
    return Start(frame, _visible_map(motion), motion, scene.camera, tuple(notices))


def picture_start(picture: np.ndarray, pose: BodyMotion | None, name: str = "the first frame") -> Start:
    """A given picture (h, w, 3) uint8 and the body in it; without `pose` a neutral stance is assumed."""
    height, width = picture.shape[:2]
    frame, window = fit_picture(picture, name)
    notices = [] if (width, height) == (WIDTH, HEIGHT) else [_fit_notice(name, width, height, window)]
    if pose is None:
        motion = scene_pose(_on_stage(_standard_scene(), neutral_pose()))
        notices.append("no first pose was given: a person standing in the middle, facing the camera, is assumed; "
                       "`comovi estimate` or Estimate Pose reads one from the picture.")  # fmt: skip
    else:
        motion, about_figure = _known_figure(pose)
        notices += about_figure
        if motion.frame == "camera" and motion.camera is not None:
            motion = _seen_through(motion, width, height, window)
            view = replace(standard_camera(), rotation=levelling(motion).T.double().numpy())
            motion = _with_up_of(motion, view)
            return Start(frame, _visible_map(motion), motion, view, tuple(notices))
        motion = scene_pose(_on_stage(_standard_scene(), motion))
        notices.append("the pose has no camera, so its body was put on the floor in the middle of the picture.")
    return Start(frame, _visible_map(motion), motion, standard_camera(), tuple(notices))


def standard_camera() -> Camera:
    """The camera assumed for pictures that come without one."""
    position = np.array([0.0, STANDARD_HEIGHT, STANDARD_DISTANCE])
    return look_at(position, np.array([0.0, LOOK_AT_HEIGHT, 0.0]), PIXELS_PER_METRE * STANDARD_DISTANCE)


def neutral_pose() -> BodyMotion:
    """The stance that every action starts from, of a person of mean figure who faces the camera; frame "yup"."""
    stance = torch.from_numpy(sample_scene(START_SEEDS, load_nano_body(), NEUTRAL).rotations[:1]).float()
    stance[:, 0] = torch.eye(3)
    return BodyMotion(stance, torch.zeros(10), torch.zeros(1, 3), "yup", fps=FPS, body_model=BODY_NAME)


def nano_neutral(turn: float = 0.0) -> BodyMotion:
    """The neutral stance in the middle of the picture, before the standard camera, turned by so many degrees."""
    pose = neutral_pose()
    spun = replace(pose, rotations=pose.rotations.clone())
    spun.rotations[:, 0] = torch.from_numpy(rotation("y", np.radians(turn))).float() @ spun.rotations[:, 0]
    return scene_pose(_on_stage(_standard_scene(), spun))


def scene_pose(scene: Scene) -> BodyMotion:
    """Frame 0 of a scene as the record that leaves this file."""
    rotations, transl = scene.camera_motion(load_nano_body())
    camera = cameras.Camera(torch.from_numpy(scene.camera.K).float(), WIDTH, HEIGHT)
    motion = BodyMotion(torch.from_numpy(rotations[:1]).float(), torch.from_numpy(scene.betas).float(),
                        torch.from_numpy(transl[:1]).float(), "camera", camera, FPS, BODY_NAME)  # fmt: skip
    return _with_up_of(motion, scene.camera)


def _with_up_of(motion: BodyMotion, view: Camera) -> BodyMotion:
    """The motion of a camera that stands in the world as `view` does."""
    return with_camera_up(motion, torch.from_numpy(view.rotation[:, 1].copy()))


def draw_nano_map(motion: BodyMotion) -> np.ndarray:
    """The motion map (F, H, W, 3) uint8 of a motion with a camera, drawn like the clips of training."""
    assert motion.frame == "camera"
    assert motion.camera is not None
    model, camera = _body_model(), motion.camera.resized(WIDTH * SAMPLES, HEIGHT * SAMPLES)
    vertices = pose_body(model, motion.rotations, motion.betas, motion.transl).vertices
    fine = draw_map(model, vertices, camera.K, camera.height, camera.width)
    return to_uint8(fine.unflatten(2, (WIDTH, SAMPLES)).unflatten(1, (HEIGHT, SAMPLES)).mean((2, 4))).numpy()


def fit_picture(picture: np.ndarray, name: str = "the picture") -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """The middle of a picture at the nano model's size, and the window (left, top, width, height) it was cut from."""
    height, width = picture.shape[:2]
    if min(width, height) < 16 or max(width, height) > 50 * min(width, height):
        raise ComoviError(f"{name} is {width}x{height} pixels; give a portrait of about {WIDTH}x{HEIGHT} or larger.")
    shown = min(width / WIDTH, height / HEIGHT)  # picture pixels per pixel of the result
    wide, high = shown * WIDTH, shown * HEIGHT
    left, top = (width - wide) / 2, (height - high) / 2
    if (width, height) == (WIDTH, HEIGHT):
        return picture, (0.0, 0.0, float(width), float(height))
    box = (left, top, left + wide, top + high)
    smaller = Image.fromarray(picture).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=box)
    return np.asarray(smaller), (left, top, wide, high)


def _fit_notice(name: str, width: int, height: int, window: tuple[float, float, float, float]) -> str:
    cut = "" if window[2:] == (width, height) else f"cut to its middle {window[2]:.0f}x{window[3]:.0f} and "
    return f"{name} is {width}x{height} pixels; it was {cut}resized to {WIDTH}x{HEIGHT}."


def _seen_through(pose: BodyMotion, width: int, height: int, window: tuple[float, float, float, float]) -> BodyMotion:
    """The pose with the camera of the fitted picture, if its own camera is that of the picture (w, h)."""
    camera = pose.camera
    assert camera is not None
    if abs(camera.width / camera.height - width / height) > 0.01 * width / height:
        raise ComoviError(
            f"the first pose was seen in a picture of {camera.width}x{camera.height} pixels, and the first frame has "
            f"the other shape {width}x{height}; give the picture that belongs to the pose."
        )
    seen = camera.resized(width, height).cropped(window[0], window[1], round(window[2]), round(window[3]))
    return replace(pose, camera=seen.resized(WIDTH, HEIGHT))


@lru_cache(maxsize=1)
def _body_model() -> BodyModel:
    return load_nano_body_model()


def _known_figure(pose: BodyMotion) -> tuple[BodyMotion, list[str]]:
    """The pose as one of our body: betas of another body mean nothing to it."""
    notices = []
    betas = pose.betas
    if pose.body_model != BODY_NAME and bool((betas != 0).any()):
        betas = torch.zeros_like(betas)
        notices.append(f"the betas of body {pose.body_model!r} mean nothing to {BODY_NAME}; its mean figure is used.")
    if bool((betas.abs() > LARGEST_BETA).any()):
        betas = betas.clamp(-LARGEST_BETA, LARGEST_BETA)
        notices.append(f"betas beyond {LARGEST_BETA:g} were limited: the nano model has seen -0.5 to 0.5.")
    camera = pose.camera
    if camera is not None and camera.K.dim() == 3:  # one for each frame, of which there is one
        camera = replace(camera, K=camera.K[0])
    known = {key: value for key, value in pose.provenance.items() if key == CAMERA_UP}
    figure = replace(pose, betas=betas, body_model=BODY_NAME, provenance=known, fps=FPS, source_index=None)
    return replace(figure, camera=camera), notices


def _on_stage(scene: Scene, pose: BodyMotion) -> Scene:
    """The scene with the body of `pose`: pelvis above the world's origin, lowest point on the floor."""
    turn = (levelling(pose) if pose.frame == "camera" else cameras.frame_rotation(pose.frame, "yup")).double().numpy()
    rotations = pose.rotations.double().numpy().copy()
    rotations[:, 0] = turn @ rotations[:, 0]
    body, betas = load_nano_body(), pose.betas.double().numpy()
    vertices, joints = skin(body, betas, rotations, np.zeros((1, 3)))
    transl = np.array([[-joints[0, 0, 0], -vertices[..., 1].min(), -joints[0, 0, 2]]])
    return replace(scene, betas=betas, rotations=rotations, transl=transl)


def _standard_scene() -> Scene:
    return replace(sample_scene(START_SEEDS, load_nano_body(), NEUTRAL), camera=standard_camera())


def _visible_map(motion: BodyMotion) -> np.ndarray:
    """The motion map of one pose; an error when the body is not in the picture."""
    picture = draw_nano_map(motion)[0]
    seen = int(silhouette(torch.from_numpy(picture).float() / 255).sum())
    if seen < LEAST_BODY:
        raise ComoviError(
            f"the body of the first pose covers {seen} pixels of the {WIDTH}x{HEIGHT} picture, at least {LEAST_BODY} "
            "are needed; check its position (transl, metres before the camera) and the camera's focal length."
        )
    return picture

"""The verb `comovi estimate`: a photo to the body of the person in it, a video to a motion."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

EXAMPLES = [
    "comovi estimate photo.jpg --out pose.npz --map map.png --overlay overlay.png",
    "comovi estimate photo.jpg --camerahmr camerahmr_checkpoint_cleaned.ckpt --fov-network cam_model_cleaned.ckpt",
    "comovi estimate group.jpg --person left:1 --focal-35mm 28 --overlay second_from_left.png",
    "comovi estimate photo.jpg --keypoints dwpose.json --overlay overlay.png",
    "comovi estimate dance.mp4 --out dance.npz --overlay dance_overlay.mp4",
]


def add_estimate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("input", type=Path, metavar="IMAGE|VIDEO", help="a picture, or a video of one person's motion")
    verb.add_argument("--out", type=Path, metavar="NPZ", help="motion file (default: the input's name with _pose.npz)")
    verb.add_argument("--map", type=Path, metavar="FILE", help="also the motion map: .png, of a video .mp4")
    verb.add_argument("--overlay", type=Path, metavar="FILE", help="also the body over the picture: .png or .mp4")
    verb.add_argument("--body", type=Path, metavar="FILE", help="SMPL body model (default: the built-in mannequin)")
    how = verb.add_argument_group("by which way (default: our keypoint finder and lifter, approximate)")
    how.add_argument("--camerahmr", type=Path, metavar="FILE", help="camerahmr_checkpoint_cleaned.ckpt, .safetensors")
    how.add_argument("--fov-network", type=Path, metavar="FILE", help="cam_model_cleaned.ckpt, for the focal length")
    how.add_argument("--fov-channels", choices=("bgr", "rgb"), default="bgr", help="bgr: as CoMoVi's data were made")
    how.add_argument("--device", default="cpu", help="of CameraHMR: cpu, cuda or cuda:1; half precision on cuda")
    how.add_argument("--motion", type=Path, metavar="FILE", help="a pose made elsewhere, as pose data of SAM 3D Body")
    who = verb.add_argument_group("who")
    who.add_argument("--person", type=_person, default=("largest", 0), metavar="WHO",
                     help="largest (default), a number from 0 on, left:N from the left, or all")  # fmt: skip
    who.add_argument("--box", type=_box, action="append", default=[], metavar="X0,Y0,X1,Y1", help="in pixels")
    who.add_argument("--mask", type=Path, metavar="PNG", help="picture with the person in white")
    who.add_argument("--keypoints", type=Path, metavar="JSON", help="POSE_KEYPOINT as DWPose nodes save it")
    lens = verb.add_argument_group("lens (default: from the file's EXIF, the field-of-view network, or a guess)")
    lens.add_argument("--focal", type=_focal, metavar="PX", help="in pixels; 'keypoints': read from them, roughly")
    lens.add_argument("--field-of-view", type=_positive, metavar="DEGREES", help="what the picture's height spans")
    lens.add_argument("--focal-35mm", type=_positive, metavar="MM", help="focal length of a 35 mm camera")
    verb.add_argument("--frames", type=int, metavar="N", help="only the first N frames of a video")
    verb.set_defaults(run=_estimate)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return value


def _focal(text: str) -> float | str:
    return text if text == "keypoints" else _positive(text)


def _person(text: str) -> tuple[str, int]:
    """ "largest", "all", "2" -> ("index", 2), "left:1" -> ("left to right", 1)."""
    if text in ("largest", "all"):
        return text, 0
    number = text.removeprefix("left:")
    if number.isascii() and number.isdigit() and len(number) < 4:
        return ("left to right" if number != text else "index"), int(number)
    raise argparse.ArgumentTypeError(f"expected largest, all, a number as 0, or left:0, got {text!r}")


def _box(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        raise argparse.ArgumentTypeError(f"expected left,top,right,bottom in pixels, as 10,20,110,320, got {text!r}")
    return numbers


def _estimate(arguments: argparse.Namespace) -> int:
    from .comovi_model.errors import ComoviError
    from .comovi_model.estimate.command import Wishes, estimate_file

    if arguments.frames is not None and arguments.frames < 1:
        raise ComoviError(f"--frames must be at least 1, got {arguments.frames}.")
    if arguments.fov_network is not None and arguments.camerahmr is None:
        raise ComoviError("--fov-network belongs to --camerahmr, which was not given.")
    if arguments.device != "cpu" and arguments.camerahmr is None:
        raise ComoviError("--device belongs to --camerahmr, which was not given; all else runs on the CPU.")
    if arguments.motion is not None and arguments.camerahmr is not None:
        raise ComoviError("--motion and --camerahmr both give the pose; leave one of them out.")
    wishes = Wishes(
        out=arguments.out,
        map=arguments.map,
        overlay=arguments.overlay,
        body=arguments.body,
        camerahmr=arguments.camerahmr,
        field_of_view_network=arguments.fov_network,
        fov_channels=arguments.fov_channels,
        device=arguments.device,
        motion=arguments.motion,
        keypoints=arguments.keypoints,
        boxes=tuple(arguments.box),
        mask=arguments.mask,
        person=arguments.person,
        focal=None if arguments.focal == "keypoints" else arguments.focal,
        lens_from_keypoints=arguments.focal == "keypoints",
        field_of_view=arguments.field_of_view,
        lens=arguments.focal_35mm,
        frames=arguments.frames,
    )
    estimate_file(arguments.input, wishes)
    return 0

"""What `comovi estimate` does: a picture or a video in, motion files, motion map and overlay out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..body.body_files import load_mannequin_body, read_body_model
from ..body.map_render import iter_motion_map
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel
from ..camerahmr.estimator import load_camerahmr
from ..errors import ComoviError
from ..files import require_file, require_place
from ..images import read_image, to_uint8, write_image
from ..motion_io import for_body, read_motion
from ..show.overlay import iter_overlay
from ..video import read_video, video_facts, write_video
from .people import Person
from .people_from import in_every_frame, people_from_boxes, people_from_keypoints, people_from_masks
from .photo import Estimate, estimate_photo, with_camera_of
from .photo_camera import PhotoCamera, photo_camera, read_exif
from .sources import Sources
from .video import VideoSettings, estimate_video

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif")
LARGEST_JSON = 64 * 2**20  # bytes


@dataclass(frozen=True)
class Wishes:
    """The options of the command; None where nothing was said."""

    out: Path | None = None
    map: Path | None = None
    overlay: Path | None = None
    body: Path | None = None
    camerahmr: Path | None = None
    field_of_view_network: Path | None = None
    fov_channels: str = "bgr"
    device: str = "cpu"
    motion: Path | None = None
    keypoints: Path | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    mask: Path | None = None
    person: tuple[str, int] = ("largest", 0)
    focal: float | None = None
    lens_from_keypoints: bool = False
    field_of_view: float | None = None
    lens: float | None = None  # mm of a 35 mm camera
    frames: int | None = None  # of a video, at most


def estimate_file(path: Path, wishes: Wishes, say: Callable[[str], None] = print) -> list[Path]:
    """Estimates the people of a picture, or one person's motion of a video; returns the files that were written."""
    path = require_file(path, "picture or video")
    is_video = path.suffix.lower() in VIDEOS
    out = wishes.out or Path(f"{path.stem}_pose.npz")
    _check_targets(path, out, wishes, is_video)
    _device(wishes.device)
    body = load_mannequin_body() if wishes.body is None else read_body_model(wishes.body)
    if is_video:
        return _video(path, out, body, wishes, say)
    return _photo(path, out, body, wishes, say)


def _check_targets(path: Path, out: Path, wishes: Wishes, is_video: bool) -> None:
    if out.suffix.lower() != ".npz":
        raise ComoviError(f"{out} must end in .npz; turn it into another format with comovi convert.")
    for target in (wishes.map, wishes.overlay):
        wanted = (".mp4",) if is_video else (".png", ".jpg", ".jpeg")
        if target is not None and target.suffix.lower() not in wanted:
            kind = "video, so its map and overlay are .mp4" if is_video else "picture, so its map and overlay are .png"
            raise ComoviError(f"cannot write {target}: a {kind}.")
    taken = {path.resolve()}
    for target in (out, wishes.map, wishes.overlay):
        if target is not None:
            require_place(target)
            if target.resolve() in taken:
                raise ComoviError(f"{target} would be written over {path.name} or another result; give another name.")
            taken.add(target.resolve())


def _sources(wishes: Wishes, size: tuple[int, int], exif: dict[int, Any] | None = None) -> Sources:
    estimator = None
    if wishes.camerahmr is not None:
        device = _device(wishes.device)
        estimator = load_camerahmr(
            wishes.camerahmr,
            wishes.field_of_view_network,
            device=device,
            dtype=torch.float32 if device.type == "cpu" else torch.float16,
            fov_channels=wishes.fov_channels,
        )
    camera = None if wishes.lens_from_keypoints else _camera(wishes, size, exif)
    return Sources(estimator=estimator, camera=camera, lens_from_keypoints=wishes.lens_from_keypoints)


def _device(name: str) -> torch.device:
    """The device of CameraHMR, refused where this machine has none of that name: its files are gigabytes to read."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ComoviError(f"--device is {name!r}; CameraHMR runs on cpu, cuda, or one of several as cuda:1.")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise ComoviError("this PyTorch sees no CUDA device; leave --device out.")
        if (device.index or 0) >= count:
            raise ComoviError(
                f"--device is {name}, but this PyTorch sees {count} CUDA devices; they count from cuda:0."
            )
    return device


def _camera(wishes: Wishes, size: tuple[int, int], exif: dict[int, Any] | None) -> PhotoCamera | None:
    """What the user or the file says of the lens; None where nobody does."""
    found = photo_camera(
        size, focal_px=wishes.focal, field_of_view=wishes.field_of_view, focal_35mm=wishes.lens, exif=exif
    )
    return None if found.is_guess else found


def _photo(path: Path, out: Path, body: BodyModel, wishes: Wishes, say: Callable[[str], None]) -> list[Path]:
    picture = read_image(path, "picture")
    size = picture.shape[:2]
    exif = read_exif(path)
    if wishes.motion is not None:  # a pose that is there needs no networks
        estimates = [_imported(wishes.motion, body, size, wishes.person, _camera(wishes, size, exif))]
    else:
        sources = replace(_sources(wishes, size, exif), people=_people(wishes, size))
        choice, index = wishes.person
        estimates = estimate_photo(picture, body, sources, choice=choice, index=index)
    if wishes.map is not None and len(estimates) > 1:
        raise ComoviError("a motion map shows one person; choose who with --person.")
    written = []
    for number, estimate in enumerate(estimates):
        target = out if len(estimates) == 1 else out.with_stem(f"{out.stem}_{number}")
        estimate.motion.save(target)
        written.append(target)
        say(f"wrote {target}: " + "; ".join(line.rstrip(".") for line in estimate.report()))
    if wishes.map is not None:
        written.append(write_image(wishes.map, next(_maps(estimates[0].motion, body))))
        say(f"wrote {wishes.map}: motion map")
    if wishes.overlay is not None:
        seen = torch.from_numpy(picture.copy())
        for estimate in estimates:
            (over,) = iter_overlay(iter([seen]), 1, estimate.motion, body)
            seen = torch.from_numpy(to_uint8(over))
        written.append(write_image(wishes.overlay, seen.numpy()))
        say(f"wrote {wishes.overlay}: the body over the picture")
    return written


def _imported(
    path: Path, body: BodyModel, size: tuple[int, int], person: tuple[str, int], camera: PhotoCamera | None
) -> Estimate:
    """Frame 0 of a motion file, among them the pose data of SAM 3D Body; camera: for a file that has none."""
    found = read_motion(path, body=body, person=str(person[1]) if person[0] == "index" else None)
    motion, notes = for_body(found.motion.slice(0, 1), body)
    if motion.frame != "camera":
        raise ComoviError(f'{path} is in frame "{motion.frame}", so nothing says where the person is in the picture.')
    motion, said = with_camera_of(motion, size, camera)
    return Estimate(motion, "mhr" if found.format == "mhr" else "motion", None, (*found.notes, *notes, *said))


def _video(path: Path, out: Path, body: BodyModel, wishes: Wishes, say: Callable[[str], None]) -> list[Path]:
    from tqdm import tqdm

    if wishes.motion is not None:
        raise ComoviError("--motion gives the pose of a picture; a motion file of a video needs no estimate.")
    if wishes.boxes:
        raise ComoviError("--box says where a person is in one picture; for a video give --mask of its first frame.")
    _, height, width, _ = video_facts(path)
    frames, fps = read_video(path, wishes.frames)
    size = frames.shape[1:3]
    choice, index = wishes.person
    mask = None if wishes.mask is None else _mask(wishes.mask, size)
    settings = VideoSettings(choice="mask" if mask is not None else choice, index=index, mask=mask)
    people = None if wishes.keypoints is None else _people_of_frames(wishes.keypoints, size, len(frames))
    with tqdm(desc="frames", total=2 * len(frames), leave=False, delay=1) as bar:
        found = estimate_video(
            frames,
            body,
            _sources(wishes, size),
            settings,
            fps=fps,
            people=people,
            on_progress=lambda done, total: bar.update(done - bar.n),
        )
    found.motion.save(out)
    say(f"wrote {out}: {len(frames)} frames of {width}x{height}")
    for line in found.report():
        say(f"  {line}")
    written = [out]
    if wishes.map is not None:
        written.append(write_video(wishes.map, _maps(found.motion, body), fps))
        say(f"wrote {wishes.map}: motion map")
    if wishes.overlay is not None:
        drawn = iter_overlay((torch.from_numpy(frame) for frame in frames), len(frames), found.motion, body)
        written.append(write_video(wishes.overlay, (to_uint8(picture) for picture in drawn), fps))
        say(f"wrote {wishes.overlay}: the body over the video")
    return written


def _maps(motion: BodyMotion, body: BodyModel) -> Iterator[np.ndarray]:
    assert motion.camera is not None
    for group in iter_motion_map(body, motion, motion.camera.height, motion.camera.width):
        yield from to_uint8(group)


def _people(wishes: Wishes, size: tuple[int, int]) -> list[Person] | None:
    """Whom the user names in a picture; None: nobody in particular."""
    given = [wishes.keypoints is not None, bool(wishes.boxes), wishes.mask is not None]
    if sum(given) > 1:
        raise ComoviError("give one of --keypoints, --box and --mask: each says who is in the picture.")
    if wishes.keypoints is not None:
        return people_from_keypoints(_json(wishes.keypoints), size)
    if wishes.boxes:
        return people_from_boxes([list(box) for box in wishes.boxes], size)
    if wishes.mask is not None:
        return people_from_masks(_mask(wishes.mask, size), size)
    return None


def _people_of_frames(path: Path, size: tuple[int, int], count: int) -> list[list[Person]]:
    pose = _json(path)
    if not isinstance(pose, list) or len(pose) != count:
        got = len(pose) if isinstance(pose, list) else 1
        raise ComoviError(
            f"{path} holds keypoints of {got} frames and the video has {count}; detect in the same video."
        )
    return in_every_frame(lambda frame: people_from_keypoints(pose[frame], size), count)


def _json(path: Path) -> Any:
    path = require_file(path, "keypoint file")
    if path.stat().st_size > LARGEST_JSON:
        raise ComoviError(f"{path} is larger than {LARGEST_JSON // 2**20} MB; keypoints of a clip are not that many.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ComoviError(f"{path} is no JSON file of pose keypoints ({str(error)[:80]}).") from None


def _mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    mask = read_image(path, "mask").max(-1) > 127
    if mask.shape != size:
        raise ComoviError(
            f"the mask {path} is {mask.shape[1]}x{mask.shape[0]} pixels and the picture {size[1]}x{size[0]}; resize it."
        )
    return mask

"""People from what other nodes and tools say of them: boxes, masks, tracks of SAM3, keypoints.

`size` is the (height, width) of the picture. Every reader gives people in the order in which they came, without those
who cannot be used (an empty box, a place outside the picture); where nobody remains, and where the input is no such
thing at all, it refuses in one sentence. What is accepted, as ComfyUI and its common packs write it:

- boxes: {"x", "y", "width", "height"} (BOUNDING_BOX), four numbers left, top, right, bottom; lists of either, for
  every frame alike; or a list of such lists, one per frame.
- masks: (H, W), or (N, H, W) with one person each.
- SAM3_TRACK_DATA: {"packed_masks" (frames, people, h, w / 8) uint8 with eight pixels per byte, "orig_size"}.
- POSE_KEYPOINT: per frame {"people": [{"pose_keypoints_2d": x, y, confidence, ...}], "canvas_width", "canvas_height"}.
  Points of a confidence below 0.3 count as not seen: SDPose writes a place for every joint, hidden or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..camerahmr.crop import box_of_mask
from ..errors import ComoviError
from .keypoints import openpose_18
from .packed_mask import PackedMask
from .people import LEAST_SURE, NUM_KEYPOINTS, NobodyError, Person, whoever_is_usable, within_picture

MOST_PEOPLE = 64  # more in one picture are a mistake, or an attack
PERSON_LABELS = ("person", "people", "human", "man", "woman", "child", "0", "")
NORMALISED_BELOW = 2.0  # keypoints whose every coordinate is below this are shares of the canvas, not pixels
OF_THE_BEST = 0.5  # of the surest point, where no point of a person is as sure as that


def in_every_frame(read: Callable[[int], list[Person]], frames: int) -> list[list[Person]]:
    """read(frame) for each frame of a clip. Where it finds nobody who can be used, nobody is in that frame.

    People leave the view, and detectors then write empty boxes or a single point. Refused if every frame is such a one.
    """
    found: list[list[Person]] = []
    refusal: NobodyError | None = None
    for frame in range(frames):
        try:
            found.append(read(frame))
        except NobodyError as error:
            found.append([])
            refusal = refusal or error
    if refusal is not None and not any(found):
        raise refusal
    return found


def people_from_boxes(boxes: Any, size: tuple[int, int], frame: int = 0) -> list[Person]:
    """People from boxes. Boxes whose label names another thing than a person ("dog") are left out."""
    rows = _boxes_of_frame(_plain(boxes), frame)
    if len(rows) > MOST_PEOPLE:
        raise ComoviError(f"{len(rows)} boxes came for one picture; at most {MOST_PEOPLE} people can be read.")
    read = [_read_box(row) for row in rows]
    of_people = [(box, score) for box, score, label in read if label.strip().lower() in PERSON_LABELS]
    if rows and not of_people:
        other = ", ".join(label for _, _, label in read[:5])
        raise NobodyError(f"none of the {len(rows)} boxes is a person; they are labelled {other}.")
    return whoever_is_usable(of_people, lambda one: within_picture(Person(one[0], score=one[1]), size))


def people_from_masks(masks: Any, size: tuple[int, int]) -> list[Person]:
    """People from masks (H, W) or (N, H, W), bool, uint8 or 0..1; an empty mask among others is nobody."""
    array = _plain(masks)
    if not isinstance(array, np.ndarray):
        try:
            array = np.asarray(array)
        except ValueError:
            raise ComoviError("the masks differ in size; give masks of the picture's size.") from None
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[-1]):
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.dtype.kind not in "buif":
        raise ComoviError(f"masks must be numbers (people, height, width), got {array.dtype} {array.shape}.")
    if len(array) > MOST_PEOPLE:
        raise ComoviError(f"{len(array)} masks came for one picture; at most {MOST_PEOPLE} people can be read.")
    height, width = size
    if array.shape[1:] != (height, width):
        raise ComoviError(
            f"the mask is {array.shape[2]}x{array.shape[1]} pixels and the picture {width}x{height}; resize the mask."
        )
    level = 127 if array.dtype == np.uint8 and array.max(initial=0) > 1 else 0.5 if array.dtype.kind == "f" else 0
    people = []
    for mask in array > level:  # NaN counts as not set
        if mask.any():
            box = np.array(box_of_mask(mask))
            if (box[2:] - box[:2]).min() >= 2:  # a line of pixels is a flaw of the mask
                people.append(Person(box, mask))
    if not people:
        raise NobodyError("the mask is empty, so it names nobody; paint the person white.")
    return people


def tracks_from_sam3(track: Any, size: tuple[int, int] | None = None) -> list[list[Person | None]]:
    """One list per tracked object, with its person in every frame, None where it is not seen."""
    packed = _packed_masks(track)
    height, width = size or track.get("orig_size") or (packed.shape[2], packed.shape[3] * 8)
    scores = list(track.get("scores") or [])
    tracks: list[list[Person | None]] = []
    for number in range(packed.shape[1]):
        score = float(scores[number]) if number < len(scores) else 1.0
        tracks.append([_from_packed(packed[frame, number], (height, width), score) for frame in range(len(packed))])
    return tracks


def frames_of_sam3(track: Any) -> int:
    """How many frames SAM3 tracked."""
    return len(_packed_masks(track))


def _packed_masks(track: Any) -> np.ndarray:
    """(frames, people, h, w / 8) uint8."""
    if not isinstance(track, Mapping) or "packed_masks" not in track:
        raise ComoviError("SAM3 track data must hold packed_masks; connect the output of SAM3 Video Track.")
    packed = _plain(track["packed_masks"])
    if packed is None:
        raise ComoviError("SAM3 tracked nobody; name the person in its text, or give it a first mask.")
    if not isinstance(packed, np.ndarray) or packed.dtype != np.uint8 or packed.ndim != 4:
        raise ComoviError("packed_masks of the SAM3 track must be uint8 (frames, people, height, width / 8).")
    if packed.shape[1] > MOST_PEOPLE:
        raise ComoviError(f"{packed.shape[1]} objects were tracked; at most {MOST_PEOPLE} people can be read.")
    return packed


def people_from_sam3(track: Any, size: tuple[int, int], frame: int = 0) -> list[Person]:
    """Everybody that SAM3 sees in one frame, in the order of its tracks."""
    tracks = tracks_from_sam3(track, size)
    frames = len(tracks[0]) if tracks else 0
    if not 0 <= frame < frames:
        raise ComoviError(f"the SAM3 track has {frames} frames and frame {frame} is asked for; track the same video.")
    people = [person for row in tracks if (person := row[frame]) is not None]
    if not people:
        raise ComoviError(f"SAM3 sees nobody in frame {frame}; take another frame, or another tracked person.")
    return people


def people_from_keypoints(pose: Any, size: tuple[int, int], frame: int = 0) -> list[Person]:
    """People from POSE_KEYPOINT, in pixels of the picture whatever the canvas was.

    Points less sure than 0.3 count as not seen; of a person without a surer one those are taken that are at least half
    as sure as the best. Whoever has fewer than two points left is nobody.
    """
    record = _frame_of_pose(_plain(pose), frame)
    height, width = size
    canvas_width, canvas_height = (_side(record, name) for name in ("canvas_width", "canvas_height"))
    rows = record["people"]
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise ComoviError("people of the pose keypoints must be a list; connect the output of a pose detector.")
    if len(rows) > MOST_PEOPLE:
        raise ComoviError(f"{len(rows)} people came for one picture; at most {MOST_PEOPLE} can be read.")
    everybody = whoever_is_usable(rows, _points_of)
    largest = max((float(np.abs(points[:, :2]).max()) for points in everybody), default=0.0)
    if largest <= NORMALISED_BELOW:
        scale = np.array([width, height], np.float64)
    else:
        scale = np.array([width / (canvas_width or width), height / (canvas_height or height)])
    return whoever_is_usable(everybody, lambda points: _from_points(points * np.array([*scale, 1.0]), size))


def box_of_keypoints(keypoints: np.ndarray) -> np.ndarray:
    """The box (4,) that the body around the seen keypoints (18, 3) is likely to fill: no point lies on its outline."""
    seen = keypoints[keypoints[:, 2] > 0, :2]
    low, high = seen.min(0), seen.max(0)
    around = 0.08 * float((high - low).max()) + 1
    return np.concatenate([low - around, high + around])


def _from_points(points: np.ndarray, size: tuple[int, int]) -> Person:
    person = Person(box_of_keypoints(points), keypoints=points, score=float(points[points[:, 2] > 0, 2].mean()))
    return within_picture(person, size)


def _plain(value: Any) -> Any:
    """Tensors become arrays."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _boxes_of_frame(boxes: Any, frame: int) -> list[Any]:
    if boxes is None:
        return []
    if isinstance(boxes, np.ndarray):
        boxes = boxes.tolist()
    if isinstance(boxes, Mapping) or _is_numbers(boxes):
        return [boxes]
    if not isinstance(boxes, Sequence) or isinstance(boxes, str):
        raise ComoviError(f"boxes must be a list of boxes, got {type(boxes).__name__}; connect a detector's boxes.")
    if not boxes:
        return []
    if isinstance(boxes[0], Mapping) or _is_numbers(boxes[0]):
        return list(boxes)
    row = boxes[frame if len(boxes) > 1 else 0] if frame < len(boxes) or len(boxes) == 1 else None
    if row is None:
        raise ComoviError(f"boxes came for {len(boxes)} frames and frame {frame} is asked for; detect in all frames.")
    if not isinstance(row, Sequence) or isinstance(row, str):
        raise ComoviError("boxes must be a list of boxes, or one such list per frame; connect a detector's boxes.")
    return list(row)


def _is_numbers(row: Any) -> bool:
    return isinstance(row, Sequence) and not isinstance(row, str) and len(row) > 0 and _is_number(row[0])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _read_box(row: Any) -> tuple[np.ndarray, float, str]:
    """Box (4,), score and label of one entry."""
    if isinstance(row, Mapping):
        if not {"x", "y", "width", "height"} <= set(row):
            raise ComoviError(f"a box must have x, y, width and height, got {', '.join(map(str, list(row)[:6]))}.")
        x, y, wide, high = (_number(row[name], name) for name in ("x", "y", "width", "height"))
        score = _number(row.get("score", 1.0), "score")
        label = row.get("label")
        return np.array([x, y, x + wide, y + high]), score, label if isinstance(label, str) else ""
    numbers = [_number(value, "number") for value in row] if _is_numbers(row) else []
    if len(numbers) not in (4, 5):
        raise ComoviError("a box must be four numbers, left, top, right, bottom, or x, y, width and height by name.")
    return np.array(numbers[:4]), numbers[4] if len(numbers) == 5 else 1.0, ""


def _number(value: Any, name: str) -> float:
    if not _is_number(value):
        raise ComoviError(f"the {name} of a box must be a number, got {type(value).__name__}.")
    return float(value)


def _from_packed(packed: np.ndarray, size: tuple[int, int], score: float) -> Person | None:
    """One mask (h, w / 8) with the lowest bit of a byte first, of a picture of `size`; None where it names nobody."""
    mask = PackedMask(packed, size)
    box = mask.box()
    return Person(box, mask, score=score) if box is not None and (box[2:] - box[:2]).min() >= 2 else None


def _frame_of_pose(pose: Any, frame: int) -> Mapping[str, Any]:
    frames = [pose] if isinstance(pose, Mapping) else pose
    if not isinstance(frames, Sequence) or isinstance(frames, str) or not frames:
        raise ComoviError("pose keypoints must be a list of frames with people; connect a pose detector's output.")
    if len(frames) > 1 and not 0 <= frame < len(frames):
        raise ComoviError(f"pose keypoints came for {len(frames)} frames and frame {frame} is asked for.")
    record = frames[frame if len(frames) > 1 else 0]
    if not isinstance(record, Mapping) or "people" not in record:
        raise ComoviError('pose keypoints must hold "people" with pose_keypoints_2d; animals and faces cannot be read.')
    return record


def _side(record: Mapping[str, Any], name: str) -> float:
    """A side of the canvas in pixels, 0 where it is not said."""
    value = record.get(name, 0)
    if not _is_number(value) or not np.isfinite(value) or value < 0:
        raise ComoviError(f"{name} of the pose keypoints must be a number of pixels, got {value!r:.40}.")
    return float(value)


def _points_of(row: Any) -> np.ndarray:
    """(18, 3) of one person, with 0, 0, 0 where a point is missing or too unsure to count; two at least are there."""
    numbers = row.get("pose_keypoints_2d") if isinstance(row, Mapping) else None
    try:
        points = np.array(numbers if numbers is not None else [], np.float64).reshape(-1, 3)
    except (ValueError, TypeError):
        raise ComoviError("pose_keypoints_2d must be x, y, confidence of each point in turn.") from None
    if len(points) not in (0, 17, NUM_KEYPOINTS, 25):
        raise ComoviError(f"pose_keypoints_2d must hold 18 (OpenPose), 25 or 17 (COCO) points, got {len(points)}.")
    found = openpose_18(points) if len(points) else np.zeros((NUM_KEYPOINTS, 3))
    best = float(found[:, 2].max())
    found[found[:, 2] < (LEAST_SURE if best >= LEAST_SURE else OF_THE_BEST * best)] = 0
    if (found[:, 2] > 0).sum() < 2:
        raise NobodyError("the pose keypoints hold nobody of whom two points are seen; give another picture.")
    return found

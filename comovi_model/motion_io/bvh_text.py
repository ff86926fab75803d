"""BVH as text: the tree of joints and the table of angles, read and written. What the joints mean is bvh.py's.

Letters: F frames, N joints of the file, C columns of its table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ..errors import ComoviError
from .limits import check_frames

AXES = "xyz"
MOST_JOINTS = 2000
_CHUNK = 4 * 2**20  # characters whose numbers are read at once: a token costs ten times its text


@dataclass(frozen=True)
class BvhText:
    """Joints in file order; parents[i] < i. Units and axes are the file's."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray  # (N, 3), from the parent
    tips: dict[int, np.ndarray]  # joint -> offset (3,) of its End Site
    channels: tuple[tuple[str, ...], ...]  # per joint: "xp", "yp", "zp" positions, "xr", "yr", "zr" rotations
    frame_time: float  # seconds
    values: np.ndarray  # (F, C) float64, degrees
    notes: tuple[str, ...] = ()

    def local(self) -> tuple[np.ndarray, np.ndarray]:
        """-> positions (F, N, 3) relative to the parent and rotations (F, N, 3, 3).

        Position channels replace the OFFSET, as Blender and MotionBuilder understand them; rotation channels multiply
        in the order in which they are listed.
        """
        frames, column = len(self.values), 0
        positions = np.tile(self.offsets, (frames, 1, 1))
        rotations = np.tile(np.eye(3), (frames, len(self.names), 1, 1))
        for joint, channels in enumerate(self.channels):
            for kind in channels:
                axis, numbers = AXES.index(kind[0]), self.values[:, column]
                column += 1
                if kind[1] == "p":
                    positions[:, joint, axis] = numbers
                else:
                    rotations[:, joint] = rotations[:, joint] @ axis_rotation(axis, np.radians(numbers))
        return positions, rotations


def axis_rotation(axis: int, angles: np.ndarray) -> np.ndarray:
    """Angles (...) in radians about x, y or z (0, 1, 2) -> (..., 3, 3)."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    result = np.zeros((*angles.shape, 3, 3))
    result[..., axis, axis] = 1
    result[..., first, first] = result[..., second, second] = np.cos(angles)
    result[..., second, first] = np.sin(angles)
    result[..., first, second] = -np.sin(angles)
    return result


def parse_bvh(text: str) -> BvhText:
    """The file as it is written; a sentence when it is not BVH."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    found = re.search(r"^[ \t]*MOTION[ \t]*$", text, re.IGNORECASE | re.MULTILINE)
    if found is None:
        raise ComoviError("expected BVH with a MOTION part, and there is none; the file is cut off.")
    split = found.start()
    names, parents, offsets, tips, channels = _Hierarchy(text[:split]).read()
    frame_count, frame_time, table = _motion_header(text[split:])
    width = sum(len(of_joint) for of_joint in channels)
    if width == 0:
        raise ComoviError("no joint of the BVH file has channels, so nothing moves.")
    numbers = parse_numbers(table, "BVH")
    rows = len(numbers) // width
    if rows * width != len(numbers) or not rows:
        raise ComoviError(f"expected frames of {width} numbers, got {len(numbers)} numbers; the BVH file is damaged.")
    check_frames(rows, len(names))
    notes = () if rows == frame_count else (f"the header promises {frame_count} frames, {rows} are there",)
    values = numbers.reshape(rows, width)
    if not np.isfinite(offsets).all():
        raise ComoviError("the BVH file holds NaN or infinite numbers.")
    if np.abs(values).max(initial=0) > 1e7 or np.abs(offsets).max(initial=0) > 1e7:
        raise ComoviError("the BVH file holds absurdly large numbers; it is damaged.")
    return BvhText(tuple(names), tuple(parents), offsets, tips, tuple(channels), frame_time, values, notes)


class _Hierarchy:
    def __init__(self, text: str) -> None:
        self.tokens = text.replace("{", " { ").replace("}", " } ").split("\n")

    def read(self) -> tuple[list[str], list[int], np.ndarray, dict[int, np.ndarray], list[tuple[str, ...]]]:
        names: list[str] = []
        parents: list[int] = []
        offsets: list[np.ndarray] = []
        tips: dict[int, np.ndarray] = {}
        channels: list[tuple[str, ...]] = []
        open_joints: list[int] = []  # -1 stands for an End Site
        waiting: int | None = None  # what the next brace opens
        for words in self._statements():
            head = words[0].upper()
            if head in ("ROOT", "JOINT"):
                if head == "ROOT" and names:
                    raise ComoviError("the BVH file holds several skeletons; keep one ROOT.")
                if len(names) >= MOST_JOINTS:
                    raise ComoviError(f"the BVH file has more than {MOST_JOINTS} joints; it is damaged.")
                names.append(" ".join(words[1:]) or f"joint{len(names)}")
                parents.append(next((joint for joint in reversed(open_joints) if joint >= 0), -1))
                if head == "JOINT" and parents[-1] < 0:
                    raise ComoviError("a JOINT of the BVH file stands outside the ROOT.")
                offsets.append(np.zeros(3))
                channels.append(())
                waiting = len(names) - 1
            elif head == "END":
                waiting = -1
            elif head == "{":
                if waiting is None:
                    raise ComoviError("a brace of the BVH file opens nothing; it is damaged.")
                open_joints.append(waiting)
                waiting = None
            elif head == "}":
                if not open_joints:
                    raise ComoviError("a brace of the BVH file closes nothing; it is damaged.")
                open_joints.pop()
            elif head == "OFFSET" and open_joints:
                offset = _floats(words[1:4], 3)
                if open_joints[-1] < 0:
                    tips[next(joint for joint in reversed(open_joints) if joint >= 0)] = offset
                else:
                    offsets[open_joints[-1]] = offset
            elif head == "CHANNELS" and open_joints and open_joints[-1] >= 0:
                channels[open_joints[-1]] = tuple(_channel(word) for word in words[2:])
                if str(len(words) - 2) != words[1] or len(words) > 14:
                    raise ComoviError(f"CHANNELS {words[1]} of the BVH file is followed by {len(words) - 2} names.")
            elif head != "HIERARCHY":
                raise ComoviError(f"expected OFFSET, CHANNELS or JOINT in the BVH file, got {words[0][:40]!r}.")
        if not names or open_joints:
            raise ComoviError("the tree of the BVH file is incomplete; the file is cut off.")
        return names, parents, np.array(offsets), tips, channels

    def _statements(self):
        """Lines, with braces on lines of their own."""
        for line in self.tokens:
            words: list[str] = []
            for word in line.split():
                if word in "{}":
                    if words:
                        yield words
                    words = []
                    yield [word]
                else:
                    words.append(word)
            if words:
                yield words


def _channel(word: str) -> str:
    word = word.lower()
    if len(word) == 9 and word[0] in AXES and word[1:] in ("position", "rotation"):
        return word[:2]
    raise ComoviError(f"unknown channel {word[:40]!r} in the BVH file.")


def _floats(words: list[str], count: int) -> np.ndarray:
    try:
        values = np.array([float(word) for word in words])
    except ValueError:
        values = np.zeros(0)
    if len(values) != count:
        raise ComoviError(f"expected {count} numbers in the BVH file, got {' '.join(words)[:60]!r}.")
    return values


def _motion_header(text: str) -> tuple[int, float, str]:
    """ "MOTION / Frames: 2 / Frame Time: 0.0333" -> 2, 0.0333, the rest."""
    lines = text.split("\n", 8)
    count, time, used = -1, -1.0, 0
    for number, line in enumerate(lines[:8]):
        words = line.replace(":", " ").split()
        lower = [word.lower() for word in words]
        try:
            if lower[:1] == ["frames"] and len(words) == 2:
                count, used = int(words[1]), number + 1
            elif lower[:2] == ["frame", "time"] and len(words) == 3:
                time, used = _meant(words[2]), number + 1
        except ValueError:
            raise ComoviError(f"expected a number in {line.strip()[:60]!r} of the BVH file.") from None
        if count >= 0 and time >= 0:
            break
    if count < 0 or not 1e-6 < time < 1e4:
        raise ComoviError("the MOTION part of the BVH file lacks a usable Frames or Frame Time.")
    return count, time, text.split("\n", used)[used] if text.count("\n") >= used else ""


def _meant(text: str) -> float:
    """The frame time that was rounded to this text: "0.0333" is 1/30, "0.03337" is 1.001/30, "0.0625" is itself."""
    time = float(text)
    decimals = len(text.lower().split("e")[0].partition(".")[2])
    if "e" in text.lower() or not 1e-6 < time < 10:
        return time
    for rate in (round(1 / time), round(1.001 / time) / 1.001):
        if rate > 0 and abs(1 / rate - time) <= 0.5 * 10.0**-decimals + 1e-12:
            return 1 / rate
    return time


def parse_numbers(text: str, kind: str) -> np.ndarray:
    """Numbers separated by blanks -> (n,) float64, all finite; `kind` names the format in errors."""
    pieces, start = [], 0
    while start < len(text):
        end = min(start + _CHUNK, len(text))
        while end < len(text) and not text[end].isspace():
            end += 1
        try:
            pieces.append(np.array(text[start:end].split(), dtype=np.float64))
        except ValueError as error:
            raise ComoviError(f"the {kind} file holds something that is no number ({str(error)[:80]}).") from None
        start = end
    values = np.concatenate(pieces) if pieces else np.zeros(0)
    if not np.isfinite(values).all():
        raise ComoviError(f"the {kind} file holds NaN or infinite numbers.")
    return values


def format_bvh(bvh: BvhText) -> str:
    """The text; joints must be in depth-first order, because readers take the columns in the order of the tree."""
    assert bvh.parents == _depth_first(bvh.parents)
    lines = ["HIERARCHY"]
    children = [
        [child for child, parent in enumerate(bvh.parents) if parent == joint] for joint in range(len(bvh.names))
    ]

    def write(joint: int, depth: int) -> None:
        tab, inner = "  " * depth, "  " * (depth + 1)
        words = {"p": "position", "r": "rotation"}
        named = [f"{kind[0].upper()}{words[kind[1]]}" for kind in bvh.channels[joint]]
        lines.extend([f"{tab}{'JOINT' if depth else 'ROOT'} {bvh.names[joint]}", f"{tab}{{"])
        lines.append(f"{inner}OFFSET {_written(bvh.offsets[joint])}")
        lines.append(f"{inner}CHANNELS {len(named)} {' '.join(named)}")
        for child in children[joint]:
            write(child, depth + 1)
        if joint in bvh.tips:
            lines.extend(
                [f"{inner}End Site", f"{inner}{{", f"{inner}  OFFSET {_written(bvh.tips[joint])}", f"{inner}}}"]
            )
        lines.append(f"{tab}}}")

    write(0, 0)
    lines += ["MOTION", f"Frames: {len(bvh.values)}", f"Frame Time: {bvh.frame_time:.10g}"]
    lines += [_written(row) for row in bvh.values]
    return "\n".join(lines) + "\n"


def _depth_first(parents: tuple[int, ...]) -> tuple[int, ...]:
    """The same tree if it is listed depth first: then each parent is on the way up from the joint before."""
    for joint in range(1, len(parents)):
        way, step = {-1}, joint - 1
        while step >= 0:
            way.add(step)
            step = parents[step]
        if parents[joint] not in way:
            return ()
    return parents


def _written(values: np.ndarray) -> str:
    return " ".join([f"{value:.6f}" for value in values.tolist()])

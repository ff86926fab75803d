"""Broken files made by hand, and the one thing that every command has to say about them.

A test file registers its cases with `@case(words)`: each is a function from an empty folder to the arguments of
`comovi`, and words that the sentence must have.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from comfyui_comovi import cli
from comfyui_comovi.comovi_model.body.toy import toy_body
from PIL import Image
from safetensors.numpy import save_file


class Cases(dict):
    """name -> (function, words)"""

    def __call__(self, words: str):
        def register(make):
            assert make.__name__ not in self, make.__name__
            self[make.__name__] = (make, words)
            return make

        return register


class Hostile:
    def __reduce__(self):
        return os.system, ("echo hacked > /tmp/comovi_hacked",)


def put(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every path below `folder` with its content, so that both leftovers and damage are seen."""
    found: dict[str, bytes | None] = {}
    for path in sorted(folder.rglob("*")):
        is_file = path.is_file() and not path.is_symlink()
        found[str(path.relative_to(folder))] = path.read_bytes() if is_file else None
    return found


def assert_refused(capsys, folder: Path, argv: list, words: str) -> None:
    before = tree(folder)
    status = cli.main([str(item) for item in argv])
    captured = capsys.readouterr()
    assert status == 2, captured
    assert captured.err.startswith("comovi: "), captured.err
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.strip().endswith((".", "?")), captured.err
    assert "Traceback" not in captured.err
    assert words in captured.err, captured.err
    assert len(captured.err) < 600, captured.err
    assert tree(folder) == before


def weights(path: Path, **tensors: np.ndarray) -> Path:
    save_file(tensors or {"a.weight": np.zeros((4, 4), np.float32)}, path)
    return path


def with_header(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return put(path, len(text).to_bytes(8, "little") + text + data)


def toy_arrays() -> dict[str, np.ndarray]:
    body = toy_body(segments=4)
    names = ("v_template", "shapedirs", "J_regressor", "weights", "faces", "part_of_vertex")
    return {name: getattr(body, name).numpy().copy() for name in names}


def toy_file(path: Path, **changes) -> Path:
    arrays = {name: value for name, value in {**toy_arrays(), **changes}.items() if value is not None}
    np.savez(path, **arrays)
    return path


def motion_file(path: Path, frames: int = 3, **changes) -> Path:
    rotations = np.broadcast_to(np.eye(3, dtype=np.float32), (frames, 24, 3, 3)).copy()
    rotations[:, 0] = np.diag([1.0, -1.0, -1.0])  # upright in a camera frame, whose y points down
    arrays = {
        "global_orient": rotations[:, 0],
        "body_pose": rotations[:, 1:],
        "betas": np.zeros(10, np.float32),
        "transl": np.tile(np.float32([0, 0, 4]), (frames, 1)),
        "fps": np.array(16.0),
        "frame": np.array("camera"),
        "body_model": np.array("toy"),
        "camera_K": np.array([[60.0, 0, 16], [0, 60, 24], [0, 0, 1]], np.float32),
        "image_size": np.array([32, 48]),
    }
    arrays = {name: value for name, value in {**arrays, **changes}.items() if value is not None}
    np.savez(path, **arrays)
    return path


def draw(d: Path, motion: Path, out: str = "map.mp4", body: Path | None = None, *more) -> list:
    return ["map", motion, "--out", d / out, "--body", body or toy_file(d / "toy.npz"), *more]


def picture(path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 32, 3), np.uint8)).save(path)
    return path

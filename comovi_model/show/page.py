"""One HTML file that plays a motion in 3D, beside its video if there is one; it needs no network and no other file.

The body travels as the GLB file that `motion.glb` would be, so the page can hand it out, too. The player's sources are
in tools/player; it is three.js and a few hundred lines of ours, bundled and committed in player/.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
from pathlib import Path
from typing import Any

from ..body.cameras import frame_rotation
from ..body.files.glb import glb_bytes
from ..body.frames import pelvis_at_rest
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel
from ..errors import ComoviError
from ..files import atomic_path
from .page_video import PageVideo
from .standing import Standing, heading, stand
from .turntable import STILL

PLAYER = Path(__file__).parent / "player"
LARGEST_PAGE = 256 * 2**20  # bytes; browsers give up on larger ones


def write_page(
    path: str | os.PathLike[str],
    motion: BodyMotion,
    body: BodyModel,
    *,
    title: str = "",
    video: PageVideo | None = None,
) -> Path:
    """Writes the page, whole or not at all."""
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ComoviError(f"cannot write {path}: a page's name must end in .html.")
    text = page_text(motion, body, title=title or path.stem, name=path.stem, video=video)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def page_text(
    motion: BodyMotion, body: BodyModel, *, title: str, name: str = "motion", video: PageVideo | None = None
) -> str:
    """The HTML of the page. `name` is what a saved GLB file is called."""
    body, motion = body.to("cpu"), motion.to("cpu")
    standing = stand(motion, body, turned=False)
    glb = glb_bytes(standing.motion, body, floor=False)
    info = {
        "name": re.sub(r"[^\w.-]+", "_", name)[:80] or "motion",
        "frames": len(motion),
        "fps": motion.fps,
        **_place(standing),
        "camera": _camera(motion, standing),
        "movie": None if video is None else {"type": video.type, "times": video.times_of(motion)},
    }
    fields = {
        "TITLE": html.escape(title),
        "FACTS": html.escape(_facts(motion)),
        "STYLE": _part("player.css"),
        # "<" would let a title end the script that it stands in.
        "INFO": json.dumps(info, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        "GLB": base64.b64encode(glb).decode("ascii"),
        "MOVIE": "" if video is None else base64.b64encode(video.content).decode("ascii"),
        "SCRIPT": _part("player.js"),
    }
    size = sum(map(len, fields.values()))
    if size > LARGEST_PAGE:
        raise ComoviError(
            f"the page would take {size / 2**20:.0f} MiB, and at most {LARGEST_PAGE / 2**20:.0f} open in a browser; "
            "cut the motion or give a smaller video."
        )
    return re.sub("@@([A-Z]+)@@", lambda match: fields[match.group(1)], _part("page.html"))


def _part(name: str) -> str:
    path = PLAYER / name
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ComoviError(f"{path}: the player is missing from the package ({error}); install it again.") from None


def _place(standing: Standing) -> dict[str, Any]:
    """Where the views look: middle and half size of the clip, reach of the body round its pelvis, first heading."""
    low, high = standing.low, standing.high
    path = standing.joints[:, 0][:, [0, 2]]
    walks = float((path - (path.amin(0) + path.amax(0)) / 2).norm(dim=1).max()) > STILL
    return {
        "centre": _rounded([float(low[0] + high[0]) / 2, float(high[1]) / 2, float(low[2] + high[2]) / 2]),
        "size": round(float((high - low)[[0, 2]].norm()), 4),
        "reach": round(standing.reach, 4),
        "walks": walks,
        "facing": round(heading(standing.motion), 4),
    }


def _camera(motion: BodyMotion, standing: Standing) -> dict[str, Any] | None:
    """The camera of the motion in the page's world; its axes as three.js has them: right, up, backward. A camera that
    zooms is left out, because the view of the page does not."""
    if motion.camera is None or motion.frame != "camera":
        return None
    K = motion.camera.K
    if K.dim() == 3:
        if bool((K - K[:1]).abs().max() > 1e-3 * K[0, 0, 0]):
            return None
        K = K[0]
    turn = standing.motion.rotations[0, 0] @ motion.rotations[0, 0].T  # camera -> world
    seen = pelvis_at_rest(standing.body, motion) + motion.transl[0]  # the first pelvis in the camera's eyes
    return {
        "axes": [_rounded(row, 6) for row in (turn @ frame_rotation("yup", "camera")).tolist()],
        "K": [_rounded(row, 3) for row in K.tolist()],
        "width": motion.camera.width,
        "height": motion.camera.height,
        "position": _rounded((standing.joints[0, 0] - turn @ seen).tolist(), 5),
    }


def _rounded(values: list[float], digits: int = 4) -> list[float]:
    return [round(value, digits) for value in values]


def _facts(motion: BodyMotion) -> str:
    assert motion.valid is not None
    missing = int((~motion.valid).sum())
    parts = [f"{len(motion)} frames at {motion.fps:g} per second, {len(motion) / motion.fps:.2f} s"]
    parts += [f"body {motion.body_model}"]
    parts += [f"{missing} frames are placeholders without a pose"] if missing else []
    return " · ".join(parts)

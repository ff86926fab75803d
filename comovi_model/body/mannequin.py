"""The built-in body: a mannequin with exactly the array shapes of SMPL, and a small one for small pictures.

Both are our own reduction of the MakeHuman / MPFB2 base mesh, which is CC0 1.0, made by tools/build_mannequin.py; they
may be used for anything. Of SMPL they share only what is published fact: 6890 vertices, 13,776 faces, 24 joints with
their names and order, T-pose, axes. Hence:

- Poses are interchangeable with SMPL: the same rotation means the same gesture, up to the difference of the skeletons.
- Betas are NOT. The ten shape directions are principal components of this body (the first is stature, about 8 cm per
  unit). Files that were made with it say body_model "mannequin-v1"; do not give their betas to an SMPL body.
- Vertex k of the mannequin has nothing to do with vertex k of SMPL; use LANDMARKS through `landmarks()`.
- It has no pose-dependent correction (`posedirs` is None).
- Networks trained on maps of SMPL bodies see a slightly unfamiliar body; a real SMPL file gives them what they know.

The small body (at most 1500 faces) has the same joints and shape directions, so that a motion fits both.
"""

from __future__ import annotations

import json

from ..errors import ComoviError
from .body_files import ASSETS, load_mannequin_body, load_nano_body
from .smpl import BodyModel

__all__ = ["MANNEQUIN_NAME", "landmarks", "load_mannequin", "load_nano_body"]

MANNEQUIN_NAME = "mannequin-v1"


def load_mannequin() -> BodyModel:
    """The mannequin at SMPL's size: V = 6890, N = 13,776, K = 10 betas; posedirs None."""
    return load_mannequin_body()


def landmarks() -> dict[str, int]:
    """Vertices of the full mannequin that lie where SMPL users expect 21 extra points.

    Keys as in smplx: nose, leye, reye, lear, rear, LBigToe, LSmallToe, LHeel, RBigToe, RSmallToe, RHeel, and
    lthumb, lindex, lmiddle, lring, lpinky, rthumb, ... for the finger tips.
    """
    from safetensors import SafetensorError, safe_open

    path = ASSETS / "mannequin.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            return {name: int(vertex) for name, vertex in json.loads(file.metadata()["landmarks"]).items()}
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise ComoviError(
            f"{path}: the built-in body is missing or damaged ({error}); install the package again."
        ) from None

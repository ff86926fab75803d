"""How much of a file from a stranger we are willing to unpack."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import ComoviError

LARGEST_FILE = 2 * 2**30  # bytes; results of estimators with all vertices of minutes of video are below
LARGEST_TEXT = 512 * 2**20  # bytes of a text file
LARGEST_UNPACKED = 2**29  # bytes that a compressed file may unfold to
MOST_FRAMES = 200_000  # 0.4 GB as BodyMotion; two hours at 30 frames per second
MOST_NUMBERS = MOST_FRAMES * 24 * 9
MOST_TURNS = MOST_FRAMES * 24  # frames x joints of a foreign skeleton
MOST_NODES = 3_000_000  # dictionaries, lists and arrays in one file


class Budget:
    """Counts what is unpacked and stops at LARGEST_UNPACKED."""

    def __init__(self, limit: int = LARGEST_UNPACKED) -> None:
        self.limit = self.left = limit

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ComoviError(
                f"it unpacks to more than {self.limit / 2**30:.3g} GiB; it is damaged or hostile, or to be cut into "
                "shorter pieces."
            )


def read_bytes(path: Path, limit: int = LARGEST_FILE) -> bytes:
    """The whole file, if it is not too large."""
    size = path.stat().st_size
    if size > limit:
        raise ComoviError(f"{path} has {size / 2**30:.1f} GiB; at most {limit / 2**30:.3g} GiB of motion are read.")
    return path.read_bytes()


def check_frames(count: int, joints: int = 1) -> None:
    """A sentence for motions that do not fit into memory; `joints` of the file, each a matrix per frame."""
    if not 1 <= count <= MOST_FRAMES:
        raise ComoviError(f"a motion has 1 to {MOST_FRAMES} frames, got {count}; cut it into shorter ones.")
    if count * joints > MOST_TURNS:
        raise ComoviError(
            f"the file has {count} frames of {joints} joints, and at most {MOST_TURNS} rotations are read; cut it into "
            "shorter ones, or leave joints out."
        )


def by_number(name: str) -> tuple[list[str | int], str]:
    """Sorts "frame_2" before "frame_10": numbers in names count as numbers."""
    pieces = re.split(r"([0-9]{1,18})", name)  # text and number in turns
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)], name

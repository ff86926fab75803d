"""What a workflow is described with: nodes, the groups they stand in, and the parts that several workflows share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOTES = Path(__file__).resolve().parent / "workflow_notes"
BLUE, GREEN, PURPLE, ORANGE, GREY = "#3f789e", "#4c8a4c", "#7d4a9e", "#b58b2a", "#666"
ACTION = ("#432", "#653")  # the node that a person changes first


@dataclass(frozen=True)
class Out:
    """An output of another node, by that node's key and the output's name."""

    key: str
    name: str


@dataclass
class Node:
    """One node. `inputs` holds values and Outs by input name; `widgets` what is no input, e.g. what follows a seed."""

    key: str
    type: str
    inputs: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    width: int = 300
    height: int = 0  # 0: as high as its widgets need
    colour: tuple[str, str] | None = None
    widgets: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass
class Group:
    """A coloured frame; `stacks` are its columns of nodes from left to right."""

    title: str
    colour: str
    stacks: list[list[Node]]


@dataclass
class Flow:
    name: str
    title: str
    columns: list[list[Group]]  # from left to right, each from top to bottom
    note_width: int = 440
    note_height: int = 640

    def note(self) -> str:
        """workflow_notes/NAME.md with the parts that it names in braces."""
        text = (NOTES / f"{self.name}.md").read_text(encoding="utf-8").strip()
        for part in NOTES.glob("_*.md"):
            text = text.replace("{" + part.stem[1:] + "}", part.read_text(encoding="utf-8").strip())
        return re.sub(
            r"(?<!\n)\n(?:  +(?=[^-\s])|(?=[^-#|\s\d]))", " ", text
        )  # the page breaks lines where a file does

    def nodes(self) -> Iterator[Node]:
        for column in self.columns:
            for group in column:
                for stack in group.stacks:
                    yield from stack


VIEW_3D = {  # the page's own values, but for the camera, which then sees all of a raised arm
    "Camera Config": {"cameraType": "perspective", "fov": 46},
    "Light Config": {
        "intensity": 3,
        "hdri": {"enabled": False, "hdriPath": "", "showAsBackground": False, "intensity": 1},
    },
    "Scene Config": {
        "showGrid": True,
        "backgroundColor": "#282828",
        "backgroundImage": "",
        "backgroundRenderMode": "tiled",
    },
}
REPACKAGED = "https://huggingface.co/Comfy-Org/Wan_2.{}_ComfyUI_{}ackaged/resolve/main/split_files/{}"
TEXT_ENCODER = "umt5_xxl_fp8_e4m3fn_scaled.safetensors"
VAE_FILE = "wan2.2_vae.safetensors"
COMOVI_FILE = "comovi_5b.safetensors"
NANO, NANO_BODY = "nano (embedded)", "nano (embedded)"
NANO_SIZE = {"width": 128, "height": 192}
FULL_SIZE = {"width": 704, "height": 1280}
WAN_NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走"
)


def to_download(name: str, folder: str, url: str) -> dict[str, Any]:
    """The property by which the page offers a missing file for download."""
    return {"models": [{"name": name, "url": url, "directory": folder}]}


def nano_models() -> Group:
    load = [
        Node("model", "CoMoVi_LoadModel", {"model_name": NANO}),
        Node("nano", "CoMoVi_LoadNanoClipVae", {}),
        Node("body", "CoMoVi_LoadBody", {"body": NANO_BODY}),
    ]
    return Group("Models (embedded)", BLUE, [load])


def full_models(weight_dtype: str = "default", branches: str = "both", clip_device: str = "default") -> Group:
    url = REPACKAGED.format("1", "rep", "text_encoders/" + TEXT_ENCODER)
    clip = to_download(TEXT_ENCODER, "text_encoders", url)
    vae = to_download(VAE_FILE, "vae", REPACKAGED.format("2", "Rep", "vae/" + VAE_FILE))
    model = {"model_name": COMOVI_FILE, "weight_dtype": weight_dtype, "branches": branches}
    load = [
        Node("model", "CoMoVi_LoadModel", model, width=360),
        Node(
            "clip",
            "CLIPLoader",
            {"clip_name": TEXT_ENCODER, "type": "wan", "device": clip_device},
            width=360,
            properties=clip,
        ),
        Node("vae", "VAELoader", {"vae_name": VAE_FILE}, width=360, properties=vae),
        Node("body", "CoMoVi_LoadBody", {"body": "mannequin (embedded)"}, width=360),
    ]
    return Group("Models", BLUE, [load])


def save_video(key: str, images: Out, prefix: str, title: str, fps: float = 16.0) -> list[Node]:
    """The node that saves grows to the height of what it shows, so it has the room for an upright video."""
    return [
        Node(f"{key}_video", "CreateVideo", {"images": images, "fps": fps}, width=280),
        Node(
            f"{key}_save",
            "SaveVideo",
            {"video": Out(f"{key}_video", "VIDEO"), "filename_prefix": prefix},
            title=title,
            width=280,
            height=580,
        ),
    ]


def look_3d(motion: Out, prefix: str, height: int = 760) -> list[Node]:
    """The skinned body in ComfyUI's own 3D view."""
    return [
        Node("to_3d", "CoMoVi_MotionTo3D", {"motion": motion, "body": Out("body", "body"), "filename_prefix": prefix}),
        Node(
            "view_3d",
            "Preview3D",
            {"model_file": Out("to_3d", "path")},
            title="The body in 3D",
            width=500,
            height=height,
            properties=VIEW_3D,
        ),
    ]

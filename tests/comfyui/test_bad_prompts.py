"""Prompts that cannot work: each is refused at validation, naming the input, or ends in one readable sentence.

The server stays up, and the next good prompt passes. Nothing is written or read outside ComfyUI's folders.
"""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from nano_graph import HEIGHT, PROMPT, WIDTH, NanoGraph

UNREADABLE = re.compile(
    r"Traceback|object at 0x|NoneType|KeyError|IndexError|size of tensor|shapes cannot|out of range|has no attribute|"
    r"unexpected keyword|missing \d+ required|Expected all tensors|not subscriptable"
)
_seeds = count(1000)


class Bad:
    """A prompt to spoil. `g` has the usual nano nodes up to the latent; `save` makes it have an output."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.g = NanoGraph.begin(server)
        self.body = self.g.add("CoMoVi_LoadBody", body="nano (embedded)")

    def add(self, kind: str, /, **inputs: Any) -> Any:
        return self.g.add(kind, **inputs)

    def image(self, kind: str = "noise", frames: int = 1, width: int = WIDTH, height: int = HEIGHT) -> Any:
        return self.add("Probe_MakeImage", kind=kind, width=width, height=height, frames=frames, seed=1)

    def latent(self, channels: int = 96, frames: int = 9, batch: int = 1, width: int = 8, height: int = 12) -> Any:
        size = {"batch": batch, "frames": frames, "height": height, "width": width}
        return self.add("Probe_MakeLatent", channels=channels, seed=3, **size)

    def motion(self, spoiled: str = "") -> Any:
        """The start pose, as it is or with something wrong in every array."""
        drawn = self.add("CoMoVi_NanoStart", prompt=PROMPT, seed=0)
        return self.add("Probe_BreakMotion", motion=drawn[1], kind=spoiled) if spoiled else drawn[1]

    def map(self, **changes: Any) -> Any:
        usual = {"body": self.body, "width": 0, "height": 0, "shading": "flat", "smoothing": 1}
        return self.add("CoMoVi_DrawMotionMap", **{**usual, "motion": self.motion(), **changes})

    def condition(self, **changes: Any) -> None:
        size = {"width": WIDTH, "height": HEIGHT, "length": 33, "batch_size": 1}
        encoded = {"positive": self.g.encode("a"), "negative": self.g.encode("b"), "vae": self.g.vae}
        made = self.add("CoMoVi_Conditioning", **{**encoded, **size, **changes})
        self.g.save_latent(made[2])

    def load(self, **changes: Any) -> None:
        usual = {"model_name": "nano (embedded)", "weight_dtype": "default", "branches": "both"}
        self.g.save_latent(self.g.ksampler(self.add("CoMoVi_LoadModel", **{**usual, **changes}), steps=1))

    def load_motion(self, file: str, **changes: Any) -> None:
        usual = {"fps": 0.0, "up_axis": "as in the file"}
        self.save_motion(motion=self.add("CoMoVi_LoadMotion", file=file, **{**usual, **changes}))

    def save_motion(self, **changes: Any) -> None:
        usual = {"body": self.body, "filename_prefix": "bad/x", "format": "comovi", "root": "centred"}
        motion = changes.pop("motion", None) or self.motion()
        self.add("CoMoVi_SaveMotion", motion=motion, joint_names="smpl", **{**usual, **changes})

    def pose(self, **changes: Any) -> None:
        usual = {"model": self.g.model, "positive": self.g.positive, "sigma": 0.0, "batch_index": 0}
        parts = {key: changes[key] if key in changes else make() for key, make in self._pose_parts().items()}
        self.save_motion(motion=self.add("CoMoVi_PoseFromLatent", **{**usual, **changes, **parts}))

    def _pose_parts(self) -> dict[str, Callable[[], Any]]:
        return {"latent": self.latent, "start_pose": self.motion}

    def give(self, **changes: Any) -> None:
        conditions = {"positive": self.g.positive, "negative": self.g.negative, "latent": self.g.latent}
        usual = {**conditions, "vae": self.g.vae, "half": "video", "manner": "clean"}
        frames = changes.pop("frames", None) or self.image(frames=33)
        self.g.save_latent(self.add("CoMoVi_GiveHalf", **{**usual, "frames": frames, **changes})[2])

    def input_file(self, name: str, content: bytes) -> str:
        return self.server.upload(content, name)

    def model_file(self, folder: str, name: str, content: bytes) -> str:
        place = self.server.base / "models" / folder
        place.mkdir(exist_ok=True)
        (place / name).write_bytes(content)
        return name


class Harmful:
    """Unpickled without care, it leaves a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({self.path!r}, 'w').close()",))


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def amass(**changes: Any) -> bytes:
    usual = {"poses": np.zeros((5, 156)), "trans": np.zeros((5, 3)), "betas": np.zeros(16), "mocap_framerate": 60.0}
    return npz(**{**usual, **changes})


NAN_POSES = np.full((5, 156), np.nan)
TENSOR = safetensors.torch.save({"weight": torch.ones(3)})
OUTSIDE = "../../outside"

# Name: (what is done, the input that the answer must name, words of which one must be in it).
CASES: dict[str, tuple[Callable[[Bad], None], str, str]] = {
    # files that are not there, and hostile paths in every input that names a file
    "model missing": (lambda b: b.load(model_name="nothing.safetensors"), "model_name", "nothing.safetensors"),
    "model outside": (lambda b: b.load(model_name=OUTSIDE + ".safetensors"), "model_name", "outside"),
    "body missing": (
        lambda b: b.save_motion(body=b.add("CoMoVi_LoadBody", body="SMPL.npz")),
        "body",
        "SMPL",
    ),
    "body outside": (lambda b: b.save_motion(body=b.add("CoMoVi_LoadBody", body=OUTSIDE + ".npz")), "body", "outside"),
    "motion missing": (lambda b: b.load_motion("nothing.npz"), "file", "nothing.npz"),
    "motion outside": (lambda b: b.load_motion(OUTSIDE + ".npz"), "file", "outside"),
    "motion absolute": (lambda b: b.load_motion("/etc/passwd"), "file", "passwd"),
    "motion outside, Windows": (lambda b: b.load_motion("..\\..\\outside.npz"), "file", "outside"),
    "motion outside, marked": (lambda b: b.load_motion(OUTSIDE + ".npz [output]"), "file", "outside"),
    "lora outside": (lambda b: lora(b, OUTSIDE + ".safetensors"), "lora_name", "outside"),
    "save outside": (lambda b: b.save_motion(filename_prefix=OUTSIDE), "filename_prefix", "outside"),
    "save absolute": (lambda b: b.save_motion(filename_prefix="/tmp/comovi_outside"), "filename_prefix", "outside"),
    "save outside, Windows": (lambda b: b.save_motion(filename_prefix="..\\..\\outside"), "filename_prefix", "outside"),
    "3D outside": (lambda b: to_3d(b, filename_prefix=OUTSIDE), "filename_prefix", "outside"),
    # choices and numbers
    "unknown dtype": (lambda b: b.load(weight_dtype="int3"), "weight_dtype", "int3"),
    "unknown branches": (lambda b: b.load(branches="left"), "branches", "left"),
    "unknown format": (lambda b: b.save_motion(format="exe"), "format", "exe"),
    "unknown half": (lambda b: b.give(half="sound"), "half", "sound"),
    "82 frames": (lambda b: b.condition(length=82), "length", "81"),
    "no frames": (lambda b: b.condition(length=0), "length", "0"),
    "negative frames": (lambda b: b.condition(length=-3), "length", "-3"),
    "width 100": (lambda b: b.condition(width=100), "width", "100"),
    "width 0": (lambda b: b.condition(width=0), "width", "0"),
    "height too large": (lambda b: b.condition(height=100_000), "height", "100000"),
    "width as words": (lambda b: b.condition(width="wide"), "width", "wide"),
    "no batch": (lambda b: b.condition(batch_size=0), "batch_size", "0"),
    "negative steps": (lambda b: official(b, steps=-4), "steps", "-4"),
    "shift 0": (lambda b: official(b, shift=0.0), "shift", "0"),
    "denoise 7": (lambda b: official(b, denoise=7.0), "denoise", "7"),
    "negative smoothing": (lambda b: b.g.save_images(b.map(smoothing=-1)), "smoothing", "-1"),
    "negative seed": (lambda b: b.save_motion(motion=b.add("CoMoVi_NanoStart", prompt="x", seed=-1)[1]), "seed", "-1"),
    # wrong or absent wires
    "vae into model": (lambda b: b.g.save_latent(b.g.ksampler(b.g.vae)), "model", "VAE"),
    "clip into vae": (lambda b: b.condition(vae=b.g.clip), "vae", "CLIP"),
    "image as motion": (lambda b: b.g.save_images(b.map(motion=b.image())), "motion", "IMAGE"),
    "motion as body": (lambda b: b.save_motion(body=b.motion()), "body", "BODY_MOTION"),
    "no vae": (lambda b: no_vae(b), "vae", "vae"),
    "pose from no motion": (lambda b: start_pose(b, pose="from motion"), "motion", "motion"),
    # pictures that are none
    "first frame empty": (lambda b: b.condition(first_frame=b.image("no frames")), "first_frame", "frames|pictures"),
    "first frame NaN": (lambda b: b.condition(first_frame=b.image("nan")), "first_frame", "NaN|finite"),
    "first map of one channel": (lambda b: b.condition(first_map=b.image("one channel")), "first_map", "3"),
    "first frame without width": (
        lambda b: b.condition(first_frame=b.image("nothing wide")),
        "first_frame",
        "width|pict",
    ),
    "too few frames to give": (lambda b: b.give(frames=b.image(frames=9)), "frames", "9"),
    "given frames NaN": (lambda b: b.give(frames=b.image("nan", frames=33)), "frames", "NaN|finite"),
    "map NaN": (lambda b: from_map(b, motion_map=b.image("nan", frames=5)), "motion_map", "NaN|finite"),
    "map without a body": (lambda b: from_map(b, motion_map=b.image("grey", frames=5)), "map", "body|person|map"),
    "overlay of other length": (lambda b: overlay(b, b.image(frames=7), seen(b)), "", "7"),
    "overlay NaN": (lambda b: overlay(b, b.image("nan"), b.motion()), "images", "NaN|finite"),
    # latents
    "halves of other sizes": (lambda b: join(b, b.latent(48, 9), b.latent(48, 5)), "motion_map", "equal"),
    "half of other channels": (lambda b: join(b, b.latent(48), b.latent(16)), "motion_map", "48"),
    "split of 48": (lambda b: b.g.save_latent(b.add("CoMoVi_SplitLatent", latent=b.latent(48))), "latent", "96"),
    "sampling 16 channels": (lambda b: b.g.save_latent(b.g.ksampler(latent_image=b.latent(16))), "", "96"),
    "pose of 48": (lambda b: b.pose(latent=b.latent(48)), "latent", "96"),
    "pose of clip 5": (lambda b: b.pose(batch_index=5), "batch_index", "5"),
    "pose of a motion without a camera": (lambda b: b.pose(start_pose=example(b)), "start_pose", "seen by a camera"),
    "start pose too near": (lambda b: start_pose(b, pose="T-pose", distance=0.2), "distance", "0.3 to 100"),
    "camera too near": (lambda b: b.save_motion(motion=set_camera(b, distance=0.05)), "distance", "0.3 to 100"),
    "FBX file": (lambda b: b.load_motion(b.input_file("dance.fbx", b"Kaydara FBX Binary  " + bytes(99))), "", "BVH"),
    "pose of motion branch": (lambda b: b.pose(model=one_branch(b)), "model", "head"),
    "pose of another model": (lambda b: b.pose(model=b.add("Probe_OtherModel")), "model", "CoMoVi"),
    "report of another model": (
        lambda b: b.add("CoMoVi_ModelReport", model=b.add("Probe_OtherModel")),
        "model",
        "CoMoVi",
    ),
    "lora on another model": (lambda b: lora(b, "test", b.add("Probe_OtherModel")), "model", "CoMoVi"),
    "other text encoder": (
        lambda b: b.g.save_latent(b.g.ksampler(positive=b.add("Probe_MakeText", width=768))),
        "",
        "768",
    ),
    # motions
    "NaN motion drawn": (lambda b: b.g.save_images(b.map(motion=b.motion("nan"))), "motion", "NaN|finite"),
    "NaN motion saved": (lambda b: b.save_motion(motion=b.motion("nan")), "motion", "NaN|finite"),
    "NaN motion in 3D": (lambda b: to_3d(b, motion=b.motion("nan")), "motion", "NaN|finite"),
    "NaN start of a pose": (lambda b: b.pose(start_pose=b.motion("nan")), "", "NaN|finite"),
    "motion without frames": (lambda b: b.save_motion(motion=b.motion("no frames")), "motion", "frames"),
    "no camera": (lambda b: b.g.save_images(b.map(motion=example(b))), "motion", "camera"),
    "trim beyond the end": (lambda b: b.save_motion(motion=trim(b, start=500, length=5)), "start", "500"),
    "NaN in a file": (lambda b: b.load_motion(b.input_file("nan.npz", amass(poses=NAN_POSES))), "", "NaN|finite"),
    "no motion in a file": (lambda b: b.load_motion(b.input_file("other.npz", npz(x=np.zeros(3)))), "", "other.npz"),
    "text as a file": (lambda b: b.load_motion(b.input_file("text.npz", b"hello")), "", "text.npz"),
    "empty file": (lambda b: b.load_motion(b.input_file("empty.bvh", b"")), "", "empty.bvh"),
    "half a file": (lambda b: b.load_motion(b.input_file("half.npz", amass()[:900])), "", "half.npz"),
    "harmful pickle": (lambda b: b.load_motion(b.input_file("harmful.pkl", harmful(b))), "", "harmful.pkl"),
    "fps of a wrong sign": (lambda b: b.load_motion("walk (example)", fps=-5.0), "fps", "-5"),
    # weights of something else
    "model is a picture": (lambda b: b.load(model_name=weights(b, b"\x89PNG not weights")), "", "model|file|weights"),
    "model of something else": (lambda b: b.load(model_name=weights(b, TENSOR)), "", "weights|CoMoVi|Wan"),
    "lora of something else": (
        lambda b: lora(b, b.model_file("loras", "no_lora.safetensors", TENSOR)),
        "",
        "lora|LoRA",
    ),
    "lora is no file": (lambda b: lora(b, b.model_file("loras", "junk.safetensors", b"junk")), "", "junk|lora|LoRA"),
}


def lora(b: Bad, name: str, model: Any = None) -> None:
    if name == "test":
        b.model_file("loras", name := "plain.safetensors", TENSOR)
    strengths = {"strength_video": 1.0, "strength_motion": 1.0, "strength_couplings": 1.0}
    patched = b.add("CoMoVi_ApplyLora", model=model or b.g.model, lora_name=name, **strengths)
    b.g.save_latent(b.g.ksampler(patched, steps=1))


def to_3d(b: Bad, **changes: Any) -> None:
    motion = changes.pop("motion", None) or b.motion()
    b.add(
        "CoMoVi_MotionTo3D",
        **{"motion": motion, "body": b.body, "root": "centred", "filename_prefix": "bad/x", **changes},
    )


def official(b: Bad, **changes: Any) -> None:
    usual = {"steps": 2, "shift": 5.0, "denoise": 1.0, "released_rounding": True}
    made = b.add("CoMoVi_OfficialSampling", **{**usual, **changes})
    noise = b.add("RandomNoise", noise_seed=1)
    guider = b.add("BasicGuider", model=b.g.model, conditioning=b.g.positive)
    parts = {"noise": noise, "guider": guider, "sampler": made[0], "sigmas": made[1], "latent_image": b.g.latent}
    b.g.save_latent(b.add("SamplerCustomAdvanced", **parts))


def no_vae(b: Bad) -> None:
    b.condition()
    [node] = [n for n in list(b.g.nodes.values())[-2:] if n["class_type"] == "CoMoVi_Conditioning"]
    del node["inputs"]["vae"]


def start_pose(b: Bad, **changes: Any) -> None:
    view = {"field_of_view": 40.0, "distance": 0.0, "turn": 0.0, "across": 0.5, "down": 0.5}
    b.save_motion(motion=b.add("CoMoVi_StartPose", body=b.body, width=WIDTH, height=HEIGHT, **{**view, **changes}))


def from_map(b: Bad, **changes: Any) -> None:
    usual = {"start_pose": b.motion(), "body": b.body, "fps": 16.0}
    b.save_motion(motion=b.add("CoMoVi_MotionFromMap", **{**usual, **changes})[0])


def overlay(b: Bad, images: Any, motion: Any) -> None:
    b.g.save_images(
        b.add("CoMoVi_OverlayMotion", images=images, motion=motion, body=b.body, opacity=0.5, style="solid")
    )


def seen(b: Bad) -> Any:
    """A motion of 33 frames with a camera."""
    return set_camera(b)


def set_camera(b: Bad, **changes: Any) -> Any:
    view = {"field_of_view": 40.0, "distance": 0.0, "turn": 0.0, "across": 0.5, "down": 0.5, **changes}
    return b.add("CoMoVi_SetCamera", motion=example(b), body=b.body, width=WIDTH, height=HEIGHT, **view)


def join(b: Bad, video: Any, motion_map: Any) -> None:
    b.g.save_latent(b.add("CoMoVi_JoinLatents", video=video, motion_map=motion_map))


def one_branch(b: Bad) -> Any:
    return b.add("CoMoVi_LoadModel", model_name="nano (embedded)", weight_dtype="default", branches="motion only")


def example(b: Bad) -> Any:
    return b.add("CoMoVi_LoadMotion", file="walk (example)", fps=0.0, up_axis="as in the file")


def trim(b: Bad, **changes: Any) -> Any:
    return b.add("CoMoVi_TrimMotion", motion=example(b), **{"start": 0, "length": 5, "backwards": False, **changes})


def harmful(b: Bad) -> bytes:
    return pickle.dumps({"smpl": Harmful(str(b.server.base / "harmed"))})


def weights(b: Bad, content: bytes) -> str:
    return b.model_file("diffusion_models", f"junk{len(content)}.safetensors", content)


def everything_below(folder: Any) -> set[str]:
    return {str(path) for path in folder.rglob("*") if "__pycache__" not in str(path)}


@pytest.fixture
def next_prompt_is_good(comfyui):
    """After the test: the server lives, and a good prompt with other numbers than before gives the right ones."""
    yield
    assert comfyui.alive(), comfyui.log_tail(60)
    bad = Bad(comfyui)
    half = bad.add("CoMoVi_SplitLatent", latent=bad.latent(batch=1, frames=1 + next(_seeds) % 5))
    saved = bad.g.save_latent(half[1])
    latent = comfyui.run(bad.g).latent(saved)
    frames, generator = latent.shape[2], torch.Generator().manual_seed(3)
    assert torch.equal(latent, torch.randn(1, 96, frames, 12, 8, generator=generator)[:, 48:])


def answers(result: Any) -> list[tuple[str, str]]:
    """(input name, message) of everything that was said."""
    if not result.node_errors:
        return [("", result.error)]
    found = []
    for entry in result.node_errors.values():
        for error in entry["errors"]:
            name = (error.get("extra_info") or {}).get("input_name") or error.get("details", "").split(" - ")[0]
            found.append(
                (name, f"{error['message']}: {error.get('details', '')} {json.dumps(error.get('extra_info'))}")
            )
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_bad_prompt_is_answered_in_a_sentence(comfyui, next_prompt_is_good, name, record_property):
    spoil, input_name, words = CASES[name]
    bad = Bad(comfyui)
    spoil(bad)
    outside = comfyui.base.parent
    before = set(outside.iterdir())
    result = comfyui.run(bad.g, check=False)
    assert result.error, "it was accepted"
    if result.node_errors:
        said = answers(result)
        named = [message for key, message in said if input_name in key or not input_name]
        assert named, f"validation does not name {input_name}: {said}"
        assert any(re.search(words, message) for message in named), named
    else:
        kind, message = result.failure.get("exception_type", ""), result.failure.get("exception_message", result.error)
        assert message.strip().count("\n") == 0 and 15 < len(message) < 420, message
        assert not UNREADABLE.search(message), message
        assert kind.endswith("ComoviError"), f"{kind}: {message}"
        assert re.search(words, message), message
        assert not input_name or re.search(rf"{input_name}|{input_name.replace('_', ' ')}", message), message
    record_property("answer", result.error[:300])
    assert set(outside.iterdir()) == before and not (comfyui.base / "harmed").exists()
    assert "outside" not in "".join(path.name for path in comfyui.base.iterdir())


def test_there_are_enough_of_them():
    assert len(CASES) >= 25


def test_part_of_a_prompt_may_be_good(comfyui, Graph):
    """ComfyUI runs what is valid and tells what it left out; so does our client."""
    g = Graph()
    good = g.save_images(g.add("EmptyImage", width=8, height=8, batch_size=1, color=255))
    made = g.add("CoMoVi_LoadNanoClipVae")
    text = g.add("CLIPTextEncode", clip=made[0], text="a")
    size = {"width": 100, "height": 192, "length": 33, "batch_size": 1}
    g.save_latent(g.add("CoMoVi_Conditioning", positive=text, negative=text, vae=made[1], **size)[2])
    assert "width is 100" in comfyui.run(g, check=False).error  # all or nothing, unless told otherwise
    outcome = comfyui.client.run(g.prompt(), partial=True)
    assert list(outcome.outputs) == [good.id]
    assert any("width is 100" in warning for warning in outcome.warnings), outcome.warnings

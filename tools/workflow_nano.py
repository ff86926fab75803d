"""Parts that the workflows on the embedded nano model share: 128 x 192 pixels, 33 frames, one step of sampling."""

from __future__ import annotations

from workflow_parts import ACTION, NANO_SIZE, Node, Out

LENGTH = 33
WAVING = "a woman in a yellow shirt and black trousers waves with the left hand"
SENTENCE = "a woman in a red shirt and blue trousers raises both arms"


def sentence(text: str = SENTENCE) -> list[Node]:
    """One sentence for the drawing of the start and for the sampling."""
    return [
        Node(
            "text",
            "PrimitiveStringMultiline",
            {"value": text},
            title="What shall happen?",
            width=360,
            height=130,
            colour=ACTION,
        ),
        Node(
            "positive",
            "CLIPTextEncode",
            {"clip": Out("nano", "CLIP"), "text": Out("text", "STRING")},
            title="Sentence",
            width=360,
            height=100,
        ),
        Node(
            "negative",
            "CLIPTextEncode",
            {"clip": Out("nano", "CLIP"), "text": ""},
            title="Negative (not read at cfg 1)",
            width=360,
            height=100,
        ),
    ]


def nano_start(seed: int, pose: Out | None = None) -> list[Node]:
    posed = {} if pose is None else {"pose": pose}
    return [
        Node(
            "start",
            "CoMoVi_NanoStart",
            {"prompt": Out("text", "STRING"), "seed": seed, **posed},
            widgets={"control_after_generate": "randomize"},
            height=140,
        ),
        Node(
            "first_map",
            "CoMoVi_DrawMotionMap",
            {"motion": Out("start", "start_pose"), "body": Out("body", "body"), "smoothing": 2},
            title="First motion map",
        ),
    ]


def previews() -> list[Node]:
    return [
        Node(
            "see_frame",
            "PreviewImage",
            {"images": Out("start", "first_frame")},
            title="First frame",
            width=260,
            height=330,
        ),
        Node(
            "see_map",
            "PreviewImage",
            {"images": Out("first_map", "motion_map")},
            title="Its motion map",
            width=260,
            height=330,
        ),
    ]


def draw_map(key: str, motion: Out, title: str) -> Node:
    """As the clips of the nano model were drawn; the motion's own camera says the size."""
    return Node(
        key, "CoMoVi_DrawMotionMap", {"motion": motion, "body": Out("body", "body"), "smoothing": 2}, title=title
    )


def some_frames(key: str, frames: Out, title: str, first: int = 0, count: int = 1) -> Node:
    return Node(key, "ImageFromBatch", {"image": frames, "batch_index": first, "length": count}, title=title)


def give_half(half: str, frames: Out, key: str = "give", source: str = "conditioning") -> Node:
    given = {
        "positive": Out(source, "positive"),
        "negative": Out(source, "negative"),
        "latent": Out(source, "latent"),
        "vae": Out("nano", "VAE"),
        "frames": frames,
    }
    return Node(key, "CoMoVi_GiveHalf", {**given, "half": half, "manner": "clean"})


def conditioning(
    key: str = "conditioning", frame: Out | None = None, first_map: Out | None = None, positive: str = "positive"
) -> Node:
    given = {
        "positive": Out(positive, "CONDITIONING"),
        "negative": Out("negative", "CONDITIONING"),
        "vae": Out("nano", "VAE"),
        "first_frame": frame or Out("start", "first_frame"),
        "first_map": first_map or Out("first_map", "motion_map"),
    }
    return Node(key, "CoMoVi_Conditioning", {**given, **NANO_SIZE, "length": LENGTH})


def sampler(key: str = "sample", source: str = "conditioning", seed: int = 7) -> Node:
    given = {
        "model": Out("model", "MODEL"),
        "positive": Out(source, "positive"),
        "negative": Out(source, "negative"),
        "latent_image": Out(source, "latent"),
    }
    settings = {"seed": seed, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    return Node(key, "KSampler", {**given, **settings}, widgets={"control_after_generate": "randomize"}, height=530)


def split_and_decode(suffix: str = "", sample: str = "sample") -> list[Node]:
    split = f"split{suffix}"
    return [
        Node(split, "CoMoVi_SplitLatent", {"latent": Out(sample, "LATENT")}),
        Node(
            f"frames{suffix}",
            "VAEDecode",
            {"samples": Out(split, "video"), "vae": Out("nano", "VAE")},
            title="Decode video",
        ),
        Node(
            f"map{suffix}",
            "VAEDecode",
            {"samples": Out(split, "motion_map"), "vae": Out("nano", "VAE")},
            title="Decode motion map",
        ),
    ]


def read_motion(
    suffix: str = "", sample: str = "sample", start: Out | None = None, positive: str = "positive"
) -> list[Node]:
    """The pose head, then the path that the map shows."""
    pose = {
        "model": Out("model", "MODEL"),
        "positive": Out(positive, "CONDITIONING"),
        "latent": Out(sample, "LATENT"),
        "start_pose": start or Out("start", "start_pose"),
    }
    placed = {
        "motion": Out(f"pose{suffix}", "motion"),
        "body": Out("body", "body"),
        "motion_map": Out(f"map{suffix}", "IMAGE"),
    }
    return [
        Node(f"pose{suffix}", "CoMoVi_PoseFromLatent", pose),
        Node(f"motion{suffix}", "CoMoVi_PlaceMotion", placed),
    ]


def save_motion(motion: Out, prefix: str, kind: str = "comovi") -> Node:
    given = {"motion": motion, "body": Out("body", "body"), "filename_prefix": prefix, "format": kind}
    return Node("save_motion", "CoMoVi_SaveMotion", given)

"""The shipped workflows for the released weights: Wan2.2's text encoder and VAE, 704 x 1280, 81 frames."""

from __future__ import annotations

from dataclasses import replace

from workflow_parts import (
    ACTION,
    BLUE,
    FULL_SIZE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    WAN_NEGATIVE,
    Flow,
    Group,
    Node,
    Out,
    full_models,
    look_3d,
    save_video,
)

LENGTH = 81


def sentence(text: str) -> list[Node]:
    clip = Out("clip", "CLIP")
    return [
        Node(
            "positive",
            "CLIPTextEncode",
            {"clip": clip, "text": text},
            title="What shall happen?",
            width=360,
            height=160,
            colour=ACTION,
        ),
        Node(
            "negative",
            "CLIPTextEncode",
            {"clip": clip, "text": WAN_NEGATIVE},
            title="Negative (Wan's own)",
            width=360,
            height=130,
        ),
    ]


def picture() -> list[Node]:
    return [
        Node(
            "picture",
            "LoadImage",
            {"image": "example.png"},
            title="The picture to start from",
            height=330,
            colour=ACTION,
        ),
        Node(
            "first_frame",
            "ImageScale",
            {"image": Out("picture", "IMAGE"), "upscale_method": "lanczos", **FULL_SIZE, "crop": "center"},
            title="Cut to the size of the video",
        ),
    ]


def start_pose() -> list[Node]:
    return [
        Node(
            "start", "CoMoVi_StartPose", {"body": Out("body", "body"), "pose": "standing", **FULL_SIZE}, colour=ACTION
        ),
        Node(
            "first_map",
            "CoMoVi_DrawMotionMap",
            {"motion": Out("start", "start_pose"), "body": Out("body", "body")},
            title="First motion map",
        ),
    ]


def check_start() -> list[Node]:
    overlay = {
        "images": Out("first_frame", "IMAGE"),
        "motion": Out("start", "start_pose"),
        "body": Out("body", "body"),
        "style": "parts",
        "opacity": 0.6,
    }
    return [
        Node("overlay", "CoMoVi_OverlayMotion", overlay, title="Body over picture"),
        Node(
            "see",
            "PreviewImage",
            {"images": Out("overlay", "images")},
            title="Does the body fit the person?",
            height=400,
        ),
    ]


def conditioning(with_frame: bool = True) -> Node:
    given = {
        "positive": Out("positive", "CONDITIONING"),
        "negative": Out("negative", "CONDITIONING"),
        "vae": Out("vae", "VAE"),
        "first_map": Out("first_map", "motion_map"),
    }
    if with_frame:
        given["first_frame"] = Out("first_frame", "IMAGE")
    return Node("conditioning", "CoMoVi_Conditioning", {**given, **FULL_SIZE, "length": LENGTH})


def official_sampling(steps: int = 50, model: Out | None = None) -> list[list[Node]]:
    """The released pipeline's sampler, its shift 5 and its guidance 6."""
    guider = {
        "model": model or Out("model", "MODEL"),
        "positive": Out("conditioning", "positive"),
        "negative": Out("conditioning", "negative"),
        "cfg": 6.0,
    }
    sample = {
        "noise": Out("noise", "NOISE"),
        "guider": Out("guider", "GUIDER"),
        "sampler": Out("official", "sampler"),
        "sigmas": Out("official", "sigmas"),
        "latent_image": Out("conditioning", "latent"),
    }
    return [
        [
            Node(
                "noise", "RandomNoise", {"noise_seed": 42}, widgets={"control_after_generate": "randomize"}, width=280
            ),
            Node("official", "CoMoVi_OfficialSampling", {"steps": steps}, width=280),
            Node("guider", "CFGGuider", guider, width=280),
        ],
        [
            Node("sample", "SamplerCustomAdvanced", sample, width=280, height=400),
            Node("split", "CoMoVi_SplitLatent", {"latent": Out("sample", "output")}, width=280),
        ],
    ]


def decode(key: str, half: str, title: str, tiled: bool) -> Node:
    given = {"samples": Out("split", half), "vae": Out("vae", "VAE")}
    if not tiled:
        return Node(key, "VAEDecode", given, title=title)
    return Node(
        key,
        "VAEDecodeTiled",
        {**given, "tile_size": 256, "overlap": 64, "temporal_size": 32, "temporal_overlap": 8},
        title=title,
    )


def recover_motion(prefix: str, kind: str) -> list[list[Node]]:
    fit = {
        "motion_map": Out("map", "IMAGE"),
        "start_pose": Out("start", "start_pose"),
        "body": Out("body", "body"),
        "fps": 16.0,
    }
    saved = {"motion": Out("motion", "motion"), "body": Out("body", "body"), "filename_prefix": prefix, "format": kind}
    return [
        [Node("motion", "CoMoVi_MotionFromMap", fit), Node("save_motion", "CoMoVi_SaveMotion", saved)],
        [Node("report", "PreviewAny", {"source": Out("motion", "report")}, title="How well it was read", height=240)],
    ]


def image_to_video(
    name: str, title: str, models: Group, steps: int = 50, tiled: bool = False, cache: bool = False
) -> Flow:
    prefix = f"comovi/{name}"
    speed = [
        Node(
            "cache",
            "EasyCache",
            {"model": Out("model", "MODEL"), "reuse_threshold": 0.2},
            width=360,
            title="EasyCache: skips steps that change little",
        )
    ]
    if cache:
        models = replace(models, stacks=[[*models.stacks[0], *speed]])
    walk = "a woman walks forward, lifts her right hand and waves at the camera, steady camera, natural light"
    return Flow(
        name,
        title,
        [
            [models, Group("1  The sentence", ORANGE, [sentence(walk)])],
            [
                Group(
                    "2  The start: a picture and its motion map",
                    GREEN,
                    [picture(), start_pose(), check_start()],
                ),
                Group(
                    "3  Sample both halves together, as released",
                    PURPLE,
                    [
                        [conditioning()],
                        *official_sampling(steps, Out("cache", "MODEL") if cache else None),
                    ],
                ),
            ],
            [
                Group(
                    "4  Video and motion map",
                    GREY,
                    [
                        [
                            decode("frames", "video", "Decode video", tiled),
                            *save_video("video", Out("frames", "IMAGE"), prefix + "_video", "Video"),
                        ],
                        [
                            decode("map", "motion_map", "Decode motion map", tiled),
                            *save_video("map_clip", Out("map", "IMAGE"), prefix + "_map", "Motion map"),
                        ],
                    ],
                ),
                Group("5  The motion, read off the map", BLUE, recover_motion(prefix + "_motion", "comovi")),
            ],
            [Group("6  In 3D", GREEN, [look_3d(Out("motion", "motion"), prefix + "_body")])],
        ],
        note_height=720,
    )


IMAGE_TO_VIDEO = image_to_video(
    "image_to_video_and_motion",
    "Image to video and motion",
    full_models(),
)

LOW_VRAM = image_to_video(
    "image_to_video_low_vram",
    "Image to video and motion, low VRAM",
    full_models(weight_dtype="fp8_e4m3fn", clip_device="cpu"),
    steps=30,
    tiled=True,
    cache=True,
)

MOTION_ONLY = Flow(
    "motion_only",
    "Motion only",
    [
        [
            full_models(branches="motion only"),
            Group("1  The sentence", ORANGE, [sentence("a man walks forward, stops and bows")]),
        ],
        [
            Group(
                "2  The pose to start from",
                GREEN,
                [
                    start_pose(),
                    [
                        Node(
                            "see",
                            "PreviewImage",
                            {"images": Out("first_map", "motion_map")},
                            title="First motion map",
                            height=400,
                        )
                    ],
                ],
            ),
            Group("3  Sample the motion half", PURPLE, [[conditioning(with_frame=False)], *official_sampling()]),
        ],
        [
            Group(
                "4  Motion map",
                GREY,
                [
                    [
                        decode("map", "motion_map", "Decode motion map", False),
                        *save_video("map_clip", Out("map", "IMAGE"), "comovi/motion_only_map", "Motion map"),
                    ],
                ],
            ),
            Group("5  The motion, read off the map", BLUE, recover_motion("comovi/motion_only", "bvh")),
        ],
        [Group("6  In 3D", GREEN, [look_3d(Out("motion", "motion"), "comovi/motion_only_body")])],
    ],
    note_height=700,
)

FULL_FLOWS = [IMAGE_TO_VIDEO, LOW_VRAM, MOTION_ONLY]

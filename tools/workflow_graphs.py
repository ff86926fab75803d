"""The shipped workflows that run on the embedded nano model."""

from __future__ import annotations

from workflow_full import FULL_FLOWS
from workflow_parts import (
    ACTION,
    BLUE,
    GREEN,
    GREY,
    NANO_SIZE,
    ORANGE,
    PURPLE,
    Flow,
    Group,
    Node,
    Out,
    look_3d,
    nano_models,
    save_video,
)

LENGTH = 33
WALKER = "a woman in a yellow shirt and black trousers walks forward"
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


def first_of(key: str, frames: Out, title: str) -> Node:
    return Node(key, "ImageFromBatch", {"image": frames, "batch_index": 0, "length": 1}, title=title)


def give_half(half: str, frames: Out, key: str = "give", source: str = "conditioning") -> Node:
    given = {
        "positive": Out(source, "positive"),
        "negative": Out(source, "negative"),
        "latent": Out(source, "latent"),
        "vae": Out("nano", "VAE"),
        "frames": frames,
    }
    return Node(key, "CoMoVi_GiveHalf", {**given, "half": half, "manner": "clean"})


def conditioning(key: str = "conditioning", frame: Out | None = None, first_map: Out | None = None) -> Node:
    given = {
        "positive": Out("positive", "CONDITIONING"),
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


def read_motion(suffix: str = "", sample: str = "sample", start: Out | None = None) -> list[Node]:
    """The pose head, then the path that the map shows."""
    pose = {
        "model": Out("model", "MODEL"),
        "positive": Out("positive", "CONDITIONING"),
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


QUICK_START = Flow(
    "quick_start_nano",
    "Quick start",
    [
        [nano_models(), Group("1  The sentence", ORANGE, [sentence()])],
        [
            Group("2  The start: a person and their motion map", GREEN, [nano_start(3), previews()]),
            Group("3  Sample both halves together", PURPLE, [[conditioning(), *split_and_decode()], [sampler()]]),
        ],
        [
            Group(
                "4  Video and motion map",
                GREY,
                [
                    save_video("video", Out("frames", "IMAGE"), "comovi/quick_start_video", "Video"),
                    save_video("map_clip", Out("map", "IMAGE"), "comovi/quick_start_map", "Motion map"),
                ],
            ),
            Group(
                "5  The motion of the body",
                BLUE,
                [read_motion(), [save_motion(Out("motion", "motion"), "comovi/quick_start_motion")]],
            ),
        ],
        [Group("6  In 3D", GREEN, [look_3d(Out("motion", "motion"), "comovi/quick_start_body")])],
    ],
)

DRIVE = Flow(
    "drive_video_with_my_motion",
    "Drive a video with my motion",
    [
        [nano_models(), Group("1  The sentence", ORANGE, [sentence(WALKER)])],
        [
            Group(
                "2  My motion, and the person who will move so",
                GREEN,
                [
                    [
                        Node(
                            "mine",
                            "CoMoVi_LoadMotion",
                            {"file": "walk (example)", "body": Out("body", "body")},
                            title="My motion: BVH, AMASS, GLB, an earlier result ...",
                            colour=ACTION,
                        ),
                        Node(
                            "info", "PreviewAny", {"source": Out("mine", "info")}, title="What the file is", height=200
                        ),
                    ],
                    [
                        nano_start(5)[0],
                        Node(
                            "placed",
                            "CoMoVi_SetCamera",
                            {
                                "motion": Out("mine", "motion"),
                                "body": Out("body", "body"),
                                "start_pose": Out("start", "start_pose"),
                                **NANO_SIZE,
                            },
                            title="Begin where that person stands",
                        ),
                    ],
                    [
                        Node(
                            "see_frame",
                            "PreviewImage",
                            {"images": Out("start", "first_frame")},
                            title="First frame",
                            width=260,
                            height=330,
                        ),
                    ],
                ],
            ),
            Group(
                "3  The motion map is given, the video is sampled",
                PURPLE,
                [
                    [
                        draw_map("my_map", Out("placed", "motion"), "My motion as a motion map"),
                        first_of("first_map", Out("my_map", "motion_map"), "Its first frame"),
                    ],
                    [
                        conditioning(first_map=Out("first_map", "IMAGE")),
                        give_half("motion map", Out("my_map", "motion_map")),
                    ],
                    [sampler(source="give"), *split_and_decode()[:2]],
                ],
            ),
        ],
        [
            Group(
                "4  The video, and the motion map that drove it",
                GREY,
                [
                    save_video("video", Out("frames", "IMAGE"), "comovi/driven_video", "Video"),
                    save_video("map_clip", Out("my_map", "motion_map"), "comovi/driven_map", "Motion map"),
                ],
            ),
        ],
        [Group("5  In 3D", GREEN, [look_3d(Out("placed", "motion"), "comovi/driven_body")])],
    ],
)

VIDEO_TO_MOTION = Flow(
    "video_to_motion",
    "Video to motion",
    [
        [nano_models(), Group("1  The sentence", ORANGE, [sentence("a man in a green shirt and black trousers bows")])],
        [
            Group("2  The start: a person and their motion map", GREEN, [nano_start(11), previews()]),
            Group(
                "3  A clip to read",
                GREY,
                [
                    [conditioning(), sampler(seed=3)],
                    [
                        Node("split", "CoMoVi_SplitLatent", {"latent": Out("sample", "LATENT")}),
                        Node("clip", "VAEDecode", {"samples": Out("split", "video"), "vae": Out("nano", "VAE")}),
                        *save_video("clip", Out("clip", "IMAGE"), "comovi/clip_to_read", "The clip"),
                    ],
                ],
            ),
        ],
        [
            Group(
                "4  The video is given, its motion is sampled",
                PURPLE,
                [
                    [give_half("video", Out("clip", "IMAGE")), sampler("read", "give", seed=1)],
                    split_and_decode("_read", "read")[::2],
                ],
            ),
            Group(
                "5  The motion of the body",
                BLUE,
                [
                    read_motion("_read", "read"),
                    [save_motion(Out("motion_read", "motion"), "comovi/motion_of_video", "bvh")],
                ],
            ),
        ],
        [
            Group(
                "6  The body over the video",
                GREY,
                [
                    [
                        Node(
                            "overlay",
                            "CoMoVi_OverlayMotion",
                            {
                                "images": Out("clip", "IMAGE"),
                                "motion": Out("motion_read", "motion"),
                                "body": Out("body", "body"),
                            },
                        ),
                        *save_video("overlay", Out("overlay", "images"), "comovi/motion_over_video", "Body over video"),
                    ],
                    save_video("map_clip", Out("map_read", "IMAGE"), "comovi/map_of_video", "Motion map"),
                ],
            ),
        ],
        [Group("7  In 3D", GREEN, [look_3d(Out("motion_read", "motion"), "comovi/body_of_video")])],
    ],
)

MAP_TO_BVH = Flow(
    "map_to_bvh",
    "Motion map to BVH",
    [
        [
            nano_models(),
            Group(
                "1  The sentence",
                ORANGE,
                [sentence("a man in a green shirt and blue trousers kicks with the left leg")],
            ),
        ],
        [
            Group("2  The start: a person and their motion map", GREEN, [nano_start(8), previews()]),
            Group(
                "3  A generated motion map (or your own)",
                PURPLE,
                [[conditioning(), split_and_decode()[0], split_and_decode()[2]], [sampler()]],
            ),
        ],
        [
            Group(
                "4  The body is fitted to every frame of the map",
                BLUE,
                [
                    [
                        Node(
                            "motion",
                            "CoMoVi_MotionFromMap",
                            {
                                "motion_map": Out("map", "IMAGE"),
                                "start_pose": Out("start", "start_pose"),
                                "body": Out("body", "body"),
                                "fps": 16.0,
                            },
                        ),
                        save_motion(Out("motion", "motion"), "comovi/motion_of_map", "bvh"),
                    ],
                    [
                        Node(
                            "report",
                            "PreviewAny",
                            {"source": Out("motion", "report")},
                            title="How well it was read",
                            height=320,
                        )
                    ],
                ],
            ),
            Group(
                "5  The fitted body over the map",
                GREY,
                [
                    save_video("map_clip", Out("map", "IMAGE"), "comovi/generated_map", "Motion map"),
                    [
                        Node(
                            "overlay",
                            "CoMoVi_OverlayMotion",
                            {
                                "images": Out("map", "IMAGE"),
                                "motion": Out("motion", "motion"),
                                "body": Out("body", "body"),
                                "style": "wireframe",
                            },
                            width=280,
                        ),
                        *save_video("overlay", Out("overlay", "images"), "comovi/body_over_map", "Body over map"),
                    ],
                ],
            ),
        ],
        [Group("6  In 3D", GREEN, [look_3d(Out("motion", "motion"), "comovi/body_of_map")])],
    ],
)

FLOWS = [QUICK_START, DRIVE, VIDEO_TO_MOTION, MAP_TO_BVH, *FULL_FLOWS]

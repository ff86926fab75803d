"""The shipped workflows: those that make clips with the embedded nano model, and the list of all."""

from __future__ import annotations

from workflow_estimate import PHOTO_TO_POSE
from workflow_full import FULL_FLOWS
from workflow_motion import DRIVE, MAP_TO_BVH, MOCAP
from workflow_nano import (
    LENGTH,
    conditioning,
    draw_map,
    give_half,
    nano_start,
    previews,
    read_motion,
    sampler,
    save_motion,
    sentence,
    some_frames,
    split_and_decode,
)
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

VIDEO_TO_MOTION = Flow(
    "video_to_motion",
    "Video to motion",
    [
        [
            nano_models(),
            Group(
                "1  The sentence",
                ORANGE,
                [sentence("a man in a green shirt and black trousers waves with the right hand")],
            ),
        ],
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

LAST = LENGTH - 1
JOIN = Node(
    "joined",
    "CoMoVi_JoinMotions",
    {
        "first": Out("motion", "motion"),
        "second": Out("motion_2", "motion"),
        "body": Out("body", "body"),
        "blend": 0.0,
        "manner": "overlap",
        "align": False,
    },
)
LONGER = Flow(
    "longer_than_81_frames",
    "Longer than 81 frames",
    [
        [
            nano_models(),
            Group(
                "1  First sentence",
                ORANGE,
                [sentence("a woman in a red shirt and black trousers jumps up")],
            ),
            Group(
                "2  Second sentence",
                ORANGE,
                [
                    [
                        Node(
                            "positive_2",
                            "CLIPTextEncode",
                            {
                                "clip": Out("nano", "CLIP"),
                                "text": "a woman in a red shirt and black trousers raises both arms",
                            },
                            title="And then?",
                            width=360,
                            height=130,
                            colour=ACTION,
                        )
                    ]
                ],
            ),
        ],
        [
            Group("3  The start: a person and their motion map", GREEN, [nano_start(21), previews()]),
            Group(
                "4  First clip",
                PURPLE,
                [[conditioning(), *split_and_decode(), *read_motion()], [sampler(seed=4)]],
            ),
        ],
        [
            Group(
                "5  The second clip starts where the first one ends: last frame, last pose",
                GREEN,
                [
                    [
                        some_frames("last_frame", Out("frames", "IMAGE"), "Last frame", LAST),
                        Node(
                            "start_2",
                            "CoMoVi_StartPose",
                            {
                                "body": Out("body", "body"),
                                "pose": "from motion",
                                **NANO_SIZE,
                                "motion": Out("motion", "motion"),
                                "frame_index": -1,
                            },
                            title="Last pose",
                        ),
                    ],
                    [
                        draw_map("first_map_2", Out("start_2", "start_pose"), "Its motion map"),
                        Node(
                            "see_2", "PreviewImage", {"images": Out("first_map_2", "motion_map")}, width=260, height=330
                        ),
                    ],
                ],
            ),
            Group(
                "6  Second clip",
                PURPLE,
                [
                    [
                        conditioning(
                            "conditioning_2", Out("last_frame", "IMAGE"), Out("first_map_2", "motion_map"), "positive_2"
                        ),
                        *split_and_decode("_2", "sample_2"),
                        *read_motion("_2", "sample_2", Out("start_2", "start_pose"), "positive_2"),
                    ],
                    [sampler("sample_2", "conditioning_2", seed=5)],
                ],
            ),
        ],
        [
            Group(
                "7  Both clips in one",
                GREY,
                [
                    [
                        Node(
                            "long",
                            "CoMoVi_JoinClips",
                            {"first": Out("frames", "IMAGE"), "second": Out("frames_2", "IMAGE")},
                        ),
                        *save_video("video", Out("long", "images"), "comovi/longer_video", "Video"),
                    ],
                    [
                        Node(
                            "long_map",
                            "CoMoVi_JoinClips",
                            {"first": Out("map", "IMAGE"), "second": Out("map_2", "IMAGE")},
                        ),
                        *save_video("map_clip", Out("long_map", "images"), "comovi/longer_map", "Motion map"),
                    ],
                ],
            ),
            Group("8  One motion", BLUE, [[JOIN, save_motion(Out("joined", "motion"), "comovi/longer_motion")]]),
        ],
        [Group("9  In 3D", GREEN, [look_3d(Out("joined", "motion"), "comovi/longer_body")])],
    ],
)

FLOWS = [QUICK_START, PHOTO_TO_POSE, DRIVE, VIDEO_TO_MOTION, LONGER, MOCAP, MAP_TO_BVH, *FULL_FLOWS]

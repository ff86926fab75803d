"""The shipped workflows that begin or end with a motion: driving a video, mocap files, motion maps."""

from __future__ import annotations

from workflow_nano import (
    LENGTH,
    WAVING,
    conditioning,
    draw_map,
    give_half,
    nano_start,
    previews,
    sampler,
    save_motion,
    sentence,
    some_frames,
    split_and_decode,
)
from workflow_parts import (
    ACTION,
    BLUE,
    FULL_SIZE,
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

DRIVE = Flow(
    "drive_video_with_my_motion",
    "Drive a video with my motion",
    [
        [nano_models(), Group("1  The sentence", ORANGE, [sentence(WAVING)])],
        [
            Group(
                "2  My motion, and the person who will move so",
                GREEN,
                [
                    [
                        Node(
                            "mine",
                            "CoMoVi_LoadMotion",
                            {"file": "wave (example)", "body": Out("body", "body")},
                            title="My motion: BVH, AMASS, GLB, an earlier result ...",
                            colour=ACTION,
                        ),
                        Node(
                            "info", "PreviewAny", {"source": Out("mine", "info")}, title="What the file is", height=200
                        ),
                    ],
                    [
                        Node("at_16", "CoMoVi_ResampleMotion", {"motion": Out("mine", "motion"), "fps": 16.0}),
                        Node("held", "CoMoVi_HoldPose", {"motion": Out("at_16", "motion"), "after": LENGTH - 1}),
                        Node("cut", "CoMoVi_TrimMotion", {"motion": Out("held", "motion"), "length": LENGTH}),
                    ],
                    [
                        nano_start(5)[0],
                        Node(
                            "placed",
                            "CoMoVi_SetCamera",
                            {
                                "motion": Out("cut", "motion"),
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
                        some_frames("first_map", Out("my_map", "motion_map"), "Its first frame"),
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

MAP_TO_BVH = Flow(
    "map_to_bvh",
    "Motion map to BVH",
    [
        [
            nano_models(),
            Group(
                "1  The sentence",
                ORANGE,
                [sentence("a man in a green shirt and blue trousers points to the left")],
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

MOCAP = Flow(
    "mocap_to_motion_map",
    "Mocap to motion map",
    [
        [
            Group(
                "1  The motion file",
                ORANGE,
                [
                    [
                        Node("body", "CoMoVi_LoadBody", {"body": "mannequin (embedded)"}, width=360),
                        Node(
                            "mine",
                            "CoMoVi_LoadMotion",
                            {"file": "walk (example)", "body": Out("body", "body")},
                            width=360,
                            colour=ACTION,
                        ),
                        Node(
                            "info",
                            "PreviewAny",
                            {"source": Out("mine", "info")},
                            title="What the file is",
                            width=360,
                            height=200,
                        ),
                    ],
                ],
            ),
        ],
        [
            Group(
                "2  Mend it, and bring it to 16 frames a second",
                BLUE,
                [
                    [
                        Node(
                            "clean",
                            "CoMoVi_CleanMotion",
                            {"motion": Out("mine", "motion"), "body": Out("body", "body")},
                        ),
                        Node("at_16", "CoMoVi_ResampleMotion", {"motion": Out("clean", "motion"), "fps": 16.0}),
                    ],
                    [
                        Node(
                            "report",
                            "PreviewAny",
                            {"source": Out("clean", "report")},
                            title="What was mended",
                            height=300,
                        )
                    ],
                ],
            ),
            Group(
                "3  Before a camera, as a motion map",
                PURPLE,
                [
                    [
                        Node(
                            "placed",
                            "CoMoVi_SetCamera",
                            {"motion": Out("at_16", "motion"), "body": Out("body", "body"), **FULL_SIZE, "turn": 25.0},
                        )
                    ],
                    [
                        Node(
                            "map",
                            "CoMoVi_DrawMotionMap",
                            {"motion": Out("placed", "motion"), "body": Out("body", "body")},
                        ),
                        save_motion(Out("at_16", "motion"), "comovi/mocap_motion", "amass"),
                    ],
                ],
            ),
        ],
        [
            Group(
                "4  Motion map",
                GREY,
                [save_video("map_clip", Out("map", "motion_map"), "comovi/mocap_map", "Motion map")],
            )
        ],
        [Group("5  In 3D", GREEN, [look_3d(Out("at_16", "motion"), "comovi/mocap_body")])],
    ],
)

"""The shipped workflows that estimate bodies: from a photo to its pose, motion map and overlay."""

from __future__ import annotations

from workflow_nano import save_motion
from workflow_parts import ACTION, BLUE, GREEN, GREY, ORANGE, PURPLE, Flow, Group, Node, Out

PHOTO = Out("photo", "image")

PHOTO_TO_POSE = Flow(
    "photo_to_pose",
    "Photo to pose, motion map and overlay",
    [
        [
            Group(
                "1  The photo",
                ORANGE,
                [
                    [
                        Node(
                            "photo",
                            "CoMoVi_LoadPhoto",
                            {"photo": "arms raised (example)", "person": 4},
                            title="Your photo here",
                            width=360,
                            colour=ACTION,
                        ),
                        Node("body", "CoMoVi_LoadBody", {"body": "mannequin (embedded)"}, width=360),
                    ]
                ],
            ),
        ],
        [
            Group(
                "2  Who is in it",
                BLUE,
                [
                    [
                        Node("people", "CoMoVi_FindPeople", {"images": PHOTO, "who": "all"}, width=320),
                        Node(
                            "see_people",
                            "PreviewImage",
                            {"images": Out("people", "preview")},
                            title="Boxes and keypoints",
                            width=320,
                            height=520,
                        ),
                    ]
                ],
            ),
        ],
        [
            Group(
                "3  The body of the largest person",
                PURPLE,
                [
                    [
                        Node(
                            "pose",
                            "CoMoVi_EstimatePose",
                            {
                                "image": PHOTO,
                                "body": Out("body", "body"),
                                "who": "largest",
                                "people": Out("people", "people"),
                                "focal_px": Out("photo", "focal_px"),
                            },
                            width=340,
                        ),
                        Node(
                            "report",
                            "PreviewAny",
                            {"source": Out("pose", "report")},
                            title="By which way, how well",
                            width=340,
                            height=260,
                        ),
                    ],
                    [
                        Node(
                            "adjusted",
                            "CoMoVi_AdjustPose",
                            {
                                "motion": Out("pose", "motion"),
                                "body": Out("body", "body"),
                                "joint": "left elbow",
                                "image": PHOTO,
                            },
                            title="A joint by hand, where it is not right",
                            width=340,
                            height=700,
                        ),
                    ],
                ],
            ),
        ],
        [
            Group(
                "4  What a clip starts from",
                GREEN,
                [
                    [
                        Node(
                            "map",
                            "CoMoVi_DrawMotionMap",
                            {"motion": Out("adjusted", "motion"), "body": Out("body", "body")},
                            width=320,
                        ),
                        Node(
                            "save_map",
                            "SaveImage",
                            {"images": Out("map", "motion_map"), "filename_prefix": "comovi/photo_map"},
                            title="The motion map",
                            width=320,
                            height=520,
                        ),
                        save_motion(Out("adjusted", "motion"), "comovi/photo_pose"),
                    ]
                ],
            ),
        ],
        [
            Group(
                "5  The body over the photo",
                GREY,
                [
                    [
                        Node(
                            "overlay",
                            "CoMoVi_OverlayMotion",
                            {"images": PHOTO, "motion": Out("adjusted", "motion"), "body": Out("body", "body")},
                            width=320,
                        ),
                        Node(
                            "save_overlay",
                            "SaveImage",
                            {"images": Out("overlay", "images"), "filename_prefix": "comovi/photo_overlay"},
                            title="Does it sit on the person?",
                            width=320,
                            height=520,
                        ),
                    ]
                ],
            ),
        ],
    ],
)

"""Everyday poses as angles in degrees, for lifter_poses.py: what people do with their legs, arms and trunk.

The left form; the right one is its mirror image. Angles that are not written are 0 (elbows 5). "training" is what the
lifter learns from, "evaluation" what it is measured on: no pose stands in both. "practice" is learned from, too.
"""

from __future__ import annotations

Pose = dict[str, float]
Legs = dict[str, Pose]  # "trunk": how the pelvis leans; "left", and "right" where it differs

LEGS: dict[str, dict[str, Legs]] = {
    "training": {
        "stand": {"left": {"knee": 3}},
        "relaxed": {"trunk": {"tilt": 4}, "left": {"abduct": 2}, "right": {"flex": 12, "knee": 22, "abduct": 8}},
        "wide": {"left": {"abduct": 22}},
        "stride": {"left": {"flex": 28, "knee": 8}, "right": {"flex": -16, "knee": 20, "ankle": 14, "toe": -15}},
        "run": {
            "trunk": {"pitch": 10},
            "left": {"flex": 75, "knee": 90},
            "right": {"flex": -12, "knee": 40, "ankle": 22},
        },
        "chair": {"left": {"flex": 88, "knee": 88, "abduct": 5}},
        "chair, legs crossed": {"left": {"flex": 92, "knee": 80}, "right": {"flex": 100, "abduct": -13, "knee": 72}},
        "stool": {"left": {"flex": 62, "knee": 65, "abduct": 12}},
        "floor, legs straight": {"trunk": {"pitch": -6}, "left": {"flex": 84, "knee": 8}},
        "floor, legs folded": {"left": {"flex": 96, "abduct": 44, "twist": 38, "knee": 122}},
        "deep squat": {"trunk": {"pitch": 25}, "left": {"flex": 120, "abduct": 18, "knee": 128, "ankle": -24}},
        "half squat": {"trunk": {"pitch": 22}, "left": {"flex": 62, "knee": 72, "ankle": -22}},
        "on both knees": {"left": {"knee": 92, "ankle": 42}},
        "on the heels": {"trunk": {"pitch": 8}, "left": {"flex": 92, "knee": 142, "ankle": 44}},
        "on one knee": {"left": {"flex": 86, "knee": 88}, "right": {"knee": 90, "ankle": 42}},
        "lunge": {"left": {"flex": 85, "knee": 86}, "right": {"flex": -18, "knee": 26, "ankle": -20, "toe": -25}},
        "knee up": {"left": {"flex": 96, "knee": 100}, "right": {"knee": 4}},
        "kick": {"trunk": {"pitch": -10}, "left": {"flex": 84, "knee": 10}, "right": {"flex": -6, "knee": 8}},
        "bow": {"trunk": {"pitch": 42, "bend": 32}, "left": {"flex": 44, "knee": 4}},
        "on the back": {"trunk": {"pitch": -88}, "left": {"flex": 4, "knee": 6}},
        "on the back, knees up": {"trunk": {"pitch": -86}, "left": {"flex": 48, "knee": 88}},
        "on the side": {"trunk": {"tilt": 86}, "left": {"flex": 55, "knee": 72}},
        "on all fours": {"trunk": {"pitch": 82}, "left": {"flex": 88, "knee": 90, "ankle": 40}},
        "one step up": {"left": {"flex": 70, "knee": 72}, "right": {"flex": 8, "knee": 12}},
    },
    "practice": {
        "astride": {"left": {"abduct": 14, "knee": 6}, "right": {"abduct": 18, "flex": 10, "knee": 24}},
        "marching": {"left": {"flex": 74, "knee": 76, "ankle": 12}, "right": {"flex": -3, "knee": 2}},
        "perching": {"trunk": {"pitch": 6}, "left": {"flex": 74, "knee": 52}, "right": {"flex": 66, "knee": 96}},
        "on the ground": {"left": {"flex": 82, "knee": 6}, "right": {"flex": 104, "abduct": 20, "knee": 116}},
        "crouching to look": {"trunk": {"pitch": 32}, "left": {"flex": 98, "knee": 106, "ankle": -18}},
        "stepping back": {"left": {"flex": -20, "knee": 14, "ankle": 12}, "right": {"flex": 18, "knee": 16}},
        "sprawling": {"trunk": {"pitch": -80}, "left": {"abduct": 24, "knee": 10}, "right": {"flex": 34, "knee": 64}},
        "skating": {
            "trunk": {"pitch": 28},
            "left": {"flex": 56, "knee": 58},
            "right": {"flex": 4, "abduct": 28, "knee": 12},
        },
    },
    "evaluation": {
        "ankles crossed": {"left": {"abduct": -12, "flex": 8, "knee": 8}, "right": {"abduct": -6, "knee": 2}},
        "step aside": {"left": {"abduct": 32, "knee": 5}, "right": {"abduct": 6, "flex": 24, "knee": 34, "ankle": -12}},
        "stairs": {"left": {"flex": 54, "knee": 62}, "right": {"flex": -10, "knee": 12, "ankle": 20}},
        "elbows on knees": {"trunk": {"pitch": 18, "bend": 26}, "left": {"flex": 104, "knee": 84, "abduct": 14}},
        "ankle on knee": {
            "left": {"flex": 86, "abduct": 34, "twist": 38, "knee": 100},
            "right": {"flex": 88, "knee": 86},
        },
        "floor, knees up": {"trunk": {"pitch": -12}, "left": {"flex": 118, "knee": 112, "abduct": 6}},
        "sitting sideways": {
            "left": {"flex": 80, "abduct": 30, "twist": 38, "knee": 115},
            "right": {"flex": 84, "abduct": -5, "twist": -34, "knee": 118},
        },
        "sprint start": {
            "trunk": {"pitch": 50},
            "left": {"flex": 106, "knee": 94},
            "right": {"flex": 70, "knee": 98, "ankle": 18},
        },
        "fencer": {
            "left": {"flex": 78, "abduct": 16, "twist": 10, "knee": 80},
            "right": {"flex": -12, "abduct": 26, "knee": 5},
        },
        "balance": {
            "trunk": {"pitch": 34},
            "left": {"flex": 32, "knee": 6},
            "right": {"flex": -22, "knee": 12, "ankle": 25},
        },
        "tree": {"left": {"flex": 48, "abduct": 48, "twist": 38, "knee": 124}, "right": {"knee": 2}},
        "skip": {"left": {"flex": 60, "knee": 96}, "right": {"flex": -8, "knee": 8, "ankle": 35}},
        "pick up": {"trunk": {"pitch": 54, "bend": 30}, "left": {"flex": 76, "knee": 46}},
        "on the side, straight": {"trunk": {"tilt": -86}, "left": {"flex": 15, "knee": 22}},
        "reclining": {"trunk": {"pitch": -50}, "left": {"flex": 44, "knee": 32}},
        "propped up": {"trunk": {"pitch": 80, "bend": -22}, "left": {"flex": -2, "knee": 10}},
    },
}  # fmt: skip

ARMS: dict[str, dict[str, Pose]] = {
    "training": {
        "hanging": {"abduct": 10, "forward": 15, "elbow": 14},
        "hanging behind": {"abduct": 14, "forward": -30, "elbow": 10},
        "on the hip": {"abduct": 44, "twist": 56, "elbow": 98, "forward": -5},
        "folded": {"abduct": 25, "forward": 60, "elbow": 102},
        "on the chest": {"abduct": 40, "forward": 75, "elbow": 122, "twist": 10},
        "at the ear": {"abduct": 46, "forward": 60, "elbow": 140, "twist": -60},
        "to the front": {"abduct": 86, "forward": 88, "elbow": 10},
        "to the side": {"abduct": 88, "elbow": 6},
        "up": {"abduct": 164, "forward": 10, "elbow": 10},
        "behind the head": {"abduct": 112, "forward": -10, "elbow": 136, "twist": -85},
        "waving": {"abduct": 96, "elbow": 86, "twist": -90},
        "behind the back": {"abduct": 18, "forward": -50, "elbow": 74, "twist": 80},
        "pointing down": {"abduct": 46, "forward": 86, "elbow": 8},
        "at a desk": {"abduct": 28, "forward": 70, "elbow": 86, "twist": -10},
        "carrying": {"abduct": 14, "forward": 30, "elbow": 92},
        "on guard": {"abduct": 30, "forward": 65, "elbow": 126, "twist": -30},
        "clapping": {"abduct": 62, "forward": 60, "elbow": 54},
        "on the lap": {"abduct": 28, "forward": 82, "elbow": 36},
        "bearing weight": {"abduct": 70, "forward": 62, "elbow": 68},
        "swung forward": {"abduct": 36, "forward": 88, "elbow": 20},
        "swung back": {"abduct": 30, "forward": -50, "elbow": 14},
    },
    "practice": {
        "at the belt": {"abduct": 22, "forward": 40, "elbow": 84, "twist": 12},
        "greeting": {"abduct": 74, "forward": 66, "elbow": 62, "twist": -50},
        "holding a strap": {"abduct": 138, "forward": 38, "elbow": 34},
        "rubbing the neck": {"abduct": 92, "forward": 40, "elbow": 142, "twist": -58},
        "balancing": {"abduct": 70, "forward": -14, "elbow": 16},
        "pushing": {"abduct": 74, "forward": 82, "elbow": 46, "twist": -22},
        "dangling": {"abduct": 6, "forward": 40, "elbow": 10},
        "reading": {"abduct": 18, "forward": 62, "elbow": 96, "pronate": 30},
    },
    "evaluation": {
        "in the pocket": {"abduct": 16, "forward": -20, "elbow": 40, "twist": 38},
        "at the chin": {"abduct": 20, "forward": 76, "elbow": 138, "twist": -15},
        "shading the eyes": {"abduct": 80, "forward": 45, "elbow": 130, "twist": -70},
        "holding a tray": {"abduct": 20, "forward": 45, "elbow": 110, "pronate": -40},
        "shrugging": {"lift": 20, "abduct": 25, "forward": 10, "elbow": 85, "twist": -5},
        "embracing": {"abduct": 78, "forward": 95, "elbow": 60},
        "pressing up": {"abduct": 130, "elbow": 70, "twist": -88},
        "talking": {"abduct": 64, "forward": 50, "elbow": 70, "twist": -45},
        "throwing": {"abduct": 100, "forward": -35, "elbow": 100, "twist": -80},
        "drawing a bow": {"abduct": 85, "forward": 20, "elbow": 130},
        "leaning on a wall": {"abduct": 100, "forward": 12, "elbow": 26},
        "reaching across": {"abduct": 70, "forward": 122, "elbow": 30},
        "holding a phone": {"abduct": 24, "forward": 72, "elbow": 114, "twist": -6},
        "propping behind": {"abduct": 30, "forward": -52, "elbow": 6},
        "swimming": {"abduct": 150, "forward": 32, "elbow": 40},
        "beside the trunk": {"abduct": 18, "forward": 4, "elbow": 24},
    },
}

TRUNKS: dict[str, dict[str, Pose]] = {
    "training": {
        "plain": {},
        "bent": {"bend": 34},
        "turned": {"turn": 30},
        "leaning aside": {"side": 22},
        "arched": {"bend": -18},
        "looking up": {"nod": -30},
        "looking down": {"nod": 32},
        "looking aside": {"shake": 50},
    },
    "practice": {
        "plain": {},
        "hunched": {"bend": 18, "nod": 10},
        "twisted": {"turn": -24, "shake": -20},
        "inclined": {"side": 14, "cock": 10},
    },
    "evaluation": {
        "plain": {},
        "slouching": {"bend": 24, "nod": 18},
        "turning to look": {"turn": 22, "shake": 34},
        "coy": {"side": 12, "cock": -16},
        "leaning to reach": {"side": -20, "turn": 12},
        "proud": {"bend": -12, "nod": -20},
    },
}

"""Actions of the synthetic clips on which the fit is measured and tuned, besides those of the nano model.

As in nano/actions.py each fills `Tracks` for its left-handed form. The two tables share nothing: what the fit is tuned
on moves in other ways than what it is measured on, but hides and crosses its limbs as much.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..comovi_model.nano.actions import Timing
from ..comovi_model.nano.skeleton import Arm, Tracks


def hold(arm: Arm, weight: np.ndarray, **degrees: float | np.ndarray) -> None:
    """Blends an arm to angles in degrees."""
    for name, value in degrees.items():
        setattr(arm, name, getattr(arm, name) + weight * (np.radians(value) - getattr(arm, name)))


def dance(tracks: Tracks, t: Timing) -> None:
    beat = 2 * np.pi * 1.2 * t.tau
    tracks["drop"] = 0.05 - 0.05 * np.cos(2 * beat)
    tracks["pelvis_x"], tracks["pelvis_roll"] = 0.08 * np.sin(beat), np.radians(6) * np.sin(beat)
    tracks["spine_yaw"], tracks["spine_roll"] = np.radians(25) * np.sin(beat), np.radians(-8) * np.sin(beat)
    hold(
        tracks.left_arm,
        t.ease(0, 0.4),
        abduct=80 + 40 * np.sin(beat),
        forward=30,
        elbow=60 + 40 * np.cos(beat),
        twist=-60,
    )
    hold(
        tracks.right_arm,
        t.ease(0, 0.4),
        abduct=80 - 40 * np.sin(beat),
        forward=40,
        elbow=60 - 40 * np.cos(beat),
        twist=-60,
    )


def run_on_the_spot(tracks: Tracks, t: Timing) -> None:
    beat = 2 * np.pi * 1.4 * t.tau
    lift = t.ease(0, 0.3)
    for foot, arm, sign in ((tracks.left_foot, tracks.right_arm, 1.0), (tracks.right_foot, tracks.left_arm, -1.0)):
        foot.y = foot.y + 0.35 * lift * np.clip(sign * np.sin(beat), 0, None)
        foot.z = foot.z - 0.15 * lift * np.clip(sign * np.sin(beat), 0, None)
        hold(arm, lift, abduct=25 + 25 * sign * np.sin(beat), forward=85, elbow=95, twist=-10)
    tracks["air"], tracks["spine_pitch"] = 0.03 * lift * np.cos(2 * beat) ** 2, np.radians(10) * lift


def hug(tracks: Tracks, t: Timing) -> None:
    """Arms wide, then crossed before the chest: each arm hides the other and the trunk."""
    wide, closed = t.pulse((0.0, 0.4), (0.5, 0.9)), t.pulse((0.5, 0.9), (1.5, 2.0))
    for arm, height in ((tracks.left_arm, 78), (tracks.right_arm, 66)):
        hold(arm, wide, abduct=85, forward=10, elbow=15)
        hold(arm, closed, abduct=height, forward=95, elbow=100)
    tracks["spine_pitch"] = np.radians(10) * closed


def hands_behind(tracks: Tracks, t: Timing) -> None:
    back = t.pulse((0.1, 0.7), (1.4, 1.9))
    for arm in (tracks.left_arm, tracks.right_arm):
        hold(arm, back, abduct=28, forward=-50, elbow=70, twist=100)
    tracks["head_yaw"], tracks["spine_yaw"] = np.radians(35) * np.sin(2.2 * t.tau), np.radians(15) * np.sin(1.5 * t.tau)


def lunge(tracks: Tracks, t: Timing) -> None:
    out = t.pulse((0.05, 0.7), (1.1, 1.8))
    tracks.left_foot.z = tracks.left_foot.z + 0.62 * out
    tracks.left_foot.y = tracks.left_foot.y + 0.10 * 4 * out * (1 - out)
    tracks.right_foot.pitch = tracks.right_foot.pitch + np.radians(40) * out
    tracks["pelvis_z"], tracks["drop"] = 0.30 * out, 0.26 * out
    hold(tracks.left_arm, out, abduct=85, forward=75, elbow=5)
    hold(tracks.right_arm, out, abduct=60, forward=-20, elbow=10)
    tracks["spine_yaw"] = np.radians(-20) * out


def throw(tracks: Tracks, t: Timing) -> None:
    wind, go = t.pulse((0.0, 0.5), (0.6, 0.85)), t.pulse((0.6, 0.85), (1.2, 1.8))
    tracks["spine_yaw"] = np.radians(40) * wind - np.radians(35) * go
    tracks["yaw"] = np.radians(25) * wind - np.radians(20) * go
    hold(tracks.left_arm, wind, abduct=105, forward=-30, elbow=110, twist=-80)
    hold(tracks.left_arm, go, abduct=70, forward=110, elbow=15)
    hold(tracks.right_arm, wind, abduct=70, forward=80, elbow=20)


def conduct(tracks: Tracks, t: Timing) -> None:
    """Independent smooth arms, as of somebody who talks with the hands."""
    for arm in (tracks.left_arm, tracks.right_arm):
        phase, pace = t.rng.uniform(0, 6.28, 4), t.rng.uniform(0.5, 1.3, 4)
        swing = [np.sin(2 * np.pi * p * t.tau + f) for p, f in zip(pace, phase, strict=True)]
        hold(arm, t.ease(0, 0.3), abduct=60 + 40 * swing[0], forward=55 + 45 * swing[1], elbow=70 + 50 * swing[2],
              twist=-30 + 45 * swing[3])  # fmt: skip
    tracks["head_yaw"], tracks["spine_pitch"] = np.radians(20) * np.sin(3 * t.tau), np.radians(6) * np.sin(2 * t.tau)


OWN_ACTIONS: dict[str, Callable[[Tracks, Timing], None]] = {
    fill.__name__: fill for fill in (dance, run_on_the_spot, hug, hands_behind, lunge, throw, conduct)
}


def fold_arms(tracks: Tracks, t: Timing) -> None:
    """Forearms laid over each other before the chest, opened again, the trunk turning."""
    fold = t.pulse((0.1, 0.8), (1.3, 2.0))
    hold(tracks.left_arm, fold, abduct=t.vary(40), forward=70, elbow=105, twist=-40)
    hold(tracks.right_arm, fold, abduct=t.vary(50), forward=75, elbow=95, twist=-35)
    tracks["spine_yaw"] = np.radians(20) * np.sin(2.5 * t.tau)


def knee_lifts(tracks: Tracks, t: Timing) -> None:
    """Each knee in turn towards the opposite elbow."""
    beat = 2 * np.pi * 0.9 * t.tau
    lift = t.ease(0, 0.35)
    for foot, arm, sign in ((tracks.left_foot, tracks.right_arm, 1.0), (tracks.right_foot, tracks.left_arm, -1.0)):
        up = lift * np.clip(sign * np.sin(beat), 0, None)
        foot.y, foot.z = foot.y + 0.45 * up, foot.z + 0.12 * up
        hold(
            arm, lift, abduct=50 + 15 * sign * np.sin(beat), forward=60 + 20 * sign * np.sin(beat), elbow=80, twist=-25
        )
    tracks["spine_yaw"], tracks["spine_pitch"] = np.radians(18) * lift * np.sin(beat), np.radians(8) * lift


def shadow_box(tracks: Tracks, t: Timing) -> None:
    """Guard with both fists at the chin, and quick straight punches in turn."""
    guard, beat = t.ease(0, 0.3), 2 * np.pi * 1.1 * t.tau
    for arm, sign in ((tracks.left_arm, 1.0), (tracks.right_arm, -1.0)):
        out = np.clip(sign * np.sin(beat), 0, None) ** 2
        hold(arm, guard, abduct=35 + 50 * out, forward=75 + 10 * out, elbow=130 - 115 * out, twist=-20)
    tracks["yaw"], tracks["spine_yaw"] = np.radians(-15) * guard, np.radians(22) * guard * np.sin(beat)
    tracks["drop"] = 0.04 * guard


def arm_circles(tracks: Tracks, t: Timing) -> None:
    """Both arms swung round beside the body, one ahead of the other, each behind the trunk for a while."""
    begin = t.ease(0, 0.4)
    for arm, phase in ((tracks.left_arm, 0.0), (tracks.right_arm, t.rng.uniform(1, 5))):
        angle = 2 * np.pi * 0.7 * t.tau + phase
        hold(arm, begin, abduct=55 + 45 * np.sin(angle), forward=40 + 80 * np.cos(angle), elbow=t.vary(35), twist=-20)


def hands_on_hips(tracks: Tracks, t: Timing) -> None:
    """One hand to the hip, the other behind the back; weight from leg to leg, one heel up behind."""
    on = t.pulse((0.1, 0.6), (1.5, 2.0))
    hold(tracks.left_arm, on, abduct=45, forward=-10, elbow=95, twist=60)
    hold(tracks.right_arm, on, abduct=22, forward=-40, elbow=80, twist=85)
    foot, kick = tracks.left_foot, t.pulse((0.4, 0.8), (1.1, 1.5))
    foot.y, foot.z, foot.pitch = foot.y + 0.30 * kick, foot.z - 0.25 * kick, foot.pitch + np.radians(60) * kick
    tracks["pelvis_x"], tracks["spine_roll"] = -0.08 * kick, np.radians(6) * kick


PRACTICE_ACTIONS: dict[str, Callable[[Tracks, Timing], None]] = {
    fill.__name__: fill for fill in (fold_arms, knee_lifts, shadow_box, arm_circles, hands_on_hips)
}

"""Actions of which the keypoint lifter learns moments, besides those of nano/actions.py and fit_actions.py.

Sport, work and stage, each filling `Tracks` for its left-handed form as there; `Timing` varies how far it goes. Nothing
is measured on these, and none is an action on which the lifter is measured.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..comovi_model.nano.actions import Timing
from ..comovi_model.nano.skeleton import Arm, Tracks
from .fit_actions import hold


def _both(tracks: Tracks) -> tuple[Arm, Arm]:
    return tracks.left_arm, tracks.right_arm


def _beat(t: Timing, pace: float) -> np.ndarray:
    """Phase of something that is done again and again, `pace` times a second or so, begun anywhere."""
    return 2 * np.pi * t.rng.uniform(0.7, 1.3) * pace * t.tau + t.rng.uniform(0, 2 * np.pi)


def _much(t: Timing, low: float, high: float) -> float:
    return float(t.rng.uniform(low, high))


def sweep(tracks: Tracks, t: Timing) -> None:
    """A broom held by both hands before the body, to and fro."""
    beat, on = _beat(t, 0.8), t.ease(0, 0.4)
    hold(tracks.left_arm, on, abduct=48 + 10 * np.sin(beat), forward=78, elbow=30 + 15 * np.cos(beat), twist=-10)
    hold(tracks.right_arm, on, abduct=22, forward=70, elbow=88 + 10 * np.sin(beat), twist=-5)
    tracks["spine_pitch"], tracks["spine_yaw"] = np.radians(22) * on, np.radians(24) * on * np.sin(beat)
    tracks["pelvis_pitch"], tracks["drop"] = np.radians(8) * on, 0.05 * on
    tracks.left_foot.z = tracks.left_foot.z + 0.22 * on


def forehand(tracks: Tracks, t: Timing) -> None:
    """A racket taken back beside the body and led through to the other shoulder."""
    back, hit = t.pulse((0.0, 0.5), (0.6, 0.9)), t.pulse((0.6, 1.0), (1.3, 1.9))
    hold(tracks.left_arm, back, abduct=_much(t, 60, 90), forward=-32, elbow=_much(t, 20, 70), twist=-25)
    hold(tracks.left_arm, hit, abduct=_much(t, 85, 115), forward=112, elbow=_much(t, 50, 100), twist=-20)
    hold(tracks.right_arm, back, abduct=72, forward=72, elbow=30)
    hold(tracks.right_arm, hit, abduct=30, forward=30, elbow=80)
    tracks["spine_yaw"], tracks["yaw"] = np.radians(32) * (back - hit), np.radians(28) * (back - 0.6 * hit)
    tracks["drop"] = 0.12 * back + 0.06 * hit
    tracks.right_foot.z, tracks.right_foot.x = tracks.right_foot.z + 0.28 * back, tracks.right_foot.x - 0.15 * back


def backhand(tracks: Tracks, t: Timing) -> None:
    """The hand begins across the body and ends far outside."""
    across, out = t.pulse((0.0, 0.5), (0.6, 0.9)), t.pulse((0.6, 1.0), (1.4, 2.0))
    hold(tracks.left_arm, across, abduct=_much(t, 40, 75), forward=115, elbow=_much(t, 60, 100))
    hold(tracks.left_arm, out, abduct=_much(t, 85, 130), forward=-5, elbow=12)
    hold(tracks.right_arm, out, abduct=40, forward=-40, elbow=20)
    tracks["spine_yaw"] = np.radians(-34) * across + np.radians(22) * out
    tracks["drop"], tracks["pelvis_x"] = 0.10 * across, -0.06 * across


def swim_crawl(tracks: Tracks, t: Timing) -> None:
    """Arms in turn over the head and down behind, bent forward as beside a pool."""
    beat, on = _beat(t, 0.6), t.ease(0, 0.4)
    lean = _much(t, 10, 50)
    for arm, phase in zip(_both(tracks), (0.0, np.pi), strict=True):
        up = 0.5 + 0.5 * np.sin(beat + phase)
        hold(arm, on, abduct=20 + 140 * up, forward=70 - 60 * np.cos(beat + phase), elbow=25 + 50 * (1 - up), twist=-30)
    tracks["spine_pitch"], tracks["pelvis_pitch"] = np.radians(0.6 * lean) * on, np.radians(0.4 * lean) * on
    tracks["spine_yaw"], tracks["pelvis_z"] = np.radians(20) * on * np.sin(beat), -0.08 * on * lean / 50


def breaststroke(tracks: Tracks, t: Timing) -> None:
    """Both hands from the chest forward, outward and back."""
    beat, on = _beat(t, 0.7), t.ease(0, 0.4)
    out, open_ = 0.5 + 0.5 * np.cos(beat), np.clip(np.sin(beat), 0, None)
    for arm in _both(tracks):
        hold(arm, on, abduct=55 + 30 * out, forward=85 - 70 * open_, elbow=115 - 105 * out, twist=-20)
    tracks["spine_pitch"] = np.radians(_much(t, 0, 25)) * on


def drum(tracks: Tracks, t: Timing) -> None:
    """Forearms up and down in turn, over drums at any height."""
    beat, on, wide = _beat(t, 1.8), t.ease(0, 0.3), _much(t, 20, 60)
    for arm, sign in zip(_both(tracks), (1, -1), strict=True):
        hold(arm, on, abduct=wide, forward=_much(t, 40, 75), elbow=75 + 28 * sign * np.sin(beat), twist=-25)
    tracks["head_pitch"], tracks["drop"] = np.radians(12) * np.sin(beat / 2) * on, _much(t, 0, 0.3) * on
    tracks["pelvis_z"] = -0.8 * tracks["drop"]


def string_instrument(tracks: Tracks, t: Timing) -> None:
    """One hand at a neck, the other to and fro before the body."""
    on, beat, high = t.ease(0, 0.5), _beat(t, 1.2), _much(t, 0, 1)
    hold(tracks.left_arm, on, abduct=40 + 35 * high, forward=_much(t, 30, 80), elbow=100, twist=-20 - 30 * high)
    hold(tracks.right_arm, on, abduct=30 + 40 * high, forward=55 + 12 * np.sin(beat), elbow=95 + 18 * np.sin(beat),
         twist=15 - 40 * high)  # fmt: skip
    tracks["head_yaw"], tracks["spine_roll"] = np.radians(25) * on, np.radians(5) * on * np.sin(beat / 3)


def hoop(tracks: Tracks, t: Timing) -> None:
    """The pelvis in circles with the hands up at the sides."""
    beat, on, up = _beat(t, 1.1), t.ease(0, 0.4), _much(t, 60, 150)
    for arm in _both(tracks):
        hold(arm, on, abduct=up, forward=20, elbow=_much(t, 30, 110), twist=-70)
    tracks["pelvis_x"], tracks["pelvis_z"] = 0.11 * on * np.sin(beat), 0.11 * on * np.cos(beat)
    tracks["pelvis_roll"], tracks["pelvis_pitch"] = np.radians(8) * on * np.sin(beat), np.radians(9) * on * np.cos(beat)
    tracks["spine_roll"], tracks["spine_pitch"] = -tracks["pelvis_roll"], -tracks["pelvis_pitch"]


def hop(tracks: Tracks, t: Timing) -> None:
    """On one leg, the other held behind or before."""
    on, beat, before = t.ease(0, 0.35), _beat(t, 1.0), _much(t, -0.35, 0.35)
    tracks["air"] = 0.10 * on * np.clip(np.sin(beat), 0, None)
    tracks["drop"], tracks["pelvis_x"] = 0.06 * on * np.clip(-np.sin(beat), 0, None), -0.09 * on
    tracks.right_foot.y = tracks.right_foot.y + tracks["air"]
    foot = tracks.left_foot
    foot.y, foot.z = foot.y + on * _much(t, 0.2, 0.5) + tracks["air"], foot.z + before * on
    foot.pitch = foot.pitch + np.radians(50 if before < 0 else 5) * on
    for arm in _both(tracks):
        hold(arm, on, abduct=_much(t, 25, 90), forward=_much(t, 0, 70), elbow=_much(t, 10, 80))


def leg_swings(tracks: Tracks, t: Timing) -> None:
    """One leg as a pendulum, sideways or back and forth, a hand on something."""
    on, beat, aside = t.ease(0, 0.4), _beat(t, 0.6), _much(t, 0, 1) < 0.5
    swing, foot = np.sin(beat) * on, tracks.left_foot
    far = _much(t, 0.25, 0.5)
    if aside:
        foot.x = foot.x + far * (0.5 + swing) * on
    else:
        foot.z = foot.z + far * swing
    foot.y = foot.y + 0.06 * on + 0.5 * far * swing**2
    tracks["pelvis_x"], tracks["spine_roll"] = -0.08 * on, np.radians(-8 if aside else 0) * swing
    hold(tracks.right_arm, on, abduct=_much(t, 40, 95), forward=_much(t, 0, 60), elbow=20)
    hold(tracks.left_arm, on, abduct=30 - 20 * swing, forward=_much(t, 0, 80), elbow=25)


def squat_press(tracks: Tracks, t: Timing) -> None:
    """A bar at the shoulders, down, up and over the head."""
    down, press = t.pulse((0.0, 0.6), (0.7, 1.2)), t.pulse((1.1, 1.6), (1.8, 2.3))
    tracks["drop"], tracks["pelvis_z"] = _much(t, 0.2, 0.45) * down, -0.12 * down
    tracks["spine_pitch"], tracks["pelvis_pitch"] = np.radians(12) * down, np.radians(12) * down
    grip = _much(t, 30, 60)
    for arm in _both(tracks):
        hold(arm, t.ease(0, 0.3), abduct=grip, forward=55, elbow=135, twist=-70)
        hold(arm, press, abduct=160, forward=15, elbow=8, twist=-60)
    for foot, sign in ((tracks.left_foot, 1), (tracks.right_foot, -1)):
        foot.x, foot.yaw = foot.x + sign * 0.08, foot.yaw + sign * np.radians(14)


def lift_box(tracks: Tracks, t: Timing) -> None:
    """From the floor to the belly, or onto a shelf."""
    down, carry = t.pulse((0.0, 0.6), (0.8, 1.3)), t.ease(0.8, 1.4)
    bent = _much(t, 0, 1)  # a straight back, or straight legs
    tracks["drop"], tracks["pelvis_z"] = (0.12 + 0.34 * bent) * down, -0.16 * down
    tracks["pelvis_pitch"], tracks["spine_pitch"] = np.radians(34 - 10 * bent) * down, np.radians(42 - 20 * bent) * down
    up = _much(t, 0, 1)
    for arm in _both(tracks):
        hold(arm, t.ease(0, 0.4), abduct=34, forward=82, elbow=15, twist=-5)
        hold(arm, carry, abduct=20 + 85 * up, forward=60 + 20 * up, elbow=88 - 55 * up, twist=-10)


def pull_rope(tracks: Tracks, t: Timing) -> None:
    """Hand over hand, leaning back against it."""
    beat, on = _beat(t, 0.9), t.ease(0, 0.5)
    for arm, sign in zip(_both(tracks), (1, -1), strict=True):
        near = 0.5 + 0.5 * sign * np.sin(beat)
        hold(arm, on, abduct=25 + 50 * (1 - near), forward=80 - 70 * near, elbow=10 + 100 * near, twist=-10)
    tracks["pelvis_pitch"], tracks["pelvis_z"] = np.radians(-12) * on, -0.16 * on
    tracks["drop"], tracks["spine_yaw"] = 0.16 * on, np.radians(18) * on * np.sin(beat)
    tracks.left_foot.z = tracks.left_foot.z + 0.30 * on


def push_wall(tracks: Tracks, t: Timing) -> None:
    """Both hands against something heavy, one foot far behind."""
    on, press = t.ease(0, 0.5), 0.5 + 0.5 * np.sin(_beat(t, 0.6))
    for arm in _both(tracks):
        hold(arm, on, abduct=70 + 12 * press, forward=82, elbow=70 - 50 * press, twist=-30)
    lean = _much(t, 10, 30)
    tracks["pelvis_pitch"], tracks["spine_pitch"] = np.radians(lean) * on, np.radians(0.4 * lean) * on
    tracks["drop"], foot = 0.14 * on, tracks.right_foot
    foot.z, foot.pitch = foot.z - 0.45 * on, foot.pitch + np.radians(30) * on


def golf(tracks: Tracks, t: Timing) -> None:
    """Both hands together, up on one side, down and up on the other."""
    set_, swing = t.ease(0, 0.3), np.sin(_beat(t, 0.5))
    high = np.clip(np.abs(swing), 0, 1)
    for arm, sign in zip(_both(tracks), (1, -1), strict=True):
        hold(
            arm,
            set_,
            abduct=30 + 75 * high,
            forward=88 - 50 * sign * swing,
            elbow=10 + 45 * np.clip(-sign * swing, 0, 1),
        )
    tracks["spine_pitch"], tracks["pelvis_pitch"] = np.radians(18) * set_, np.radians(14) * set_
    tracks["spine_yaw"], tracks["yaw"] = np.radians(36) * swing * set_, np.radians(26) * swing * set_
    tracks["drop"], tracks["pelvis_z"] = 0.07 * set_, -0.06 * set_


def sneak(tracks: Tracks, t: Timing) -> None:
    """Bent knees, high slow steps, hands before the chest."""
    on, beat, low = t.ease(0, 0.4), _beat(t, 0.5), _much(t, 0.1, 0.3)
    tracks["drop"], tracks["pelvis_pitch"] = low * on, np.radians(14) * on
    tracks["spine_pitch"], tracks["head_pitch"] = np.radians(16) * on, np.radians(-20) * on
    for foot, sign in ((tracks.left_foot, 1), (tracks.right_foot, -1)):
        up = np.clip(sign * np.sin(beat), 0, None) * on
        foot.y, foot.z, foot.pitch = foot.y + 0.3 * up, foot.z + 0.3 * sign * np.cos(beat) * on, np.radians(25) * up
    for arm, sign in zip(_both(tracks), (1, -1), strict=True):
        hold(arm, on, abduct=35, forward=65, elbow=105 + 15 * sign * np.sin(beat), twist=_much(t, -50, 0))


def skate(tracks: Tracks, t: Timing) -> None:
    """Weight from one bent leg to the other, the free leg out and behind, arms across."""
    on, beat, low = t.ease(0, 0.4), _beat(t, 0.6), _much(t, 0.08, 0.25)
    side = np.sin(beat) * on
    tracks["drop"], tracks["pelvis_x"] = low * on, 0.14 * side
    tracks["pelvis_pitch"], tracks["spine_pitch"] = np.radians(18) * on, np.radians(16) * on
    for foot, sign in ((tracks.left_foot, 1), (tracks.right_foot, -1)):
        free = np.clip(-sign * side, 0, None)
        foot.x, foot.z, foot.y = foot.x + sign * 0.32 * free, foot.z - 0.25 * free, foot.y + 0.12 * free
        foot.pitch = foot.pitch + np.radians(20) * free
    for arm, sign in zip(_both(tracks), (1, -1), strict=True):
        hold(arm, on, abduct=45, forward=55 - 55 * sign * side, elbow=35)
    tracks["spine_yaw"] = np.radians(15) * side


def crouch_aim(tracks: Tracks, t: Timing) -> None:
    """A low turn with something held before the face."""
    on = t.ease(0, 0.5)
    tracks["drop"], tracks["pelvis_z"] = _much(t, 0.05, 0.4) * on, -0.05 * on
    tracks["spine_yaw"], tracks["head_yaw"] = np.radians(_much(t, -30, 30)) * on, np.radians(_much(t, -20, 20)) * on
    for arm in _both(tracks):
        hold(
            arm, on, abduct=_much(t, 60, 95), forward=_much(t, 60, 95), elbow=_much(t, 20, 110), twist=_much(t, -60, 0)
        )
    tracks.left_foot.z, tracks.right_foot.z = tracks.left_foot.z + 0.18 * on, tracks.right_foot.z - 0.12 * on


def shiver(tracks: Tracks, t: Timing) -> None:
    """Hands on the upper arms, drawn in."""
    on, beat = t.ease(0, 0.5), _beat(t, 3.0)
    for arm in _both(tracks):
        hold(arm, on, abduct=_much(t, 20, 45), forward=80, elbow=118 + 4 * np.sin(beat), twist=_much(t, -20, 25))
    tracks["spine_pitch"], tracks["head_pitch"], tracks["drop"] = np.radians(16) * on, np.radians(14) * on, 0.03 * on


def telephone(tracks: Tracks, t: Timing) -> None:
    """Something at the ear, the other hand busy, walking on the spot."""
    on, beat = t.ease(0, 0.5), _beat(t, 0.7)
    hold(tracks.left_arm, on, abduct=_much(t, 25, 60), forward=_much(t, 45, 75), elbow=138, twist=-55)
    hold(tracks.right_arm, on, abduct=35 + 15 * np.sin(beat), forward=50, elbow=60 + 30 * np.sin(1.3 * beat), twist=-20)
    tracks["head_yaw"], tracks["spine_yaw"] = np.radians(12) * on, np.radians(8) * np.sin(0.5 * beat) * on
    for foot, sign in ((tracks.left_foot, 1), (tracks.right_foot, -1)):
        foot.y = foot.y + 0.08 * np.clip(sign * np.sin(beat), 0, None) * on


DRILLS: dict[str, Callable[[Tracks, Timing], None]] = {
    fill.__name__: fill
    for fill in (
        sweep, forehand, backhand, swim_crawl, breaststroke, drum, string_instrument, hoop, hop, leg_swings,
        squat_press, lift_box, pull_rope, push_wall, golf, sneak, skate, crouch_aim, shiver, telephone,
    )
}  # fmt: skip

"""What the synthetic people can do: sixteen actions as curves over time.

Each action fills `Tracks` for its left-handed form; the right-handed form is its mirror image. Curves are written in
action time tau = speed * (seconds - start), so that "slowly" and "quickly" stretch the same movement. Every action
starts from the same neutral stance: the first frame must not give the action away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .skeleton import Arm, Foot, Tracks, mirror_motion, solve_tracks, standing_tracks

SPEEDS = {"slowly": 0.75, "": 1.0, "quickly": 1.3}
SWING_LIFT = 0.09  # metres an ankle rises in an ordinary step


@dataclass(frozen=True)
class Timing:
    """Action time of every frame, (F,) seconds, and a source of small, named variations."""

    tau: np.ndarray
    rng: np.random.Generator
    jitter: float = 0.05

    def vary(self, value: float) -> float:
        """`value` times a factor of up to 1 +- jitter."""
        return value * (1 + self.jitter * self.rng.uniform(-1, 1))

    def ease(self, start: float, end: float) -> np.ndarray:
        """Quintic step from 0 to 1 between two action times, with zero velocity and acceleration at both ends."""
        u = np.clip((self.tau - start) / (end - start), 0, 1)
        return u**3 * (u * (6 * u - 15) + 10)

    def pulse(self, rise: tuple[float, float], fall: tuple[float, float]) -> np.ndarray:
        """0 -> 1 during `rise`, 1 -> 0 during `fall`."""
        return self.ease(*rise) - self.ease(*fall)


def _move_arm(
    arm: Arm,
    weight: np.ndarray,
    abduct: float | np.ndarray,
    forward: float | np.ndarray,
    elbow: float | np.ndarray,
    twist: float | np.ndarray = 0.0,
) -> None:
    """Blend an arm from where it is to a pose in degrees, by `weight` (F,) in 0..1."""
    for name, target in (("abduct", abduct), ("forward", forward), ("elbow", elbow), ("twist", twist)):
        current = getattr(arm, name)
        setattr(arm, name, current + weight * (np.radians(target) - current))


def _step(foot: Foot, t: Timing, start: float, end: float, x: float, z: float, yaw: float | None = None) -> None:
    """Swing a foot from where it stands to (x, z), landing with `yaw`; it is planted before and after."""
    move = t.ease(start, end)
    lift = 4 * move * (1 - move)
    foot.x, foot.z = foot.x + move * (x - foot.x[-1]), foot.z + move * (z - foot.z[-1])
    foot.y = foot.y + SWING_LIFT * lift
    foot.pitch = foot.pitch + np.radians(18) * lift * (1 - 2 * move)
    if yaw is not None:
        foot.yaw = foot.yaw + move * (yaw - foot.yaw[-1])


def walk(tracks: Tracks, t: Timing) -> None:
    speed = t.vary(0.46)

    def travelled(tau: np.ndarray | float) -> np.ndarray:
        u = np.clip(np.asarray(tau) / 0.5, 0, None)
        return speed * np.where(u < 1, 0.25 * u**2, 0.5 * u - 0.25)  # speed rises linearly during half a second

    tracks["pelvis_z"] = travelled(t.tau)
    start, side = 0.05, "left"
    feet = {"left": tracks.left_foot, "right": tracks.right_foot}
    for _ in range(7):
        landing = float(travelled(start + 0.5)) + 0.25 * speed
        _step(feet[side], t, start, start + 0.5, feet[side].x[-1], landing)
        start, side = start + 0.5, "right" if side == "left" else "left"
    tracks["drop"] = (0.012 + 0.008 * np.cos(4 * np.pi * t.tau)) * t.ease(0.0, 0.4)
    gap, moving = tracks.left_foot.z - tracks.right_foot.z, t.ease(0, 0.4)
    for arm, sign in ((tracks.left_arm, -1.0), (tracks.right_arm, 1.0)):  # a negative raise swings backward
        _move_arm(arm, moving, np.degrees(sign * 1.6 * gap), 80, 22, -80)


def turn(tracks: Tracks, t: Timing) -> None:
    angle = np.radians(t.vary(115))
    tracks["yaw"] = angle * t.ease(0.05, 1.35)
    tracks["head_yaw"] = np.radians(25) * t.pulse((0.0, 0.4), (0.9, 1.4))
    half = tracks.left_foot.x[0]
    for number, side in enumerate(("left", "right", "left", "right")):
        start = 0.05 + 0.325 * number
        target = angle * min(1.0, (number + 1.3) / 4)
        foot, sign = (tracks.left_foot, 1.0) if side == "left" else (tracks.right_foot, -1.0)
        _step(
            foot,
            t,
            start,
            start + 0.325,
            sign * half * np.cos(target),
            -sign * half * np.sin(target),
            target + sign * np.radians(6),
        )


def wave(tracks: Tracks, t: Timing) -> None:
    raised = t.ease(0.05, 0.5)
    swing = t.vary(30) * np.sin(2 * np.pi * 1.6 * (t.tau - 0.4)) * t.ease(0.4, 0.7)
    _move_arm(tracks.left_arm, raised, t.vary(100), 8, 62 + swing, -90)
    tracks["spine_roll"] = np.radians(-4) * raised


def jump(tracks: Tracks, t: Timing) -> None:
    height = t.vary(0.23)
    u = np.clip((t.tau - 0.5) / 0.55, 0, 1)
    air = height * 4 * u * (1 - u)
    crouch = t.pulse((0.0, 0.32), (0.34, 0.5)) * 0.24 + t.pulse((1.0, 1.12), (1.15, 1.6)) * 0.16
    tracks["air"], tracks["drop"] = air, crouch
    tracks["spine_pitch"] = np.radians(24) * crouch / 0.24
    for foot in (tracks.left_foot, tracks.right_foot):
        foot.y = air * 0.96
        foot.pitch = np.radians(35) * np.clip(air / height, 0, 1)
    back, up = t.pulse((0.0, 0.3), (0.32, 0.5)), t.pulse((0.36, 0.62), (0.95, 1.4))
    for arm in (tracks.left_arm, tracks.right_arm):
        _move_arm(arm, back, -38, 85, 10)
        _move_arm(arm, up, 138, 45, 10)


def squat(tracks: Tracks, t: Timing) -> None:
    down = t.pulse((0.05, 0.65), (0.95, 1.55))
    tracks["drop"], tracks["pelvis_z"] = t.vary(0.40) * down, -0.10 * down
    tracks["pelvis_pitch"], tracks["spine_pitch"] = np.radians(14) * down, np.radians(14) * down
    for arm in (tracks.left_arm, tracks.right_arm):
        _move_arm(arm, down, 84, 82, 4)
    for foot, sign in ((tracks.left_foot, 1), (tracks.right_foot, -1)):
        foot.yaw = foot.yaw + sign * np.radians(16) * down


def sit(tracks: Tracks, t: Timing) -> None:
    down = t.ease(0.05, 1.0)
    tracks["drop"], tracks["pelvis_z"] = t.vary(0.44) * down, -0.40 * down
    tracks["pelvis_pitch"] = np.radians(6) * down
    tracks["spine_pitch"] = np.radians(18) * t.pulse((0.05, 0.5), (0.6, 1.1)) + np.radians(4) * down
    for arm in (tracks.left_arm, tracks.right_arm):
        _move_arm(arm, down, 34, 70, 38, -50)


def kick(tracks: Tracks, t: Timing) -> None:
    back, out = t.pulse((0.05, 0.35), (0.36, 0.6)), t.pulse((0.36, 0.72), (0.85, 1.35))
    foot, reach, height = tracks.left_foot, t.vary(0.62), t.vary(0.66)
    foot.z = foot.z - 0.16 * back + reach * out
    foot.y = foot.y + 0.10 * back + height * out
    foot.x = foot.x + 0.16 * out  # a little outward, so that the leg is seen from the front
    foot.pitch = foot.pitch + np.radians(20) * back - np.radians(30) * out
    lean = t.pulse((0.0, 0.3), (1.2, 1.5))
    tracks["pelvis_x"], tracks["pelvis_pitch"] = -0.06 * lean, np.radians(-12) * out
    tracks["spine_pitch"] = np.radians(4) * out
    _move_arm(tracks.left_arm, lean, 34, 20, 25)
    _move_arm(tracks.right_arm, lean, 52, 30, 25)


def punch(tracks: Tracks, t: Timing) -> None:
    guard = t.ease(0.0, 0.35)
    for arm in (tracks.left_arm, tracks.right_arm):
        _move_arm(arm, guard, 28, 62, 122)
    thrust = t.pulse((0.42, 0.60), (0.80, 1.0)) + t.pulse((1.1, 1.28), (1.5, 1.7))
    _move_arm(tracks.left_arm, thrust, t.vary(88), 30, 4)
    tracks["spine_yaw"] = np.radians(-24) * thrust
    tracks["pelvis_z"], tracks["drop"] = 0.05 * thrust, 0.03 * guard


def bow(tracks: Tracks, t: Timing) -> None:
    down = t.pulse((0.05, 0.65), (1.0, 1.6))
    angle = np.radians(t.vary(72))
    tracks["pelvis_pitch"], tracks["spine_pitch"] = 0.4 * angle * down, 0.6 * angle * down
    tracks["head_pitch"], tracks["pelvis_z"] = np.radians(12) * down, -0.11 * down
    for arm in (tracks.left_arm, tracks.right_arm):
        _move_arm(arm, down, 14, 60, 6)


def raise_arms(tracks: Tracks, t: Timing) -> None:
    up = t.ease(0.05, 0.85)
    target = t.vary(158)
    for arm in (tracks.left_arm, tracks.right_arm):
        _move_arm(arm, up, target, 8, 5)


def jumping_jack(tracks: Tracks, t: Timing) -> None:
    phase = np.clip(t.tau - 0.05, 0, None) / 0.9
    spread = (0.5 - 0.5 * np.cos(2 * np.pi * phase)) * t.ease(0.0, 0.1)
    hop = 0.08 * np.sin(2 * np.pi * phase) ** 2 * t.ease(0.0, 0.1)
    tracks["air"], tracks["drop"] = hop, 0.03 * spread
    for foot, sign in ((tracks.left_foot, 1), (tracks.right_foot, -1)):
        foot.x, foot.y = foot.x + sign * 0.20 * spread, foot.y + 0.9 * hop
        foot.pitch = foot.pitch + np.radians(25) * hop / 0.08
    target = t.vary(148)
    for arm in (tracks.left_arm, tracks.right_arm):
        _move_arm(arm, spread, target, 4, 6)


def clap(tracks: Tracks, t: Timing) -> None:
    ready = t.ease(0.05, 0.45)
    beat = 0.5 - 0.5 * np.cos(2 * np.pi * 1.7 * np.clip(t.tau - 0.4, 0, None))
    for arm in (tracks.left_arm, tracks.right_arm):
        _move_arm(arm, ready, 62, 74 - 38 * beat, 52 + 4 * beat)


def step_aside(tracks: Tracks, t: Timing) -> None:
    distance = t.vary(0.34)
    tracks["pelvis_x"] = distance * t.ease(0.1, 1.1)
    _step(tracks.left_foot, t, 0.05, 0.6, tracks.left_foot.x[0] + distance, 0.0)
    _step(tracks.right_foot, t, 0.6, 1.15, tracks.right_foot.x[0] + distance, 0.0)
    tracks["spine_roll"] = np.radians(-5) * t.pulse((0.05, 0.4), (0.8, 1.2))


def point(tracks: Tracks, t: Timing) -> None:
    out = t.ease(0.05, 0.6)
    _move_arm(tracks.left_arm, out, t.vary(90), 12, 3)
    tracks["head_yaw"] = np.radians(42) * out
    tracks["spine_yaw"] = np.radians(8) * out


def stretch(tracks: Tracks, t: Timing) -> None:
    up = t.ease(0.05, 0.8)
    _move_arm(tracks.left_arm, up, 172, 6, 10)
    _move_arm(tracks.right_arm, up, 28, 10, 62)
    lean = t.pulse((0.35, 1.05), (2.2, 2.9))
    tracks["spine_roll"], tracks["pelvis_roll"] = np.radians(t.vary(30)) * lean, np.radians(4) * lean


def march(tracks: Tracks, t: Timing) -> None:
    phase = np.clip(t.tau - 0.05, 0, None) / 0.95
    for foot, arm, offset in (
        (tracks.left_foot, tracks.right_arm, 0.0),
        (tracks.right_foot, tracks.left_arm, 0.5),
    ):
        up = np.where((phase - offset) % 1.0 < 0.5, np.sin(2 * np.pi * (phase - offset)) ** 2, 0.0)
        up = np.where(phase >= offset, up, 0.0)
        foot.y = foot.y + t.vary(0.36) * up
        foot.z = foot.z + 0.12 * up
        foot.pitch = foot.pitch + np.radians(14) * up
        _move_arm(arm, up, 52, 80, 60, -60)


@dataclass(frozen=True)
class Action:
    """One action: its curves and whether it has a left and a right form."""

    name: str
    fill: Callable[[Tracks, Timing], None]
    sided: bool


ACTIONS: tuple[Action, ...] = tuple(
    Action(fill.__name__, fill, sided)
    for fill, sided in (
        (walk, False), (turn, True), (wave, True), (jump, False), (squat, False), (sit, False), (kick, True),
        (punch, True), (bow, False), (raise_arms, False), (jumping_jack, False), (clap, False), (step_aside, True),
        (point, True), (stretch, True), (march, False),
    )
)  # fmt: skip
ACTION_NAMES = tuple(a.name for a in ACTIONS)


@dataclass(frozen=True)
class ActionRequest:
    """Which movement: action index, side ("left", "right" or "" where the action has none), speed word."""

    action: int
    side: str
    speed: str


def perform(
    request: ActionRequest, joints: np.ndarray, ground: float, num_frames: int, fps: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Local rotations (F, 24, 3, 3) and pelvis positions (F, 3) of one performance from the origin, facing +z."""
    action = ACTIONS[request.action]
    if action.sided != bool(request.side):
        raise ValueError(f"action {action.name} {'needs' if action.sided else 'has no'} side; got {request.side!r}")
    start = rng.uniform(0.0, 0.04)
    speed = SPEEDS[request.speed] * (1 + 0.04 * rng.uniform(-1, 1))
    timing = Timing((np.arange(num_frames) / fps - start) * speed, rng)
    tracks = standing_tracks(num_frames, joints)
    action.fill(tracks, timing)
    offset_arms = np.radians(rng.normal(0, 2.0, 4))  # a small personal difference in the way of standing
    tracks.left_arm.abduct = tracks.left_arm.abduct + offset_arms[0]
    tracks.right_arm.abduct = tracks.right_arm.abduct + offset_arms[1]
    tracks.left_arm.elbow = tracks.left_arm.elbow + abs(offset_arms[2])
    tracks.right_arm.elbow = tracks.right_arm.elbow + abs(offset_arms[3])
    tracks["head_yaw"] = tracks["head_yaw"] + np.radians(rng.normal(0, 3.0))
    local, pelvis = solve_tracks(tracks, joints, ground)
    return mirror_motion(local, pelvis) if request.side == "right" else (local, pelvis)

"""Poses for the keypoint lifter, as angles that an anatomist would name: everyday, random, and of actions.

Two kinds that share nothing but the joints' limits: "training" and "evaluation" have everyday poses and actions of
their own. Letters: N poses, J = 24 joints. Angles in degrees until they become rotations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..comovi_model.body.named_poses import named_pose, pose_names
from ..comovi_model.nano.actions import ACTION_NAMES, ACTIONS, SPEEDS, ActionRequest, Timing, perform
from ..comovi_model.nano.skeleton import MIRROR_JOINT, rotation, solve_tracks, standing_tracks
from .fit_actions import OWN_ACTIONS, PRACTICE_ACTIONS
from .lifter_drills import DRILLS
from .lifter_everyday import ARMS, LEGS, TRUNKS

# Each with its least, usual and largest value and how far a random pose strays from the usual one.
ARM = {
    "lift": (-8, 2, 30, 6), "protract": (-15, 2, 25, 8), "abduct": (-5, 40, 172, 45), "forward": (-55, 40, 135, 45),
    "twist": (-95, -10, 95, 40), "elbow": (0, 55, 148, 42), "pronate": (-70, 0, 70, 28), "flex": (-60, 0, 65, 16),
    "deviate": (-25, 0, 25, 8), "fingers": (-10, 5, 30, 8),
}  # fmt: skip
LEG = {
    "flex": (-25, 30, 130, 42), "abduct": (-18, 8, 55, 16), "twist": (-40, 5, 45, 14), "knee": (0, 45, 145, 42),
    "ankle": (-28, 4, 48, 14), "roll": (-15, 0, 15, 5), "yaw": (-18, 4, 22, 7), "toe": (-35, 0, 12, 7),
}  # fmt: skip
TRUNK = {
    "pitch": (-100, 0, 100, 12), "tilt": (-95, 0, 95, 7), "bend": (-28, 8, 75, 16), "side": (-35, 0, 35, 9),
    "turn": (-45, 0, 45, 14), "nod": (-45, 5, 50, 15), "shake": (-70, 0, 70, 24), "cock": (-28, 0, 28, 7),
}  # fmt: skip
EVERYDAY_SPREAD = 0.28  # share of a random pose's spread by which everyday poses vary
TRAINING_SPREAD = 0.4  # the same for training, so that it covers what lies between its poses too
TRAINING_BLEND = 0.5  # share of training's everyday limbs that lie between two written poses
TRAINING_UPRIGHT = 0.35  # share of training's everyday people who are on their feet for certain, as most in photos are
TRAINING_APART = 0.35  # share of training's everyday people whose legs are of two poses
TRAINING_VARIETY = (TRAINING_SPREAD, TRAINING_BLEND, TRAINING_UPRIGHT, TRAINING_APART)
UPRIGHT = (
    "stand", "relaxed", "wide", "stride", "run", "half squat", "lunge", "knee up", "kick", "bow", "one step up",
    "astride", "marching", "stepping back", "weight on one leg", "pigeon-toed", "turned out", "curtsey", "horse stance",
    "low to one side", "on tiptoe", "pushing off", "one leg swung back", "one leg out aside", "bowling", "teeing off",
    "passing a ball",
)  # fmt: skip
FILLS = OWN_ACTIONS | PRACTICE_ACTIONS | DRILLS  # besides the nano model's
TRAINING_ACTIONS = (
    "walk", "turn", "wave", "squat", "sit", "punch", "jumping_jack", "step_aside", *PRACTICE_ACTIONS,
    *DRILLS,
)  # fmt: skip
TEST_ACTIONS = tuple(name for name in (*ACTION_NAMES, *OWN_ACTIONS) if name not in TRAINING_ACTIONS)
CLIP_FRAMES, FPS = 33, 16.0
REST = {"elbow": 5.0}  # degrees where a written pose says nothing; else 0

Angles = dict[str, np.ndarray]
Between = tuple[np.ndarray, np.ndarray]  # (N,) number of another pose, share of the way to it


def random_angles(
    limits: dict[str, tuple],
    count: int,
    rng: np.random.Generator,
    usual: Angles | None = None,
    around: float = EVERYDAY_SPREAD,
) -> Angles:
    """(N,) of every angle: round the usual value, or round those of a written pose, always within the limits."""
    out = {}
    for name, (low, middle, high, spread) in limits.items():
        if usual is None:
            value = middle + spread * rng.standard_normal(count)
            flat = rng.random(count) < 0.25  # a quarter of each angle comes from anywhere within its limits
            value = np.where(flat, rng.uniform(low + 0.1 * (high - low), high - 0.1 * (high - low), count), value)
            if limits is TRUNK and name in ("pitch", "tilt"):
                value = middle + spread * rng.standard_normal(count)
        else:
            value = usual.get(name, REST.get(name, 0.0)) + around * spread * rng.standard_normal(count)
        out[name] = _within(value, low, high)
    return out


def _within(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Reflected at the limits, so that no pile of poses stands exactly on them."""
    value = np.where(value < low, 2 * low - value, value)
    value = np.where(value > high, 2 * high - value, value)
    return np.clip(value, low, high)


def _r(axis: str, degrees: np.ndarray) -> np.ndarray:
    return rotation(axis, np.radians(degrees))


def rotations_of(trunk: Angles, arms: Sequence[Angles], legs: Sequence[Angles], rng: np.random.Generator) -> np.ndarray:
    """Angles (N,), limbs left and right -> local rotations (N, J, 3, 3); the root leans but does not turn round."""
    count = len(trunk["pitch"])
    local = np.tile(np.eye(3), (count, 24, 1, 1))
    local[:, 0] = _r("x", trunk["pitch"]) @ _r("z", trunk["tilt"])
    shares = rng.dirichlet((6.0, 6.0, 6.0), count)
    for number, joint in enumerate((3, 6, 9)):
        share = shares[:, number]
        local[:, joint] = (
            _r("y", share * trunk["turn"]) @ _r("x", share * trunk["bend"]) @ _r("z", share * trunk["side"])
        )
    neck = rng.uniform(0.25, 0.65, count)
    for joint, share in ((12, neck), (15, 1 - neck)):
        local[:, joint] = (
            _r("y", share * trunk["shake"]) @ _r("x", share * trunk["nod"]) @ _r("z", share * trunk["cock"])
        )
    flip = np.diag([-1.0, 1.0, 1.0])
    for side, arm in enumerate(arms):
        raised = 0.2 * np.maximum(arm["abduct"] - 60, 0) + arm["lift"]
        parts = [
            _r("y", -arm["protract"]) @ _r("z", raised),
            _r("y", -arm["forward"]) @ _r("z", arm["abduct"] - 90 - raised) @ _r("x", arm["twist"]),
            _r("y", -arm["elbow"]) @ _r("x", 0.5 * arm["pronate"]),
            _r("x", 0.5 * arm["pronate"]) @ _r("z", -arm["flex"]) @ _r("y", -arm["deviate"]),
            _r("z", -arm["fingers"]),
        ]
        for joint, part in zip((13, 16, 18, 20, 22), parts, strict=True):
            local[:, joint + side] = flip @ part @ flip if side else part
    for side, leg in enumerate(legs):
        parts = [
            _r("x", -leg["flex"]) @ _r("z", leg["abduct"]) @ _r("y", leg["twist"]),
            _r("x", leg["knee"]),
            _r("y", leg["yaw"]) @ _r("x", leg["ankle"]) @ _r("z", leg["roll"]),
            _r("x", leg["toe"]),
        ]
        for joint, part in zip((1, 4, 7, 10), parts, strict=True):
            local[:, joint + side] = flip @ part @ flip if side else part
    return local


def random_poses(count: int, rng: np.random.Generator) -> np.ndarray:
    """Anything within the limits of the joints, (N, J, 3, 3)."""
    arms = [random_angles(ARM, count, rng) for _ in range(2)]
    legs = [random_angles(LEG, count, rng) for _ in range(2)]
    alike = rng.random(count) < 0.3  # both arms or both legs doing nearly the same
    for pair in (arms, legs):
        same = alike if pair is arms else rng.random(count) < 0.35
        for name in pair[0]:
            low, _, high, spread = (ARM if pair is arms else LEG)[name]
            like = _within(pair[0][name] + 0.15 * spread * rng.standard_normal(count), low, high)
            pair[1][name] = np.where(same, like, pair[1][name])
    return rotations_of(random_angles(TRUNK, count, rng), arms, legs, rng)


def everyday_poses(
    kind: str, count: int, rng: np.random.Generator, around: float = EVERYDAY_SPREAD, blended: float = 0.0,
    upright: float = 0.0, apart: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """Written poses of trunk with legs, and of arms, in any company and a little varied, (N, J, 3, 3).

    kind "training" has those of "practice" too. blended: share of the legs, and of the arms, that lie between two
    written poses, and of the bodies that lean anywhere. upright: share of people whose legs are one of `UPRIGHT`.
    apart: share of people whose right leg is that of another pose.
    """
    kinds = ("training", "practice") if kind == "training" else (kind,)
    legs = [pose for name in kinds for pose in LEGS[name].values()]
    arms = [pose for name in kinds for pose in ARMS[name].values()]
    trunks = [pose for name in kinds for pose in TRUNKS[name].values()]
    lower, upper = rng.integers(len(legs), size=count), rng.integers(len(arms), size=count)
    other = np.where(rng.random(count) < 0.45, upper, rng.integers(len(arms), size=count))
    trunk = np.where(rng.random(count) < 0.6, 0, rng.integers(len(trunks), size=count))
    if upright:
        names = [name for group in kinds for name in LEGS[group]]
        standing = rng.choice([names.index(name) for name in UPRIGHT if name in names], count)
        lower = np.where(rng.random(count) < upright, standing, lower)

    rightmost = lower
    if apart:
        rightmost = np.where(rng.random(count) < apart, rng.integers(len(legs), size=count), lower)

    def between() -> Between:
        """Another pose for everybody and how far it is on the way there."""
        if not blended:
            return np.arange(count), np.zeros(count)
        return rng.permutation(count), np.where(rng.random(count) < blended, rng.random(count), 0.0)

    down, ups = between(), (between(), between())
    leaning = _mixed(_table([pose.get("trunk", {}) for pose in legs], lower), down)
    spine = _table(trunks, trunk)
    none = np.zeros(count)
    both = {name: leaning.get(name, none) + spine.get(name, none) for name in sorted({*leaning, *spine})}
    if blended:
        anywhere = rng.random(count) < 0.3 * blended
        for name in ("pitch", "tilt"):
            low, _, high, _ = TRUNK[name]
            both[name] = np.where(anywhere, rng.uniform(low, high, count) * rng.random(count), both.get(name, none))
    sides = [[pose["left"] for pose in legs], [pose.get("right", pose["left"]) for pose in legs]]
    return rotations_of(
        random_angles(TRUNK, count, rng, both, around),
        [
            random_angles(ARM, count, rng, _mixed(_table(arms, index), up), around)
            for index, up in zip((upper, other), ups, strict=True)
        ],
        [
            random_angles(LEG, count, rng, _mixed(_table(side, index), down), around)
            for side, index in zip(sides, (lower, rightmost), strict=True)
        ],
        rng,
    )


def everyday_arms(count: int, rng: np.random.Generator) -> Angles:
    """(N,) of every angle of an arm: half of them written for training and varied, half from the joints' limits."""
    arms = [pose for name in ("training", "practice") for pose in ARMS[name].values()]
    written = random_angles(ARM, count, rng, _table(arms, rng.integers(len(arms), size=count)), TRAINING_SPREAD)
    known = rng.random(count) < 0.5
    return {name: np.where(known, written[name], value) for name, value in random_angles(ARM, count, rng).items()}


def _mixed(angles: Angles, between: Between) -> Angles:
    """Each angle on its way to that of another pose."""
    partner, way = between
    return {name: value + way * (value[partner] - value) for name, value in angles.items()}


def _table(poses: list[dict[str, float]], index: np.ndarray) -> Angles:
    """Written angles of poses (n) chosen by index (N,) -> (N,) of every angle that one of them names."""
    names = {name for pose in poses for name in pose}
    return {name: np.array([pose.get(name, REST.get(name, 0.0)) for pose in poses])[index] for name in sorted(names)}


def named_poses(count: int, rng: np.random.Generator) -> np.ndarray:
    """The poses that the nodes offer by name, (N, J, 3, 3)."""
    table = np.stack([named_pose(name).double().numpy() for name in pose_names()])
    return table[rng.integers(len(table), size=count)]


def action_poses(
    names: tuple[str, ...], count: int, rng: np.random.Generator, joints: np.ndarray, ground: float
) -> np.ndarray:
    """Moments of the synthetic actions of the nano model and of the fit's clips, (N, J, 3, 3)."""
    per_clip = 6
    out: list[np.ndarray] = []
    while len(out) * per_clip < count:
        name = names[int(rng.integers(len(names)))]
        side = ("left", "right")[int(rng.integers(2))]
        speed = tuple(SPEEDS)[int(rng.integers(3))]
        if name in FILLS:
            tracks = standing_tracks(CLIP_FRAMES, joints)
            FILLS[name](tracks, Timing(np.arange(CLIP_FRAMES) / FPS * SPEEDS[speed], rng))
            local, _ = solve_tracks(tracks, joints, ground)
        else:
            action = ACTION_NAMES.index(name)
            request = ActionRequest(action, side if ACTIONS[action].sided else "", speed)
            local, _ = perform(request, joints, ground, CLIP_FRAMES, FPS, rng)
        out.append(local[rng.choice(len(local), per_clip, replace=False)])
    return np.concatenate(out)[:count]


def jittered(local: np.ndarray, rng: np.random.Generator, degrees: float) -> np.ndarray:
    """Every joint turned a little, hinges mostly about their axis, toes and fingers less."""
    size = np.full((24, 3), degrees)
    size[[4, 5, 18, 19]] *= 0.4
    size[[4, 5], 0] = size[[18, 19], 1] = degrees * 1.2
    size[[10, 11, 22, 23]] *= 0.4
    turn = size * rng.standard_normal((len(local), 24, 3))
    bent = _r("y", turn[..., 1]) @ _r("x", turn[..., 0]) @ _r("z", turn[..., 2])
    return local @ bent


def mirrored(local: np.ndarray) -> np.ndarray:
    """The same poses with left and right exchanged."""
    flip = np.diag([-1.0, 1.0, 1.0])
    return flip @ local[:, list(MIRROR_JOINT)] @ flip


def recombined(local: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Some poses get the arms, some the legs (with the root) of another pose."""
    out = local.copy()
    for joints in ([13, 16, 18, 20, 22], [14, 17, 19, 21, 23], [1, 4, 7, 10, 2, 5, 8, 11, 0]):
        chosen = np.flatnonzero(rng.random(len(local)) < share)
        donors = rng.integers(len(local), size=len(chosen))
        out[chosen[:, None], joints] = local[donors[:, None], joints]
    return out

"""The synthetic people: drawn from seeds, feet planted, the first frame silent about the action."""

import numpy as np
import pytest
from comfyui_comovi.comovi_model.nano.actions import ACTIONS, SPEEDS, ActionRequest, perform
from comfyui_comovi.comovi_model.nano.draw import draw_clip
from comfyui_comovi.comovi_model.nano.people import load_nano_body
from comfyui_comovi.comovi_model.nano.scene import forward_kinematics, sample_scene, skin
from comfyui_comovi.comovi_model.nano.sentences import PHRASES, encode_words, mentioned_colours, write_sentence
from comfyui_comovi.comovi_model.nano.skeleton import L_ANKLE, R_ANKLE, mirror_motion

BODY = load_nano_body()
GROUND = float(BODY.v_template[:, 1].min())
REQUESTS = [
    ActionRequest(i, side, "") for i, a in enumerate(ACTIONS) for side in (("left", "right") if a.sided else ("",))
]


def performed(request, seed=0):
    return perform(request, BODY.joints, GROUND, 33, 16.0, np.random.default_rng(seed))


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: f"{ACTIONS[r.action].name}-{r.side}")
def test_every_action_is_a_motion_of_rotations_that_stays_above_the_floor(request_):
    rotations, pelvis = performed(request_)
    assert np.abs(rotations @ np.swapaxes(rotations, -1, -2) - np.eye(3)).max() < 1e-9
    assert np.linalg.det(rotations).min() > 0.999
    vertices, _ = skin(BODY, np.zeros(10), rotations, pelvis - BODY.joints[0])
    assert vertices[..., 1].min() > -0.06  # soles may dip by what a pitched foot needs
    assert np.abs(np.diff(rotations, axis=0)).max() < 1.1  # no jumps: a punch, 0.16 s, has 0.99 between two frames


def test_there_are_sixteen_actions_and_seven_have_sides():
    assert len(ACTIONS) == 16
    assert sum(a.sided for a in ACTIONS) == 7
    assert set(PHRASES) == {a.name for a in ACTIONS}


class Average:
    """A generator that always draws the middle: no personal differences."""

    def uniform(self, low, high, size=None):
        return (low + high) / 2 * np.ones(size or ())

    def normal(self, mean, deviation, size=None):
        return mean * np.ones(size or ())


def test_the_first_frame_does_not_give_the_action_away():
    first = [perform(r, BODY.joints, GROUND, 2, 16.0, Average()) for r in REQUESTS]
    for rotations, pelvis in first[1:]:
        assert np.abs(rotations[0] - first[0][0][0]).max() < 1e-9
        assert np.abs(pelvis[0] - first[0][1][0]).max() < 1e-9


def test_right_is_the_mirror_image_of_left():
    left, right = performed(ActionRequest(6, "left", "")), performed(ActionRequest(6, "right", ""))
    rotations, pelvis = mirror_motion(*left)
    assert np.abs(rotations - right[0]).max() < 1e-12
    assert np.abs(pelvis - right[1]).max() < 1e-12


def test_a_side_is_refused_where_an_action_has_none_and_demanded_where_it_has():
    with pytest.raises(ValueError, match="has no side"):
        performed(ActionRequest(0, "left", ""))
    with pytest.raises(ValueError, match="needs side"):
        performed(ActionRequest(1, "", ""))


def test_planted_feet_do_not_slide():
    rotations, pelvis = performed(ActionRequest(0, "", ""))  # walk
    _, joints = forward_kinematics(rotations, pelvis - BODY.joints[0], BODY.joints)
    for ankle in (L_ANKLE, R_ANKLE):
        track = joints[:, ankle]
        planted = track[:, 1] < track[:, 1].min() + 1e-3
        both = planted[1:] & planted[:-1]
        assert both.sum() >= 4
        assert np.abs(np.diff(track[:, [0, 2]], axis=0)[both]).max() < 2e-3


def test_speed_words_change_how_fast_the_same_movement_runs():
    def turned(speed):
        rotations, _ = performed(ActionRequest(1, "left", speed))
        return rotations[12, 0, 0, 2]

    assert turned("slowly") < turned("") < turned("quickly")
    assert set(SPEEDS) == {"slowly", "", "quickly"}


def test_a_clip_is_a_pure_function_of_its_seed():
    first, again, other = (draw_clip(sample_scene(s, BODY), BODY, slice(0, 5)) for s in (3, 3, 4))
    assert np.array_equal(first.video, again.video)
    assert np.array_equal(first.motion_map, again.motion_map)
    assert not np.array_equal(first.video, other.video)
    assert (first.motion_map[0] == 255).all(-1).mean() > 0.6  # white around the body


def test_every_sentence_of_the_grammar_is_understood():
    rng = np.random.default_rng(0)
    for request in REQUESTS * 5:
        sentence = write_sentence(request, "red", "blue", rng)
        ids, unknown = encode_words(sentence)
        assert not unknown
        assert (ids > 1).sum() == len(sentence.split())
        if "shirt" in sentence:
            assert mentioned_colours(sentence) == ("red", "blue")

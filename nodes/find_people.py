"""CoMoVi_FindPeople: who is in the pictures, with a preview of boxes and keypoints."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io

from ..comovi_model.errors import ComoviError
from ..comovi_model.estimate.draw_people import draw_people
from ..comovi_model.estimate.finder import find_people
from ..comovi_model.estimate.people import (
    CHOICES,
    Person,
    all_within,
    choose_people,
    crowd_note,
    cut_note,
)
from ..comovi_model.estimate.people_from import people_from_masks
from .choices import listed
from .frames import Steps, batch_of, frames_of
from .schema import make_schema
from .shown_text import shown_text
from .who import People, mask_of, people_of_frames, who_inputs


class FindPeople(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_FindPeople",
            "Find People",
            "estimate",
            description="Who is in a picture or video: boxes and keypoints, numbered, for Estimate Pose and Estimate "
            "Motion. Looks by itself, or shows what another detector says.",
            search_aliases=["person detection", "detect people", "keypoints", "openpose", "bounding box", "dwpose"],
            has_intermediate_output=True,
            inputs=[
                io.Image.Input("images", tooltip="A picture, or the frames of a video."),
                *who_inputs(CHOICES, "all"),
            ],
            outputs=[
                People.Output(display_name="people", tooltip="For Estimate Pose, Estimate Motion and Find People."),
                io.Image.Output(display_name="preview", tooltip="The pictures with boxes, numbers and keypoints."),
                io.Int.Output(display_name="count", tooltip="How many people are in the first picture."),
                io.String.Output(display_name="report", tooltip="Who was found where."),
            ],
        )

    @classmethod
    def validate_inputs(cls, who=None):
        return listed(cls, {"who": who})

    @classmethod
    def execute(cls, images, who, index, people=None, mask=None) -> io.NodeOutput:
        frames = frames_of(images, "images").numpy()
        size = frames.shape[1:3]
        given = people_of_frames(people, size, len(frames))
        painted = mask_of(mask, size) if who == "mask" else None
        steps, found, drawn, lines = Steps(len(frames)), [], [], []
        refusal = ComoviError("no person was found in any picture; wire boxes, masks or keypoints of another detector.")
        for number, frame in enumerate(frames):
            those = []
            try:
                those = (
                    _seen(frame, painted if number == 0 else None) if given is None else all_within(given[number], size)
                )
                chosen = choose_people(those, who, index=index, mask=painted)
            except ComoviError as error:
                if len(frames) == 1:
                    raise
                refusal = error if those else refusal  # somebody is there, but not who is asked for
                chosen = []  # a person may leave the view
            found.append(chosen)
            drawn.append(torch.from_numpy(draw_people(frame, chosen)))
            if number == 0:
                notes = [crowd_note(those, chosen), *(cut_note(one, size) for one in chosen)]
                lines = [*map(_line, range(len(chosen)), chosen), *(note for note in notes if note)]
            steps(number + 1)
        if not any(found):
            raise refusal
        seen = sum(bool(one) for one in found)
        report = "\n".join([f"people in {seen} of {len(frames)} pictures", *lines])
        return io.NodeOutput(found, batch_of(torch.stack(drawn)), len(found[0]), report, ui=shown_text(report))


def _seen(frame: np.ndarray, painted: np.ndarray | None) -> list[Person]:
    """Whom our finder sees; a painted mask is somebody, whatever it sees."""
    people = find_people(frame)
    if painted is None:
        return people
    try:
        choose_people(people, "mask", mask=painted)
    except ComoviError:
        return people_from_masks(painted, (painted.shape[0], painted.shape[1]))
    return people


def _line(number: int, person) -> str:
    left, top, right, bottom = (round(side) for side in person.box)
    points = f", {person.seen()} keypoints" if person.keypoints is not None else ""
    return f"{number}: box {left}, {top} to {right}, {bottom}{points}, score {person.score:.2f}"


NODES = [FindPeople]

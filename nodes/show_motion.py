"""Nodes to look at motions: turntable, sheet of poses, path and contacts, comparison, and the page with a 3D player."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..comovi_model.motion_io.adapt import for_body
from ..comovi_model.show.compare import compare_motions, draw_comparison
from ..comovi_model.show.page import write_page
from ..comovi_model.show.page_video import encoded
from ..comovi_model.show.painter import STYLES
from ..comovi_model.show.path_plot import draw_path_plot
from ..comovi_model.show.sheet import LARGEST, SMALLEST, draw_sheet
from ..comovi_model.show.turntable import VIEWS, iter_views
from .choices import listed
from .frames import Steps, check_interrupt, frames_of
from .motion_map import check_size
from .output_files import next_file, prefix_problem
from .schema import Body, BodyMotion, make_schema

STYLE_TIP = "solid: a lit body of one colour. parts: a colour per body part. normals: the direction of the surface. "
STYLE_TIP += "wireframe: edges only."


def _motion() -> io.Input:
    return BodyMotion.Input("motion", tooltip="The motion to look at, in any axes.")


def _body() -> io.Input:
    return Body.Input("body", tooltip="The body that is drawn; the mannequin has the finer surface.")


def _style() -> io.Input:
    return io.Combo.Input("style", options=list(STYLES), default=STYLES[0], tooltip=STYLE_TIP)


def _title(tooltip: str) -> io.Input:
    return io.String.Input("title", default="", tooltip=tooltip)


def _page(picture: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 as a batch of one."""
    return torch.from_numpy(picture.astype(np.float32) / 255)[None]


class MotionTurntable(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        size = {"min": 64, "max": 4096, "step": 16}
        return make_schema(
            "CoMoVi_MotionTurntable",
            "Motion Turntable",
            "look",
            description="Films a motion on a stage with floor and shadow: a camera that circles the moving person, or "
            "one that stands in front, to the side, behind or above. One picture per frame.",
            search_aliases=["turntable", "orbit", "side view", "render motion", "preview", "camera around", "3d view"],
            inputs=[
                _motion(),
                _body(),
                io.Combo.Input(
                    "view",
                    options=list(VIEWS),
                    default=next(iter(VIEWS)),
                    tooltip="From where; sides are the person's own, as in the first pose.",
                ),
                io.Float.Input(
                    "turns",
                    default=1.0,
                    min=-20.0,
                    max=20.0,
                    step=0.25,
                    tooltip="How often the turntable goes round during the clip; below 0 the other way.",
                ),
                io.Int.Input("width", default=640, tooltip="Pixels of the pictures.", **size),
                io.Int.Input("height", default=640, tooltip="Pixels of the pictures.", **size),
                _style(),
                io.Boolean.Input("follow", default=True, tooltip="The camera goes along with a person who walks away."),
                io.Boolean.Input(
                    "captions", default=True, tooltip="Writes the time and the frame number into the corner."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="One picture per frame of the motion."),
                io.Float.Output(display_name="fps", tooltip="Frames per second of the motion, for Create Video."),
            ],
        )

    @classmethod
    def validate_inputs(cls, view=None, style=None):
        return listed(cls, {"view": view, "style": style})

    @classmethod
    def execute(cls, motion, body, view, turns, width, height, style, follow, captions) -> io.NodeOutput:
        motion, _ = for_body(motion, body)
        check_size(len(motion), height, width)
        steps = Steps(len(motion))
        images = torch.empty(len(motion), height, width, 3)
        pictures = iter_views(
            motion, body, height, width, view=view, turns=turns, style=style, follow=follow, captions=captions
        )
        for number, picture in enumerate(pictures):
            images[number] = picture
            steps(number + 1)
        return io.NodeOutput(images, float(motion.fps))


class MotionSheet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_MotionSheet",
            "Motion Sheet",
            "look",
            description="A motion on one page: its poses as ghosts along the path, or side by side when the person "
            "stays in place, and a film strip from the front and from the side.",
            search_aliases=["contact sheet", "poses", "ghost", "film strip", "storyboard", "key poses", "overview"],
            inputs=[
                _motion(),
                _body(),
                _title("A heading, such as the sentence of the clip."),
                io.Int.Input("poses", default=8, min=2, max=24, step=1, tooltip="How many poses are shown."),
                io.Int.Input(
                    "width", default=1600, min=SMALLEST, max=LARGEST, step=16, tooltip="Pixels; the height follows."
                ),
                _style(),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The page.")],
        )

    @classmethod
    def validate_inputs(cls, style=None):
        return listed(cls, {"style": style})

    @classmethod
    def execute(cls, motion, body, title, poses, width, style) -> io.NodeOutput:
        check_interrupt()
        motion, _ = for_body(motion, body)
        return io.NodeOutput(_page(draw_sheet(motion, body, title=title, poses=poses, width=width, style=style)))


class MotionPlot(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_MotionPlot",
            "Motion Plot",
            "look",
            description="The path of the pelvis from above with footprints, its height and speed, the height of the "
            "feet, and when each foot stands on the floor.",
            search_aliases=["trajectory", "root path", "foot contact", "foot skate", "graph", "curves", "chart"],
            inputs=[_motion(), _body(), _title("A heading; empty for a plain one.")],
            outputs=[io.Image.Output(display_name="image", tooltip="The page of curves.")],
        )

    @classmethod
    def execute(cls, motion, body, title) -> io.NodeOutput:
        check_interrupt()
        motion, _ = for_body(motion, body)
        return io.NodeOutput(_page(draw_path_plot(motion, body, title=title)))


class CompareMotions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_CompareMotions",
            "Compare Motions",
            "look",
            description="How far the joints of two motions are apart, frame by frame: as they are, and with the "
            "pelvises at one place (MPJPE), with the angle between their rotations and the mean of every joint.",
            search_aliases=["mpjpe", "error", "difference", "evaluate", "before after", "distance", "metrics"],
            inputs=[
                BodyMotion.Input("first", tooltip="For example the motion before it was cleaned."),
                BodyMotion.Input("second", tooltip="For example the motion after it; of the same rate."),
                Body.Input("body", tooltip="The body that both move."),
                io.String.Input("first_name", default="first", tooltip="What the page calls the first motion."),
                io.String.Input("second_name", default="second", tooltip="What the page calls the second motion."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The page of curves."),
                io.String.Output(display_name="report", tooltip="The same in sentences."),
            ],
        )

    @classmethod
    def execute(cls, first, second, body, first_name, second_name) -> io.NodeOutput:
        check_interrupt()
        (first, _), (second, _) = for_body(first, body), for_body(second, body)
        comparison = compare_motions(first, second, body)
        page = draw_comparison(comparison, (first_name, second_name))
        return io.NodeOutput(_page(page), "\n".join(comparison.report()))


class MotionPage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_MotionPage",
            "Motion Page (3D Player)",
            "look",
            description="Writes one HTML file that plays the moving body in 3D, beside its video if you give it. It "
            "opens in any browser, needs no network and no other file: made to be sent to people.",
            search_aliases=["html", "3d viewer", "player", "web page", "share", "three.js", "interactive", "export"],
            is_output_node=True,
            inputs=[
                _motion(),
                _body(),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="The video of the same clip, at the rate of the motion; it plays in step with the body.",
                ),
                _title("The heading of the page; empty for the file's name."),
                io.String.Input(
                    "filename_prefix",
                    default="pages/comovi",
                    tooltip="Folder and beginning of the name, below the output folder.",
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="The file, from the output folder.")],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix=None):
        return prefix_problem(filename_prefix)

    @classmethod
    def execute(cls, motion, body, title, filename_prefix, images=None) -> io.NodeOutput:
        check_interrupt()
        motion, _ = for_body(motion, body)
        video = None if images is None else encoded(frames_of(images, "images").numpy(), motion.fps)
        target = next_file(filename_prefix, ".html")
        write_page(target.path, motion, body, title=title, video=video)
        return io.NodeOutput(target.relative, ui=target.listing())


NODES = [MotionTurntable, MotionSheet, MotionPlot, CompareMotions, MotionPage]

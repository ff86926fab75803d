"""CoMoVi_LoadMotion and CoMoVi_SaveMotion: motions from files and into files."""

from __future__ import annotations

import os
from collections.abc import Iterator

import folder_paths
from comfy_api.latest import io

from ..comovi_model.body.upright import levelled
from ..comovi_model.errors import ComoviError
from ..comovi_model.motion_io import FORMATS, NAMINGS, ROOTS, for_body, read_motion, write_motion
from ..comovi_model.motion_io.writing import options_of
from ..comovi_model.nano.examples import EXAMPLES, example_motion
from .choices import listed
from .frames import check_interrupt
from .input_files import file_state, named_file
from .output_files import next_file, prefix_problem
from .schema import ADVANCED, Body, BodyMotion, make_schema

READABLE = {row.suffix for row in FORMATS.values() if row.reads} | {".gltf", ".pth", ".joblib"}
ADVISED = {".fbx", ".abc", ".usdc", ".usd"}  # listed, too: reading one says what to make of it
WRITABLE = [row.name for row in FORMATS.values() if row.writes]
DEEPEST, MOST_FILES = 5, 100_000  # of what is looked through below a folder, so that a full disk does not stop the menu
AS_IN_FILE, OUTPUT = "as in the file", " [output]"
UNITS = ("m", "cm", "mm", "inch", "foot")
SPACES = ("world", "camera")
EXAMPLE_FILES = {f"{name} (example)": name for name in EXAMPLES}  # come with this pack


def motion_files() -> list[str]:
    """Motion files below the input folder, those below the output folder, marked as the core marks them, examples."""
    own = sorted(_below(folder_paths.get_input_directory()))
    made = sorted(_below(folder_paths.get_output_directory()))
    return [*own, *(name + OUTPUT for name in made), *EXAMPLE_FILES]


def _below(folder: str) -> Iterator[str]:
    """Paths from `folder`, with forward slashes; links to elsewhere are not followed."""
    seen = 0
    for place, folders, files in os.walk(folder):
        inner = os.path.relpath(place, folder)
        if inner.count(os.sep) >= DEEPEST - 1:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            seen += 1
            if os.path.splitext(name)[1].lower() in READABLE | ADVISED and not name.startswith("."):
                yield os.path.normpath(os.path.join(inner, name)).replace("\\", "/")
        if seen > MOST_FILES:
            return


def file_path(choice: str) -> str:
    """The path of an entry of motion_files, or of a file that this list is too short for."""
    path = named_file(choice, READABLE | ADVISED)
    if path is None:
        raise ComoviError(f"file {str(choice)[:120]!r} is not in ComfyUI's input folder; put a motion file there.")
    return path


class LoadMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_LoadMotion",
            "Load Motion",
            "motion",
            description="Reads a motion from ComfyUI's input folder, or one that was saved to its output folder. What "
            "the file is, is found out from its content: our own files, AMASS, SMPL-X, BVH, GLB, GVHMR, WHAM and more.",
            search_aliases=["bvh", "amass", "npz", "smpl", "mocap", "motion capture", "import animation", "glb", "fbx"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=motion_files(),
                    tooltip="A motion file of the input or output folder, or an example of this pack. Press R in the "
                    "browser after you have put a new file there.",
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=0.01,
                    tooltip="Frames per second, for files that do not say it or say it wrongly; 0 believes the file.",
                ),
                io.Combo.Input(
                    "up_axis",
                    options=[AS_IN_FILE, "y", "z", "x"],
                    default=AS_IN_FILE,
                    tooltip="Which axis of the file points up. Change it if the body lies on its side.",
                ),
                Body.Input(
                    "body",
                    optional=True,
                    tooltip="The body that shall move so: files of other skeletons (BVH, GLB, joints) go onto its "
                    "skeleton, and shape numbers of other bodies are dropped.",
                ),
                io.Combo.Input(
                    "units",
                    options=[AS_IN_FILE, *UNITS],
                    default=AS_IN_FILE,
                    optional=True,
                    tooltip="Units of length of a skeleton file, if the body comes out as a giant or a dwarf.",
                    **ADVANCED,
                ),
                io.Combo.Input(
                    "space",
                    options=[AS_IN_FILE, *SPACES],
                    default=AS_IN_FILE,
                    optional=True,
                    tooltip="For results of estimators that hold both: the path over the floor, or as the camera sees.",
                    **ADVANCED,
                ),
                io.String.Input(
                    "person",
                    default="",
                    optional=True,
                    tooltip="Which person of a file with several; empty takes the one who is there longest.",
                    **ADVANCED,
                ),
            ],
            outputs=[
                BodyMotion.Output(display_name="motion", tooltip="The motion, in the axes of the file."),
                io.String.Output(display_name="info", tooltip="What the file is and what was assumed or left out."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file=None, up_axis=None, units=None, space=None):
        others = {"up_axis": up_axis, "units": units, "space": space}
        return listed(cls, others if named_file(file, READABLE | ADVISED) else {"file": file, **others})

    @classmethod
    def fingerprint_inputs(cls, file, **others):
        return file_state(file, lambda name: None if name in EXAMPLE_FILES else file_path(name))

    @classmethod
    def execute(cls, file, fps, up_axis, body=None, units=AS_IN_FILE, space=AS_IN_FILE, person="") -> io.NodeOutput:
        if file in EXAMPLE_FILES:
            motion = example_motion(EXAMPLE_FILES[file])
            motion, notes = (motion, []) if body is None else for_body(motion, body)
            unheeded = {"fps": fps, "up_axis": up_axis, "units": units, "space": space, "person": person.strip()}
            given = [name for name, value in unheeded.items() if value and value != AS_IN_FILE]
            notes += [f"not heeded, as examples say it themselves: {', '.join(given)}"] if given else []
            says = f"an example: {len(motion)} frames at {motion.fps:g} per second, axes yup"
            return io.NodeOutput(motion, "\n".join([says, *notes]))
        chosen = {"up": up_axis, "units": units, "space": space, "fps": fps, "person": person.strip()}
        overrides = {name: value for name, value in chosen.items() if value and value != AS_IN_FILE}
        found = read_motion(file_path(file), body=body, **overrides)
        motion, adapted = (found.motion, []) if body is None else for_body(found.motion, body)
        lines = [
            f"{FORMATS[found.format].description} ({found.format})",
            f"{len(motion)} frames at {motion.fps:g} per second, {len(motion) / motion.fps:.2f} s; "
            f"axes {motion.frame}; body {motion.body_model}",
        ]
        return io.NodeOutput(motion, "\n".join([*lines, *found.notes, *adapted]))


class SaveMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        table = "; ".join(f"{row.name}: {row.description}" for row in FORMATS.values() if row.writes)
        return make_schema(
            "CoMoVi_SaveMotion",
            "Save Motion",
            "motion",
            description="Writes a motion into ComfyUI's output folder, for Blender, game engines or later use.",
            search_aliases=["bvh", "glb", "amass", "npz", "usd", "export animation", "blender", "unreal", "mixamo"],
            is_output_node=True,
            inputs=[
                BodyMotion.Input("motion", tooltip="The motion to write."),
                Body.Input("body", tooltip="The body that moves: its skeleton and its skin go into the file."),
                io.String.Input(
                    "filename_prefix",
                    default="motion/comovi",
                    tooltip="Folder and beginning of the name, below the output folder. %year%, %month%, %day%, "
                    "%hour%, %minute% and %second% are filled in.",
                ),
                io.Combo.Input("format", options=WRITABLE, default=WRITABLE[0], tooltip=table),
                io.Combo.Input(
                    "root",
                    options=list(ROOTS),
                    default=ROOTS[0],
                    tooltip="centred: on the floor, starting at the origin. absolute: where the camera or the file "
                    "had it. off: on the spot. Not for comovi and humanml3d.",
                    **ADVANCED,
                ),
                io.Combo.Input(
                    "joint_names",
                    options=list(NAMINGS),
                    default=NAMINGS[0],
                    tooltip="How the joints are called, for bvh, glb, usda and json.",
                    **ADVANCED,
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="The file, from the output folder.")],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix=None, format=None, root=None, joint_names=None):
        named = listed(cls, {"format": format, "root": root, "joint_names": joint_names})
        return prefix_problem(filename_prefix) if named is True else named

    @classmethod
    def execute(cls, motion, body, filename_prefix, format, root, joint_names) -> io.NodeOutput:
        check_interrupt()
        target = next_file(filename_prefix, FORMATS[format].suffix)
        seen = motion if format == "comovi" else levelled(motion, body)
        wanted = {"root": root, "names": joint_names}
        has = options_of(format)
        write_motion(target.path, seen, body, format, **{name: wanted[name] for name in wanted if name in has})
        return io.NodeOutput(target.relative, ui=target.listing())


NODES = [LoadMotion, SaveMotion]

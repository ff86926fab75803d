"""The `comovi-train` command: thin, and it imports what a verb needs only when that verb runs."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from ..comovi_model.errors import ComoviError

VERBS = {  # verb: (module with add_arguments(parser) and run(options) -> exit status, what it does)
    "doctor": (".doctor", "what is installed and what is missing for training"),
    "plan": (".plan", "parameters, memory per process, tokens, cache size and steps, before anything is allocated"),
    "example": (".data.example", "a folder of short synthetic videos with SMPL, to try everything on"),
    "prepare": (".data.prepare", "videos and SMPL to aligned clips, first frames and motion maps"),
    "cache": (".data.cache", "clips to latents and text embeddings, once and for all"),
    "data": (".data.command", "import, export and check lists of clips"),
    "curate": (".curation.command", "split and filter raw videos"),
    "train": (".train", "train by a preset or a settings file"),
    "resume": (".resume", "go on with a run from its last checkpoint"),
    "sample": (".sampling", "make sample videos with the weights of a run"),
    "eval": (".eval.command", "measure motions and videos, and print them beside the paper's tables"),
    "export": (".export", "the weights of a run as files for ComfyUI and comovi_model"),
    "timesteps": (".timesteps", "the distribution of noise levels that the settings lead to"),
    "watch": (".watch", "curves and samples of a run as a page"),
    "ablate": (".ablate", "the paper's ablations in miniature"),
    "benchmark": (".benchmark", "throughput: our engines beside a plain loop, and the share of data loading"),
    "kill-test": (".kill_test", "kill a run at random moments and resume it: the weights must not differ by a bit"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 2 for what the user can mend, 130 when it was interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="comovi-train", description="Train CoMoVi, from videos to weights.", formatter_class=_Wide
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, (_, summary) in VERBS.items():
        verbs.add_parser(verb, help=summary, add_help=False)
    try:
        if not arguments or arguments[0] not in VERBS:
            parser.parse_args(arguments or ["--help"])
            return 0
        return _run_verb(arguments[0], arguments[1:])
    except ComoviError as error:
        # The processes of a run end with one sentence together, so one per machine tells it; others fail by themselves.
        told = arguments[0] in ("train", "resume") and os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")) != "0"
        if not told:
            print(f"comovi-train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _run_verb(verb: str, arguments: list[str]) -> int:
    module_name, summary = VERBS[verb]
    try:
        module = importlib.import_module(module_name, __package__)
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith(str(__package__)):
            raise ComoviError(f"the verb {verb} is not part of this version.") from None
        raise ComoviError(f"{verb} needs {error.name}: pip install 'comfyui-comovi[train]'.") from None
    parser = argparse.ArgumentParser(
        prog=f"comovi-train {verb}",
        description=summary,
        formatter_class=_Wide,
        allow_abbrev=False,  # a --processes that is cut short would be handed on to every process
    )
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(arguments)) or 0)


class _Wide(argparse.HelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=32, width=110)


def command() -> None:
    """The console script. A process of a group leaves at once when it is done: DeepSpeed's threads abort an ordinary
    exit now and then."""
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    if "deepspeed" in sys.modules:
        os._exit(status)
    sys.exit(status)

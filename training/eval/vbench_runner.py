"""Runs VBench on a folder of videos; started by video_eval.py with the Python of VBench's own environment.

    python vbench_runner.py '{"videos": DIR, "out": DIR, "name": NAME, "dimensions": [...], "device": "cuda"}'

It imports nothing of this package.
"""

import importlib
import json
import os
import sys


def main() -> None:
    wanted = json.loads(sys.argv[1])
    vbench = importlib.import_module("vbench")
    info = os.path.join(vbench.__path__[0], "VBench_full_info.json")
    judge = vbench.VBench(wanted["device"], info, wanted["out"])
    judge.evaluate(
        videos_path=wanted["videos"], name=wanted["name"], dimension_list=wanted["dimensions"], mode="custom_input"
    )


if __name__ == "__main__":
    main()

"""What a graph or a service may hand to our nodes, in the Python of both ComfyUIs: see input_checks.py."""

from __future__ import annotations

import pytest
from run_in_comfy import run_checks


@pytest.mark.parametrize("role", ["new", "old"])
def test_odd_inputs_are_read_or_refused_in_a_sentence(comfyui_servers, tmp_path, role):
    said = run_checks(comfyui_servers, role, "input_checks.py", str(tmp_path))
    # a file is found by its name, though the list of the widget was cut short; nothing outside the folders is
    assert not said["listed"] and said["accepted"] is True and said["frames"] == 0
    assert said["outside"] == [False] * 6
    assert said["photo"] == [True, [1, 48, 64, 3], "64 x 48"]
    # a changed file is read again; a name that comes by a wire does not make the node run again each time
    assert said["changed"]
    assert said["wired"] == ["", "", "", "", "", "['', '']"]
    assert said["seen"] == [1, 1, 0]
    assert "person 5 is asked for, but 1 person was found" in said["index"]
    assert said["mask"].startswith("the mask is empty")
    assert said["joined"] == [4, 64, 64, 3]
    assert "128 x 192 pixels, and 192 x 192 has another shape" in said["stretched"]
    assert "GiB of memory" in said["turntable"] and "GiB of memory" in said["overlay"]

"""The picture of a run's log."""

import json
import sys

from comfyui_comovi.training import plot_log


def test_a_log_becomes_curves(tmp_path, monkeypatch):
    log, picture = tmp_path / "log.jsonl", tmp_path / "log.svg"
    checked = {"validation/loss": 2.0} | {
        f"validation/{b}@{q}": q for b in ("motion", "video") for q in (0.5, 0.7, 1.0)
    }
    rows = [{"step": s, "video": 1.0, "motion": 0.9, "pose": 0.02, **checked} for s in (8, 16)]
    log.write_text("\n".join(json.dumps(r) for r in [*rows, {"step": 20, "video": 0.5}]))
    training, validation = plot_log.read_lines(log)
    assert [line.name for line in training] == ["video", "motion map", "pose x 10"]
    assert training[0].points == [(8, 1.0), (16, 1.0), (20, 0.5)]
    assert [line.name for line in validation] == ["motion@0.5", "motion@1.0", "video@0.5", "video@1.0"]
    assert validation[1].points == [(8, 1.0), (16, 1.0)]
    monkeypatch.setattr(sys, "argv", ["plot_log", str(log), str(picture)])
    plot_log.main()
    assert picture.read_text().count("<polyline") == 7

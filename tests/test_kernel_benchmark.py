"""The benchmark's harness on a CPU: ceilings, the gate of correctness, files of rows, choices, predictions."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from comfyui_comovi.comovi_model.comovi import step_benchmark
from comfyui_comovi.kernels import attention_libraries
from comfyui_comovi.kernels.benchmark import ceilings, report, run
from comfyui_comovi.kernels.benchmark.cases import cases
from comfyui_comovi.kernels.benchmark.timing import Row, read_rows, write_rows

CPU = torch.device("cpu")
TINY = ceilings.Size(1, 2, 6, 48, 64, 4, 5, 2, torch.float32)


@pytest.fixture(scope="module")
def rows():
    """Without the interpreter, which tests of the kernels use; a few milliseconds for each row."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "interpreted", lambda: False)
        limits, found = ceilings.measure(TINY, CPU, 0.0)
        return found + run.measure(TINY, TINY, CPU, limits, 0.0, lambda line: None)


def test_every_operation_is_right_and_timed(rows):
    assert [row.note for row in rows if not row.passed] == []
    assert {row.op for row in rows} >= {"copy", "product", "attention", *(case.op for case in cases(TINY, CPU))}
    assert {row.provider for row in rows} >= {"literal", "eager", "torch"}
    assert all(row.ms > 0 and row.p20_ms <= row.ms <= row.p80_ms for row in rows)
    assert all(row.pct_floor > 0 for row in rows if row.floor_ms)


def test_what_is_wrong_has_no_time():
    case = next(cases(TINY, CPU))
    limits = ceilings.Ceilings(1e9, 1e9)
    for call, said in (
        (lambda *inputs: case.run(*inputs) * 1.001, "wrong"),
        (lambda *inputs: torch.zeros(3) @ torch.zeros(2), "failed"),
    ):
        row = run.one(case, case, "ours", call, run.use_backend("torch"), CPU, limits, 0.0, TINY)
        assert row.ms is None
        assert not row.passed
        assert row.note.startswith(said)


def test_floors_are_of_bytes_or_of_products():
    limits = ceilings.Ceilings(bytes_per_second=1e9, flops_per_second=1e12)
    assert limits.floor_ms(1e6, 0) == pytest.approx(1.0)
    assert limits.floor_ms(1e6, 1e10) == pytest.approx(10.0)
    made = {case.op: case for case in cases(TINY, CPU)}
    stream = 1 * 2 * 6 * 48 * 4
    assert made["norm_modulate"].moved == 2 * stream
    assert made["join_norm"].moved == 4 * stream
    assert made["qk_norm_rope"].moved == 4 * stream


def test_rows_come_back_from_their_file(rows, tmp_path):
    path = tmp_path / "deep" / "rows.csv"
    write_rows(path, rows)
    back = read_rows(path)
    assert len(back) == len(rows)
    for ours, theirs in zip(back, rows, strict=True):
        for field in fields(Row):
            a, b = getattr(ours, field.name), getattr(theirs, field.name)
            assert a == pytest.approx(b, abs=1e-5) if isinstance(b, float) else a == b


def test_the_report_marks_what_is_measured_and_what_is_predicted(rows):
    work = {"elementwise_bytes": 0.387e12, "gemm_flops": 660e12, "attention_flops": 509e12}
    text = "\n".join(report.lines(rows, work))
    assert "norm_modulate" in text
    assert "of floor" in text
    [h200] = [line for line in text.splitlines() if line.startswith("H200")]
    assert "1.84s" in h200
    assert "1.19s" in h200
    assert "published rates" in h200
    gpu = [replace(row, gpu="GPU X") for row in rows]
    assert "rates measured here" in "\n".join(report.lines(gpu, work))
    assert "no predictions" in "\n".join(report.lines(rows, {}))


def timing(op, provider, ms, rate=None, shape="s"):
    return Row(op, provider, shape, "bf16", ms, ms, ms, 1.0, 1.0, rate, "GB/s", 0.0, True, "", "GPU X", "", "", "")


def test_a_back_end_must_win_by_five_percent():
    found = run.winners([
        timing("join_norm", "torch", 2.0), timing("join_norm", "compile", 1.0), timing("join_norm", "triton", 0.97),
        timing("norm_modulate", "torch", 2.0), timing("norm_modulate", "triton", 1.0),
        timing("norm_modulate", "comfy-kitchen", 0.9), replace(timing("qk_norm_rope", "triton", 0.1), passed=False),
        timing("attention", "torch", 5.0, 400.0, "long"), timing("attention", "cudnn", 4.0, 500.0, "long"),
        timing("attention", "sage", 2.0, 1000.0, "long"), timing("attention", "flash", 0.1, 900.0, "short"),
    ])  # fmt: skip
    assert found == {"join_norm": "torch", "norm_modulate": "comfy-kitchen", "attention": "cudnn"}


def test_attention_libraries_say_why_they_are_not_used(monkeypatch):
    q = torch.zeros(1, 2, 3, 8)
    assert attention_libraries.refusal("torch", q, q, q) == "tensors on cpu"
    assert all(attention_libraries.missing(name) for name in attention_libraries.LIBRARIES) or torch.cuda.is_available()
    assert attention_libraries.explain().startswith("attention: torch (not measured")
    monkeypatch.setenv("COMOVI_ATTENTION", "sage")
    assert attention_libraries.chosen() == "sage"
    monkeypatch.setenv("COMOVI_ATTENTION", "fast")
    with pytest.raises(ValueError, match="expected auto or one of torch, cudnn"):
        attention_libraries.chosen()
    monkeypatch.setenv("COMOVI_ATTENTION", "auto")
    monkeypatch.setattr(attention_libraries, "measured", lambda: {"attention": "cudnn"})
    monkeypatch.setattr(attention_libraries, "missing", lambda name: "")
    assert attention_libraries.chosen() == "cudnn"


def test_steps_of_both_orders_agree_on_a_cpu(monkeypatch):
    monkeypatch.setattr(step_benchmark, "interpreted", lambda: False)
    found = {(row.op, row.provider): row for row in step_benchmark.measure(CPU, 0.0)}
    assert set(found) == {("block", "torch"), ("step", "literal"), ("step", "torch")}
    assert all(row.passed and row.error < 1e-4 for row in found.values())

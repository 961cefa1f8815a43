"""From a folder with several targets and two cameras to exported networks that are measured on it."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("av")
pytest.importorskip("lightning")

import msgspec  # noqa: E402

from mmedge.export.training import load_weights, make_dataset, train_and_save  # noqa: E402
from tests.tiny_training import write_project  # noqa: E402

pytestmark = pytest.mark.usefixtures("own_cache", "one_thread")


@pytest.mark.long
@pytest.mark.timeout(400)
def test_every_task_learns_from_its_column_and_is_told_epoch_by_epoch(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from mmedge.export.measure import measure
    from mmedge.export.onnx.to_onnx import to_onnx

    recipe = write_project(tmp_path / "p", (160, 40, 40))
    recipe = msgspec.structs.replace(recipe, train=msgspec.structs.replace(recipe.train, epochs=20))
    report = train_and_save(recipe)
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert len(told) == 20
    assert all(part in told[-1] for part in ("epoch 20 of 20: loss ", "validation ", "side ", "loud ", "level error "))
    assert told[-1].endswith("0 s left")
    full = "front+rear+sound+imu"
    assert report.validation["side"][full] >= 0.9
    assert report.validation["loud"][full] >= 0.55  # a third by chance
    assert report.validation["level"][full] < 0.5  # of 0..2; guessing the mean errs by 0.5
    assert report.metrics == {"side": "top1", "loud": "top1", "level": "mae", "same": "accuracy"}
    samples = report.samples
    assert samples["loud"][full] < samples["side"][full]  # where a cell is empty nothing is judged
    assert set(report.temperature) == {"side", "loud", "same"}

    data = make_dataset(recipe)
    data.prepare()
    model, _ = load_weights(recipe)
    raw = [data.split("validation")[number].inputs for number in range(40)]
    complete = [{name: array[None] for name, array in sample.items()} for sample in raw if len(sample) == 4]
    measured = measure([to_onnx(model, recipe, samples=complete[:4])], data)
    for task in ("side", "loud", "level", "same"):
        assert measured.fp32[task][full] == pytest.approx(report.validation[task][full], abs=0.03)
    assert measured.counts["loud"][full].samples == samples["loud"][full]

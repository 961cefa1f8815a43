"""The export lines of the documentation, on the shipped weights; and a bundle for one modality, down the same path."""

from __future__ import annotations

from pathlib import Path

import pytest

import mmedge

pytest.importorskip("torch", reason="the toolchain; type: pip install -e '.[export]'")

from mmedge import export
from mmedge.export.shipped import shipped_recipe
from mmedge.export.training import load_weights
from mmedge.export.training.masks import all_masks

pytestmark = [pytest.mark.parallel, pytest.mark.long]

ASSETS = Path(mmedge.__file__).parent / "assets" / "digits"


@pytest.mark.slow
def test_four_lines(tmp_path: Path) -> None:
    recipe = shipped_recipe("av_digits")
    model, metadata = load_weights(recipe)
    onnx = export.to_onnx(model, recipe)
    int8 = export.quantize(onnx, recipe.calibration)
    comparison = export.compare(onnx, int8, recipe.calibration)
    comparison.raise_for_status(max_drop_points=recipe.calibration.max_drop_points)
    path = export.pack(tmp_path / "digits.mmedge", recipe, [onnx, int8])
    with mmedge.load(path) as bundle, mmedge.load(ASSETS / "digits.mmedge") as shipped:
        assert bundle.tasks["digit"].temperature == pytest.approx(metadata["temperature"]["digit"])
        present = {m.present for m in bundle.manifest.validated_masks}
        assert present == set(all_masks(("image", "audio", "text")))
        for mine, theirs in zip(bundle.manifest.variants, shipped.manifest.variants, strict=True):
            # Another CPU sums in another order: figures differ in their last digits.
            assert (mine.file, mine.target, mine.precision) == (theirs.file, theirs.target, theirs.precision)
            assert mine.tolerance == pytest.approx(theirs.tolerance, rel=0.2)
            assert (mine.quantization is None) == (theirs.quantization is None)
            if mine.quantization is not None and theirs.quantization is not None:
                # Those of the shipped bundle are of the samples that chose its form; these are of others.
                assert mine.quantization.sqnr_db == pytest.approx(theirs.quantization.sqnr_db, abs=7)
                assert mine.quantization.float_nodes == theirs.quantization.float_nodes
        assert all(m.value > 0.5 for m in bundle.manifest.validated_masks)


@pytest.mark.slow
def test_one_modality_goes_the_same_path(tmp_path: Path) -> None:
    path = export.run(shipped_recipe("digits_image"), output=tmp_path / "image.mmedge")
    clip = str(ASSETS / "clips" / "clean.mp4")
    with mmedge.Pipeline(path, {"image": clip}, latency="offline") as pipe:
        labels = [result.tasks["digit"].label for result in pipe]
    assert len(labels) == 400
    assert len({label for label in labels if label not in (None, "none")}) >= 4

"""Stages that no input of a run feeds: not loaded, and nobody sees a difference."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import mmedge
from mmedge.bundle.manifest import Stage
from mmedge.errors import InternalError
from mmedge.fusion import load, load_graph
from mmedge.fusion.unfed import UnfedStage, unfed_stages

DIGITS = Path(mmedge.__file__).parent / "assets" / "digits"


def answers(clip: str) -> list[object]:
    options = {"isolation": "thread", "latency": "offline", "backend": "onnxruntime"}
    with mmedge.Pipeline(DIGITS / "digits.mmedge", {"image": clip, "audio": clip}, **options) as pipe:  # type: ignore[arg-type]
        found = [(r.present, r.reason, msgspec.to_builtins(r.tasks)) for r in pipe]
        assert ("text_encoder" in pipe.statistics.backends) is (load.unfed_stages is not unfed_stages)
        return [*found, pipe.statistics.evidence]


def test_a_run_answers_as_with_all_stages_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = str(DIGITS / "clips" / "clean.mp4")
    left_out = answers(clip)
    monkeypatch.setattr(load, "unfed_stages", lambda manifest, fed: frozenset())
    assert answers(clip) == left_out
    assert len(left_out) > 20


def test_what_is_left_out_is_neither_loaded_nor_run() -> None:
    with mmedge.load(DIGITS / "digits.mmedge") as bundle:
        read: list[str] = []
        real = bundle.read
        bundle.read = lambda member: read.append(member) or real(member)  # type: ignore[method-assign, func-returns-value]
        graph = load_graph(bundle, backend="onnxruntime", fed=["image"])
        try:
            kinds = {stage.name: isinstance(stage, UnfedStage) for stage in graph.stages}
            assert kinds == {
                "image_encoder": False,
                "audio_encoder": True,
                "text_encoder": True,
                "fusion": False,
            }
            assert not any(name.startswith(("audio", "text", "tokenizer", "golden/text")) for name in read)
            assert graph.describe().keys() == graph.served.keys() == {"image_encoder", "fusion"}
            with pytest.raises(InternalError):
                graph.stages[1].engine.run()
        finally:
            graph.close()


def test_which_stages_nothing_reaches() -> None:
    with mmedge.load(DIGITS / "digits.mmedge") as bundle:
        manifest = bundle.manifest
    embedding: tuple[str | int, ...] = ("batch", 64)
    behind = Stage(inputs={"x": "text_encoder.embedding"}, outputs={"y": embedding})
    rule = Stage(inputs={"x": "text_encoder.embedding"}, outputs={"y": embedding}, callable="theirs:rule")
    masks = Stage(inputs={"x": "@present"}, outputs={"y": embedding})
    stream = Stage(inputs={"x": "audio", "h": "@state:h"}, outputs={"h": embedding}, every_ms=20)
    heard = Stage(inputs={"x": "stream.h"}, outputs={"y": embedding})
    own = {"behind": behind, "rule": rule, "masks": masks, "stream": stream, "heard": heard}
    more = msgspec.structs.replace(manifest, stages={**manifest.stages, **own})
    assert unfed_stages(more, ["image"]) == {"audio_encoder", "text_encoder", "behind"}
    assert unfed_stages(more, ["audio"]) == {"image_encoder", "text_encoder", "behind"}
    assert unfed_stages(more, ["text"]) == {"image_encoder", "audio_encoder"}
    assert unfed_stages(more, manifest.inputs) == frozenset()

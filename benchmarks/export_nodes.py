"""The cases of the `onnx` package through our path, against plain ONNX Runtime: equal, or refused by name.

``python -m benchmarks.export_nodes [--quick] [--json]``; what is not equal is listed on stderr. Every case whose
expected outputs ONNX Runtime gives is loaded as one network, rewritten to its normal form, and brought along as a stage
of a recipe where the types of its inputs are those of seats. A case counts as equal if the loaded network and its
normal form give what ONNX Runtime does.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.harness import BenchmarkReport, Row, host, main, versions
from mmedge.errors import MmedgeError

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")
GOAL = 0.98
# As onnx's own runner compares.
RELATIVE, ABSOLUTE = 1e-3, 1e-7
_SEATS = ("float32", "float16", "int32", "int64", "uint8")
Verdict = Literal["equal", "refused", "wrong", "traceback", "no seat"]


class Case(NamedTuple):
    """One network with inputs and the outputs that are expected."""

    kind: str
    name: str
    model: onnx.ModelProto
    inputs: list[Any]
    expected: list[Any]


class Outcome(NamedTuple):
    """What became of one case on one way; ``why`` says what was refused or is wrong."""

    way: str
    verdict: Verdict
    why: str = ""


def cases(kind: str) -> Iterator[Case]:
    """Yield the cases of one kind, the first data set of each."""
    from onnx.backend.test.loader import load_model_tests

    for test in load_model_tests(kind=kind):
        if test.model is not None and test.data_sets:
            inputs, outputs = test.data_sets[0]
            yield Case(kind, test.name, test.model, [_value(v) for v in inputs], [_value(v) for v in outputs])
        elif test.model_dir is not None:
            folder = Path(test.model_dir)
            model = onnx.load(folder / "model.onnx")
            data = folder / "test_data_set_0"
            weights = {tensor.name for tensor in model.graph.initializer}
            signature = [value for value in model.graph.input if value.name not in weights]
            inputs = [_read(data / f"input_{i}.pb", value.type) for i, value in enumerate(signature)]
            outputs = [_read(data / f"output_{i}.pb", value.type) for i, value in enumerate(model.graph.output)]
            yield Case(kind, test.name, model, inputs, outputs)


def run_case(case: Case, folder: Path) -> list[Outcome] | None:
    """Return what became of a case on each way; None where ONNX Runtime itself does not give what is expected."""
    weights = {tensor.name for tensor in case.model.graph.initializer}
    names = [value.name for value in case.model.graph.input if value.name not in weights]
    feeds = {name: value for name, value in zip(names, case.inputs, strict=False) if value is not None}
    try:
        want = _plain(case.model, feeds)
        if not _all_equal(want, case.expected):
            return None
    except Exception:  # onnxruntime raises one private class per status code
        return None
    return [
        _tried("load_engine", lambda: _loaded(case.model, feeds, folder), want),
        _tried("normal form", lambda: _normal(case.model, feeds, folder), want),
        _as_stage(case.model, feeds, folder, want),
    ]


def _plain(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, feeds)
    return found


def _loaded(model: onnx.ModelProto, feeds: dict[str, Any], folder: Path) -> list[Any]:
    from mmedge import load_engine

    path = folder / "case.onnx"
    onnx.save(model, path)
    arrays = {name: value if isinstance(value, list) else np.asarray(value) for name, value in feeds.items()}
    shapes = {name: value.shape for name, value in arrays.items() if isinstance(value, np.ndarray)}
    with load_engine(path, "onnxruntime", shapes=shapes) as engine:
        made = engine(arrays)
        return [made[value.name] for value in model.graph.output]


def _normal(model: onnx.ModelProto, feeds: dict[str, Any], folder: Path) -> list[Any]:
    from mmedge.export.onnx.normal_form import normal_form

    return _loaded(normal_form(model, feeds=[feeds]), feeds, folder)


def _as_stage(model: onnx.ModelProto, feeds: dict[str, Any], folder: Path, want: list[Any]) -> Outcome:
    from mmedge.export import Recipe
    from mmedge.export.brought.brought import bring

    arrays = {name: np.asarray(value) for name, value in feeds.items() if not isinstance(value, list)}
    if (
        not arrays
        or len(arrays) < len(feeds)
        or any(a.dtype.name not in _SEATS or a.ndim == 0 or a.size == 0 for a in arrays.values())
    ):
        return Outcome("stage", "no seat", "an input of a type or rank that no seat has")
    onnx.save(model, folder / "net.onnx")
    seats = "".join(
        f'[inputs.s{i}]\nmodality = "tensor"\nshape = {list(a.shape)}\ndtype = "{a.dtype.name}"\n'
        for i, a in enumerate(arrays.values())
    )
    inputs = ", ".join(f'"{name}" = "s{i}"' for i, name in enumerate(arrays))
    text = f'name = "c"\nlicence = "MIT"\n{seats}[stages.net]\nonnx = "net.onnx"\ninputs = {{ {inputs} }}\n'
    (folder / "recipe.toml").write_text(text + '[sync]\ntrigger = "s0"\n[tasks]\n')

    def run() -> list[Any]:
        made = bring(Recipe.load(folder / "recipe.toml"))[1]["net"]
        return _loaded(made, arrays, folder)

    # A stage hands on float32, whatever float its network gives.
    return _tried("stage", run, [_widened(value) for value in want])


def _tried(way: str, run: Any, want: list[Any]) -> Outcome:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = run()
    except MmedgeError as error:
        return Outcome(way, "refused", error.message.splitlines()[0])
    except Exception as error:  # whatever is not refused by name is a fault of ours
        return Outcome(way, "traceback", f"{type(error).__name__}: {str(error)[:160]}")
    return Outcome(way, "equal") if _all_equal(want, got) else Outcome(way, "wrong", "the outputs differ")


def _all_equal(want: list[Any], got: list[Any]) -> bool:
    return len(want) == len(got) and all(_equal(a, b) for a, b in zip(want, got, strict=True))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)) or isinstance(b, (list, tuple)):
        return isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and _all_equal(list(a), list(b))
    if a is None or b is None:
        return a is None and b is None
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind not in "fc":
        return bool((a == b).all())
    return bool(np.allclose(a, b, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True))


def _widened(value: Any) -> Any:
    if isinstance(value, list) or value is None:
        return value
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype in (np.float16, np.float64) else value


def _value(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _read(path: Path, kind: onnx.TypeProto) -> Any:
    raw = path.read_bytes()
    if kind.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(raw))
    if kind.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(raw))
    return numpy_helper.to_array(onnx.TensorProto.FromString(raw))


def measure(quick: bool) -> BenchmarkReport:
    """Run the cases of onnx through our path; quick: every sixth of them, whose shares decide nothing."""
    rows: list[Row] = []
    targets: dict[str, float] = {}
    listed: Counter[tuple[str, str, str, str]] = Counter()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        for kind in KINDS:
            counts, stages = Counter[str](), Counter[str]()
            with warnings.catch_warnings():  # the cases divide by zero and overflow on purpose
                warnings.simplefilter("ignore")
                found = sorted(cases(kind), key=lambda case: case.name)
            for case in found[:: 6 if quick else 1]:
                outcomes = run_case(case, Path(temporary))
                if outcomes is None:
                    counts["not judged"] += 1
                    continue
                for outcome in outcomes:
                    if outcome.verdict not in ("equal", "no seat"):
                        listed[kind, outcome.way, outcome.verdict, f"{case.name}: {outcome.why}"] += 1
                worst = max((o.verdict for o in outcomes[:2]), key=("equal", "refused", "wrong", "traceback").index)
                counts[worst] += 1
                stages[outcomes[2].verdict] += 1
            judged = sum(count for verdict, count in counts.items() if verdict != "not judged")
            ratio = counts["equal"] / max(judged, 1)
            name = "node_cases_equal_ratio" if kind == "node" else f"{kind.replace('-', '_')}_cases_equal_ratio"
            targets[name] = ratio
            what = f"{kind}: {judged} cases that ONNX Runtime passes; as a stage {dict(stages)}"
            others: dict[str, float | None] = {
                verdict: float(counts[verdict]) for verdict in ("refused", "wrong", "traceback")
            }
            rows.append(Row(what=what, unit="cases", ours=float(counts["equal"]), peers=others, ratio=None))
    for (kind, way, verdict, text), _ in sorted(listed.items()):
        print(f"{kind:18} {way:12} {verdict:10} {text}", file=sys.stderr)
    return BenchmarkReport(
        name="export_nodes",
        title="Cases of the onnx package through our path, against plain ONNX Runtime",
        host=host(),
        conditions={**versions("onnx", "onnxruntime"), "seconds": round(time.monotonic() - began_s, 1)},
        evidence="cpu",
        rows=rows,
        targets=targets,
        missed=[name for name, value in targets.items() if value < GOAL and not quick],
    )


if __name__ == "__main__":
    main(measure)

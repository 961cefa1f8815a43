"""From ranges to the quantised form that keeps the answers: rules, equalisation, layers left float, in this order.

Each step is taken only while the one before it loses more than the recipe allows, as measured on samples held out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from onnx import ModelProto

from mmedge.errors import CheckError
from mmedge.types import AnyArray, Tensors

from ..judge import judge
from ..onnx.parity import check_rewrite
from ..parts import CHOOSING, MIN_SAMPLES, choose, spread
from ..preprocess.onnx_prefix import Preprocessor
from ..recipe import Recipe
from ..recordings import LazySamples, RawSample
from ..report import ratio_db
from ..stages import StageGraph, fed_back, masks, seats_of
from .answers import Reference, TaskComparison, judged_outputs
from .compare import Comparison
from .equalize import equalize
from .forms import INT8, Form
from .ranges import RULES, RangeCollector, Rule
from .sensitivity import rank

# Below this a stage without a seat of its own (a fusion network, a few thousand operations) gains nothing from int8.
MIN_FUSION_SQNR_DB = 20.0
MIN_SQNR_DB = 20.0
_RANKED_ON = 8
_log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class Network:
    """One stage on its way to fewer bits.

    Attributes:
        model: The fp32 network in normal form; equalised, once it is.
        nodes: Those to quantise.
        tensors: Those that need a range.
        shapes: Tensor -> shape, where known.
        reasons: Weighted node that stays float -> why.
        equalized: Pairs of layers that were equalised.
        feeds: A few frames of its inputs.
    """

    model: ModelProto
    nodes: tuple[str, ...]
    tensors: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    equalized: int = 0
    feeds: list[Tensors] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class Draft:
    """One attempt.

    Attributes:
        rule: By which ranges are cut off.
        models: Stage -> quantised network; stages that stay float are left out.
        refused: Stage -> node -> why it stays float.
        stays_float: Stage -> why it stays float as a whole.
        sqnr_db: ``STAGE.OUTPUT`` -> signal to noise on fp32 inputs; while searching, of stages without a seat alone.
        rows: How it agrees with fp32.
        failure: Why it is not good enough; None if it is.
        noisy: Whether an output has so much noise that samples held out may have been lucky.
        equalized: Stage -> pairs of layers that were equalised.
        ranges: Stage -> tensor -> magnitude beyond which it is cut off.
        worst: The layers that cost most, where that was measured.
    """

    rule: Rule
    models: Mapping[str, ModelProto]
    refused: Mapping[str, Mapping[str, str]]
    stays_float: Mapping[str, str]
    sqnr_db: Mapping[str, float]
    rows: tuple[TaskComparison, ...]
    failure: str | None
    noisy: bool
    equalized: Mapping[str, int]
    ranges: Mapping[str, Mapping[str, float]]
    worst: tuple[str, ...] = ()

    @property
    def merit(self) -> tuple[bool, float, float]:
        """What makes a draft better: it passes; it agrees, where it does not pass; its noise is low."""
        agreement = min((row.agreement for row in self.rows), default=1.0)
        noise = [min(row.sqnr_db, 100.0) for row in self.rows] or list(self.sqnr_db.values())
        return self.failure is None, 0.0 if self.failure is None else agreement, float(np.mean(noise or [0.0]))


class Search:
    """Looks for the quantised form of all stages together.

    Args:
        recipe: Gives graph, tasks, rule and what may be lost.
        models: The fp32 networks of all stages.
        networks: Those to quantise.
        frames: Raw samples that give the ranges.
        held_out: Raw samples to choose by; what is chosen is judged on others (``compare``).
        judging: Those others, for the noise of what was chosen; None where there are too few.
        form: In what they are to run.
    """

    def __init__(
        self,
        recipe: Recipe,
        models: Mapping[str, ModelProto],
        networks: Mapping[str, Network],
        frames: Sequence[RawSample],
        held_out: Sequence[RawSample],
        judging: Sequence[RawSample] | None = None,
        form: Form = INT8,
    ) -> None:
        self._form = form
        self._recipe, self._models, self._networks, self._frames = recipe, models, networks, frames
        self._held_out = _some(recipe, held_out)
        self._judging = None if judging is None else _some(recipe, judging)
        self._preprocess = Preprocessor(recipe.inputs, recipe.export.opset)
        self._reference = Reference(recipe, models, self._held_out)
        self._float_nodes: dict[str, dict[str, str]] = {name: {} for name in networks}
        self._ranges: dict[str, RangeCollector] = {}
        self._with_values = False

    def __call__(self) -> Draft:
        """Return the best form that was found; the first that is good enough."""
        own = self._recipe.calibration.rule
        if self._form.rule is not None:  # without ranges, rules are those of the weights
            best = self._best(("max", *(rule for rule in RULES if rule in self._form.by_rule)))
            return self._complete(self._leave_float(best) if best.failure is not None else best)
        rules = RULES[:4] if own == "auto" else (own,)  # entropy is tried only where it is asked for
        best = self._best(rules)
        if (best.failure is not None or best.noisy) and own != "auto":
            kind = self._form.precision.upper()
            _log.info("%s by rule '%s': %s; other rules are tried", kind, own, best.failure or "much noise")
            best = max(best, self._best([rule for rule in RULES[:4] if rule != own]), key=lambda draft: draft.merit)
        if (best.failure is not None or best.noisy) and self._equalize():
            best = max(best, self._best(RULES[:4]), key=lambda draft: draft.merit)
        if best.failure is not None:
            best = self._leave_float(best)
        return self._complete(best)

    def _complete(self, best: Draft) -> Draft:
        """Return a draft with the SQNR of every output."""
        if self._judging is not None and best.models:
            return replace(best, sqnr_db={**best.sqnr_db, **self._stage_sqnr(best.models, self._judging)})
        known = {**self._judged_alone(best), **best.sqnr_db}
        left = {
            name: model
            for name, model in best.models.items()
            if any(f"{name}.{output}" not in known for output in self._recipe.stages[name].outputs)
        }
        return replace(best, sqnr_db={**known, **(self._stage_sqnr(left, self._held_out) if left else {})})

    def _judged_alone(self, draft: Draft) -> dict[str, float]:
        """Return the SQNR of outputs that were judged, of stages that take seats alone: nothing else adds noise."""
        recipe = self._recipe
        rows = {row.task: row.sqnr_db for row in draft.rows if row.present == tuple(recipe.inputs)}
        outputs = {output: rows[name] for name, output in judged_outputs(recipe).items() if name in rows}
        alone = {name for name in draft.models if not recipe.stages[name].links and not recipe.stages[name].states}
        return {output: db for output, db in outputs.items() if output.rpartition(".")[0] in alone}

    def _best(self, rules: Sequence[Rule]) -> Draft:
        self._collect(values=not {"max", "frame-quantile"}.issuperset(rules))
        return max((self._draft(rule) for rule in rules), key=lambda draft: draft.merit)

    def _collect(self, *, values: bool) -> None:
        """Run the fp32 networks over the calibration samples under every mask and note how large tensors are."""
        if self._ranges and (self._with_values or not values):
            return
        self._with_values = values
        recipe, networks = self._recipe, self._networks
        others = {name: judge(model, name) for name, model in self._models.items() if name not in networks}
        self._ranges = {
            name: RangeCollector(n.model, n.tensors, name, values=values, shapes=n.shapes)
            for name, n in networks.items()
        }
        everything = tuple(recipe.inputs)
        graphs = {
            mask: StageGraph(recipe, {**others, **{name: _Watched(c, mask) for name, c in self._ranges.items()}})
            for mask in masks(recipe)
        }
        states: dict[str, AnyArray] = {}
        ranked = set(spread(len(self._frames), _RANKED_ON))
        last: RawSample | None = None
        for index, sample in enumerate(self._frames):
            states, last = states if sample.follows(last) else {}, sample
            tensors = {**self._preprocess(sample.arrays), **states}
            known = graphs[everything](tensors)
            for mask, graph in graphs.items():
                if mask != everything:
                    graph(tensors, mask, reuse=known)
            for name, network in networks.items():
                if index in ranked and len(network.feeds) < _RANKED_ON:
                    network.feeds.append(graphs[everything].feeds(name, known, last=states))
            states = fed_back(recipe, known)
        for engine in others.values():
            engine.close()
        for collector in self._ranges.values():
            collector.close()

    def _draft(self, rule: Rule, float_nodes: Mapping[str, Mapping[str, str]] | None = None) -> Draft:
        recipe = self._recipe
        float_nodes = self._float_nodes if float_nodes is None else float_nodes
        models: dict[str, ModelProto] = {}
        refused: dict[str, dict[str, str]] = {}
        ranges = {name: self._thresholds(name, rule) for name in self._networks}
        for name, network in self._networks.items():
            nodes = [node for node in network.nodes if node not in float_nodes[name]]
            models[name], own = self._form.by(rule)(network.model, nodes, ranges[name], f"stage '{name}'")
            refused[name] = {**float_nodes[name], **own}
        seatless = {n: m for n, m in models.items() if not seats_of(recipe.stages[n].inputs, recipe.inputs)}
        sqnr = self._stage_sqnr(seatless, self._held_out) if seatless else {}
        stays: dict[str, str] = {}
        for name in list(models):
            worst = min((db for output, db in sqnr.items() if output.rpartition(".")[0] == name), default=200.0)
            if worst < MIN_FUSION_SQNR_DB:
                kind = self._form.precision
                stays[name] = f"{worst:.1f} dB in {kind}, at least {MIN_FUSION_SQNR_DB:.0f} wanted"
            if len(refused[name]) == len(self._networks[name].nodes):
                every = "it loses too much with any of its layers" if float_nodes[name] else "none of its nodes can be"
                stays[name] = f"{every} quantised"
            if name in stays:
                del models[name]
        rows = self._reference.compare(models) if models else ()
        compared = Comparison(a="fp32", b=self._form.precision, rows=rows)
        # Labels of a few samples differ by chance: they are no reason to look for something else.
        enough = all(row.samples >= MIN_SAMPLES for row in rows)
        failure = compared.failure(recipe.calibration.max_drop_points) if enough else None
        return Draft(
            rule=rule,
            models=models,
            refused=refused,
            stays_float=stays,
            sqnr_db=sqnr,
            rows=rows,
            failure=None if failure is None else failure.message,
            equalized={name: network.equalized for name, network in self._networks.items()},
            ranges=ranges,
            noisy=any(row.sqnr_db < MIN_SQNR_DB for row in rows),
        )

    def _thresholds(self, stage: str, rule: Rule) -> dict[str, float]:
        calibration = self._recipe.calibration
        own = calibration.rule == rule or (calibration.rule == "auto" and rule == "frame-quantile")
        return self._ranges[stage].thresholds(rule, calibration.quantile if own else None)

    def _stage_sqnr(self, int8: Mapping[str, ModelProto], samples: Sequence[RawSample]) -> dict[str, float]:
        """Return the SQNR of each stage's outputs on fp32 inputs, so that each stage answers for itself."""
        recipe = self._recipe
        exact = {name: judge(model, name) for name, model in self._models.items()}
        coarse = {name: judge(model, name) for name, model in int8.items()}
        graph = StageGraph(recipe, exact)
        power: dict[str, float] = {}
        noise: dict[str, float] = {}
        states: dict[str, AnyArray] = {}
        last: RawSample | None = None
        for sample in samples:
            states, last = states if sample.follows(last) else {}, sample
            known = graph({**self._preprocess(sample.arrays), **states})
            for stage, run in coarse.items():
                for output, got in run(graph.feeds(stage, known, last=states)).items():
                    name, want = f"{stage}.{output}", known[f"{stage}.{output}"].astype(np.float64)
                    power[name] = power.get(name, 0.0) + float(np.square(want).sum())
                    noise[name] = noise.get(name, 0.0) + float(np.square(want - got).sum())
            states = fed_back(recipe, known)
        for engine in (*exact.values(), *coarse.values()):
            engine.close()
        return {name: ratio_db(power[name], noise[name]) for name in power}

    def _equalize(self) -> bool:
        """Equalise every network that has pairs of layers to equalise; tell whether one has."""
        changed = False
        for name, network in self._networks.items():
            model, pairs = equalize(network.model)
            if not pairs:
                continue
            try:
                check_rewrite(network.model, model, "equalisation", network.feeds[:2], where=f"stage '{name}'")
            except CheckError as error:
                _log.warning("stage '%s' is not equalised: %s", name, error.message)
                continue
            _log.info("stage '%s': %d pairs of layers equalised", name, pairs)
            network.model, network.equalized, changed = model, pairs, True
        if changed:
            self._ranges = {}
        return changed

    def _leave_float(self, best: Draft) -> Draft:
        """Leave the layers float that cost most, as many as it takes, at most half of them."""
        if not self._ranges:
            self._collect(values=True)
        ranking: list[tuple[float, str, str]] = []
        for name in best.models:
            network = self._networks[name]
            nodes = [node for node in network.nodes if node not in best.refused[name]]
            if network.feeds:
                thresholds = self._thresholds(name, best.rule)
                found = rank(network.model, nodes, thresholds, network.feeds, self._form.by(best.rule))
                ranking += [(db, name, node) for node, db in found]
        ranking.sort()
        worst = tuple(f"{stage}: {node} ({db:.1f} dB alone)" for db, stage, node in ranking[:3])
        best = replace(best, worst=worst)
        count = 1
        while count <= len(ranking) // 2:
            chosen: dict[str, dict[str, str]] = {name: {} for name in self._networks}
            for db, stage, node in ranking[:count]:
                chosen[stage][node] = f"it alone costs most: {db:.1f} dB"
            draft = replace(self._draft(best.rule, chosen), worst=worst)
            if draft.merit > best.merit:
                best = draft
            if best.failure is None:
                break
            count *= 2
        return best


def _some(recipe: Recipe, samples: Sequence[RawSample]) -> Sequence[RawSample]:
    return LazySamples(samples.__getitem__, choose(recipe, len(samples), CHOOSING))


class _Watched:
    """A collector as a runner of the graph, for one mask."""

    def __init__(self, collector: RangeCollector, group: object) -> None:
        self.inputs, self.outputs = collector.inputs, collector.outputs
        self._run = partial(collector, group=group)

    def __call__(self, feeds: Tensors) -> dict[str, AnyArray]:
        return self._run(feeds)

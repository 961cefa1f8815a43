"""The plan of a run: manifest and options, worked out once; what runs reads nothing else of how to run."""

from mmedge.plan.bounds import hold_ns
from mmedge.plan.make import make_plan
from mmedge.plan.parts import Due, Hearing, Plan, SeatPlan, StagePlan, SyncPlan
from mmedge.plan.presets import apply_preset
from mmedge.plan.read import load_plan, read_plan
from mmedge.plan.stages import plan_stage, plan_stages
from mmedge.plan.sync import plan_sync

__all__ = [
    "Due",
    "Hearing",
    "Plan",
    "SeatPlan",
    "StagePlan",
    "SyncPlan",
    "apply_preset",
    "hold_ns",
    "load_plan",
    "make_plan",
    "plan_stage",
    "plan_stages",
    "plan_sync",
    "read_plan",
]

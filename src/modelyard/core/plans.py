"""Plans as users write them: completed where they are silent, refused where they make no sense."""

from typing import Any

import msgspec

from modelyard.core.errors import InvalidConfig
from modelyard.core.rollout import Plan, Step, Strategy
from modelyard.core.smoke import check_test, default_tests

DEFAULT_STEPS: dict[Strategy, tuple[Step, ...]] = {
    "canary": (Step(share=0.05), Step(share=0.25), Step(share=0.5)),
    "shadow": (Step(share=1.0),),
}
"""Where a strategy has steps and none are named."""
_NEXT = "see docs/deployments.md for what a plan may hold"


def read_plan(written: dict[str, Any], model: str) -> Plan:
    """A plan for a version of the registered `model`; raises InvalidConfig, which names the place.

    Left out, `smoke` is what the model is known to answer; an empty list asks nothing.
    """
    try:
        plan = msgspec.convert(written, Plan)
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"the plan can't be used: {error}", next_step=_NEXT) from None
    if "smoke" not in written:
        plan = msgspec.structs.replace(plan, smoke=default_tests(model))
    if not plan.steps:
        plan = msgspec.structs.replace(plan, steps=DEFAULT_STEPS.get(plan.strategy, ()))
    _check(plan)
    return plan


def _check(plan: Plan) -> None:
    if plan.steps and plan.strategy not in DEFAULT_STEPS:
        raise InvalidConfig(
            f"the strategy {plan.strategy} has no steps",
            next_step="take the steps out, or choose canary or shadow",
        )
    shares = [step.share for step in plan.steps]
    if any(share == 0 for share in shares):
        raise InvalidConfig("a step with a share of 0 tries nothing", next_step=_NEXT)
    if plan.strategy == "canary" and any(share >= 1 for share in shares):
        raise InvalidConfig(
            "a canary step with a share of 1 leaves nothing to compare with",
            next_step="leave it out: the switch comes behind the last step",
        )
    if shares != sorted(shares):
        raise InvalidConfig(
            f"the shares {', '.join(f'{share:g}' for share in shares)} do not grow",
            next_step="order the steps by their share",
        )
    if not 0 < plan.canary.alpha < 1:
        raise InvalidConfig(
            f"alpha {plan.canary.alpha:g} is no chance between 0 and 1", next_step=_NEXT
        )
    if plan.canary.judge and "quality" not in plan.canary.watch:
        raise InvalidConfig(
            "canary.judge names a judge, and canary.watch does not name quality",
            next_step="add quality to canary.watch, or take the judge out",
        )
    if not plan.canary.watch:
        raise InvalidConfig("canary.watch names nothing to compare", next_step=_NEXT)
    for test in plan.smoke:
        check_test(test)

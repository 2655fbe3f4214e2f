"""Will this build work? Looked at before anything is paid for: catalog, files, credentials, clock, room, target.

One scene of each collection is opened, one object is written and removed. Every check is one line; a part that fails
does not keep the others from being looked at.
"""

from ingest.care.doctor import source, target
from ingest.care.doctor.check import Check, failing
from ingest.cost import Assumptions, estimate
from ingest.planner import Found, make_plan, survey
from ingest.request import Request
from pipeline.store import Store


def examine(request: Request, out: str, *, workers: int = 2) -> list[Check]:
    """Every check of `request`, to be written to `out` by `workers`."""
    checks: list[Check] = []
    found = Found(s2=[], s1=[], labels=[], unusable={})
    with failing(checks, "catalog", "Check --catalog"):
        found, _ = survey(request)
        checks += source.check_found(request, found)
    scenes = source.samples(found)
    for scene in scenes:
        with failing(checks, f"{scene.collection} {scene.scene_id}", "Check that the file exists and may be read"):
            checks += source.check_scene(scene)
    hrefs = [next(iter(scene.assets.values())).href for scene in scenes]
    checks += source.check_keys([request.catalog, *hrefs, out])
    with failing(checks, "clock", "Look whether the server can be reached"):
        checks += source.check_clock([*hrefs, request.catalog])
    with failing(checks, "target", "Give another --out"):
        checks += target.check_target(Store.at(out))
    with failing(checks, "plan", "Run `ingest plan`: it says why"):
        plan = make_plan(request)
        cost = estimate(plan, Assumptions(workers=max(1, workers)))
        checks.append(_planned(len(plan.tasks)))
        checks += target.check_room(Store.at(out), cost, workers=workers)
    return checks


def _planned(chips: int) -> Check:
    if chips:
        return Check(status="ok", name="plan", said=f"{chips} chips")
    todo = "Run `ingest plan`: it says why every cell is left out"
    return Check(status="fail", name="plan", said="no chip can be made", todo=todo)

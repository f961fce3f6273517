"""Judges on planted answers: each must pass what shows the claim and fail what does not."""

import numpy as np
import pytest
import xarray as xr

from poprnn.core import catalogue, recipe_files

RNG = np.random.default_rng(0)


def judged(name, answers, **rule):
    """Verdicts of a recipe by claim id; ``T5={"saturation_n": 10}`` changes a rule."""
    about = recipe_files.read(name)
    for claim in about["claims"]:
        claim.update(rule.get(claim["id"], {}))
    return {c.id: c for c in catalogue.find("recipes", name).judge(answers, about)}


def over_n(memories, members=4, noise=0.02, **variables):
    """Answers over (n, member): each variable a function of N, with noise."""
    memories = np.asarray(memories)
    return xr.Dataset(
        {
            name: (
                ("n", "member"),
                np.asarray(f(memories), float)[:, None] + noise * RNG.normal(size=(len(memories), members)),
            )
            for name, f in variables.items()
        },
        {"n": memories, "member": np.arange(members)},
    )


# --- network_timescales ---------------------------------------------------------------------------------------------


def network_answers(multi=lambda n: 4 * np.log(n), single=lambda n: 0.5 * n, agreement=0.97):
    common = {"aic_bic_agreement": lambda n: 0 * n + agreement, "median_r_squared": lambda n: 0 * n + 0.999}

    def one(memories, f):
        found = over_n(memories, mean=f, std=f, population_tau=f, **common)
        return found.assign(median_r_squared=found["median_r_squared"].clip(max=1))

    return {
        f"{task}-{c}": one(np.arange(2, 12 if c == "single_head" else 46), single if c == "single_head" else multi)
        for task in ("n_parity", "n_dms")
        for c in ("single_head", "multi_head")
    }


def test_network_timescales_pass_where_planted():
    found = judged("network_timescales", network_answers())
    assert found["T5"].passed and "not judged" not in found["T5"].note
    assert found["T6"].passed


@pytest.mark.parametrize(
    ("claim", "answers"),
    [
        ("T5", network_answers(multi=lambda n: 0.3 * n)),
        ("T5", network_answers(single=lambda n: 0 * n + 3)),
        ("T5", network_answers(multi=lambda n: 10 - 0.1 * n)),
        ("T5", network_answers(agreement=0.9)),
        ("T6", network_answers(multi=lambda n: 30 * np.log(n))),
        ("T6", network_answers(single=lambda n: 5 - 0.2 * n)),
    ],
    ids=["no saturation", "flat", "falling", "criteria disagree", "not comparable", "tau_pop falls"],
)
def test_network_timescales_fail_where_planted(claim, answers):
    assert judged("network_timescales", answers)[claim].passed is False


def test_saturation_is_not_judged_from_small_memories():
    short = {k: a.sel(n=slice(2, 20)) for k, a in network_answers().items()}
    assert "saturation not judged, largest N = 20" in judged("network_timescales", short)["T5"].note

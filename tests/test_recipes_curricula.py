"""Judges of the recipes about curricula, on planted answers: what shows the claim passes, what does not fails."""

import numpy as np
import pytest
import xarray as xr

from poprnn.core import catalogue, recipe_files

pytestmark = pytest.mark.usefixtures("few_resamples")

RNG = np.random.default_rng(0)


def judged(name, answers):
    """The verdict of a recipe with one claim."""
    (claim,) = catalogue.find("recipes", name).judge(answers, recipe_files.read(name))
    return claim


# --- no_curriculum --------------------------------------------------------------------------------------------------


def scratch(accuracy, epochs, members=4, budget=50):
    """What ``after_scratch`` gives; accuracy and epochs for each N, one number or one for each member."""
    memories = list(accuracy)
    by_member = lambda values: np.stack([np.broadcast_to(v, members) for v in values.values()], axis=1).reshape(-1)
    return xr.Dataset(
        {
            "n": ("member", np.tile(memories, members)),
            "accuracy": ("member", by_member(accuracy).astype(float)),
            "epochs": ("member", by_member(epochs).astype(float)),
        },
        {"member": np.arange(len(memories) * members)},
        {"epochs": budget, "steps_per_epoch": 600, "batch": 256},
    )


NEVER = np.nan


def scratch_answers(parity=None, dms=None, budget=50):
    accuracy = {5: 0.99, 8: 0.99, 10: 0.97, 11: 0.9, 12: [0.55, 0.6, 0.65, 0.99], 14: 0.5} | (parity or {})
    epochs = {5: 1, 9: [1, 2, 2, 1], 15: 20, 21: NEVER, 25: NEVER} | (dms or {})
    return {
        "n_parity": scratch(
            accuracy, {n: 5 if np.min(a) > 0.98 else NEVER for n, a in accuracy.items()}, budget=budget
        ),
        "n_dms": scratch(dict.fromkeys(epochs, 0.9), epochs, budget=budget),
    }


def test_no_curriculum_passes_where_planted():
    claim = judged("no_curriculum", scratch_answers())
    assert claim.passed and claim.note == ""
    assert claim.interval == pytest.approx([0.9, 0.9])


@pytest.mark.parametrize(
    "answers",
    [
        scratch_answers(parity={14: 0.985}),
        scratch_answers(parity={12: [0.5, 0.985, 0.99, 0.99]}),
        scratch_answers(dms={9: [1, 2, 2, 3]}),
        scratch_answers(dms={5: NEVER}),
        scratch_answers(dms={21: [NEVER, NEVER, NEVER, 40]}),
        scratch_answers(dms={5: NEVER, 9: NEVER, 21: 1, 25: 1}),
    ],
    ids=["parity solved", "by most", "DMS late", "DMS never", "DMS solved by one", "swapped"],
)
def test_no_curriculum_fails_where_planted(answers):
    assert judged("no_curriculum", answers).passed is False


def test_no_curriculum_says_what_it_could_not_judge():
    found = scratch_answers(budget=15)
    short = {task: a.isel(member=np.flatnonzero(a["n"].values <= 10)) for task, a in found.items()}
    claim = judged("no_curriculum", short)
    assert claim.passed is False and "parity, N > 10: no such N" in claim.note
    assert "stand-in: 15 epochs instead of 50" in claim.note
    empty = {task: a.isel(member=(a["n"].values > 9) & (a["n"].values <= 10)) for task, a in found.items()}
    assert judged("no_curriculum", empty).passed is None


def test_members_that_diverged_have_not_solved_anything():
    found = scratch_answers(parity={12: [NEVER, NEVER, NEVER, 0.99]}, dms={9: [1, NEVER, 1, 1]})
    assert judged("no_curriculum", found | {"n_dms": scratch_answers()["n_dms"]}).passed
    assert judged("no_curriculum", found).passed is False


# --- sliding_windows -----------------------------------------------------------------------------------------------

WINDOWS = (3, 5, 10)
LARGEST = {"single_head": 10, "window_3": 12, "window_5": 16, "window_10": 20, "multi_head": 24}
SLOPES = {"single_head": 0.3, "window_3": 0.2, "window_5": 0.15, "window_10": 0.1, "multi_head": -0.02}
RETRAINED = {"single_head": 0.5, "window_5": 0.88, "multi_head": 0.9}
RETRAINED_FAR = {"single_head": 0.4, "window_5": 0.9, "multi_head": 0.7}


def window_answers(largest=None, tau=None, tau_net=None, retrained=None, far=None):
    """Keywords replace single entries of what the claim would show."""
    out = {}
    wobble = np.array([-1, 0, 0, 1])
    for label, n in (LARGEST | (largest or {})).items():
        values = xr.Dataset({"largest_n": ("member", n + wobble)}, {"member": np.arange(4)}, {"epochs": 1000})
        out[f"{label}/largest_n"] = values.assign_attrs(largest_possible=101, members=4)
    memories = np.arange(2, 10)
    for label in SLOPES:
        blur = lambda: 0.01 * RNG.normal(size=(len(memories), 4))
        own, network = ((SLOPES | (change or {}))[label] * memories[:, None] + 2 + blur() for change in (tau, tau_net))
        out[f"{label}/tau_net"] = xr.Dataset({"mean": (("n", "member"), network)}, {"n": memories})
        n, who = np.meshgrid(memories, np.arange(4), indexing="ij")
        columns = {"n": n, "who": who, "mean": own, "sd": own}
        out[f"{label}/tau"] = xr.Dataset({k: ("moment", v.reshape(-1).astype(float)) for k, v in columns.items()})
    for start, n, accuracies in (
        ("from_n", 16, RETRAINED | (retrained or {})),
        ("far_n", 31, RETRAINED_FAR | (far or {})),
    ):
        for label, level in accuracies.items():
            values = np.full((0 if level is None else 4, 5), level or 0.0)
            out[f"{label}/{start}"] = xr.Dataset(
                {"relative_accuracy": (("member", "to"), values)},
                {"to": n + 1 + np.arange(5), "n": n},
                {"epochs": 20, "steps_per_epoch": 600},
            )
    return out


def test_sliding_windows_passes_where_planted():
    claim = judged("sliding_windows", window_answers())
    assert claim.passed is True and claim.note == ""
    assert claim.interval[0] >= 0.8


@pytest.mark.parametrize(
    "answers",
    [
        window_answers(largest={"window_3": 20, "window_10": 12}),
        window_answers(largest={"window_3": 16, "window_10": 16}),
        window_answers(largest={"window_10": 30}),
        window_answers(largest={"window_3": 8}),
        window_answers(largest={"single_head": 24, "multi_head": 10}),
        window_answers(tau={"window_5": -0.1}),
        window_answers(tau={"window_5": 0.0}),
        window_answers(tau={"window_3": 0.1, "window_10": 0.2}),
        window_answers(tau_net={"window_10": -0.1}),
        window_answers(tau_net={"window_3": 0.15, "window_5": 0.2}),
        window_answers(retrained={"window_5": 0.8}),
        window_answers(retrained={"single_head": 0.89}),
        window_answers(retrained={"window_5": None}),
        window_answers(far={"multi_head": 0.95}),
        window_answers(far={"single_head": 0.95}),
        window_answers(far={"single_head": None}),
    ],
    ids=[
        "swapped",
        "flat",
        "above multi-head",
        "below single-head",
        "curricula swapped",
        "tau falls",
        "tau flat",
        "tau faster with larger windows",
        "tau_net falls",
        "tau_net not ordered",
        "retrains worse",
        "retrains like single-head",
        "nobody to retrain",
        "multi-head better from 31",
        "single-head better from 31",
        "nobody to retrain from 31",
    ],
)
def test_sliding_windows_fails_where_planted(answers):
    assert judged("sliding_windows", answers).passed is False


def test_sliding_windows_leaves_the_far_start_to_the_scale_that_has_it():
    near = {k: a for k, a in window_answers().items() if not k.endswith("far_n")}
    near |= {
        k: a.assign_coords(n=8).assign_attrs(epochs=6, steps_per_epoch=200)
        for k, a in near.items()
        if k.endswith("from_n")
    }
    claim = judged("sliding_windows", near)
    assert claim.passed is True
    assert "stand-in: retraining from N = 8 instead of 16" in claim.note
    assert "retraining from N = 31 is not part of this scale" in claim.note


def test_sliding_windows_of_networks_that_solved_nothing():
    blank = {}
    for label, a in window_answers(retrained=dict.fromkeys(RETRAINED), far=dict.fromkeys(RETRAINED)).items():
        axis = "moment" if label.endswith("/tau") else "n" if label.endswith("/tau_net") else None
        blank[label] = a.isel({axis: slice(0)}) if axis else a
        if label.endswith("largest_n"):
            blank[label] = a * 0
    claim = judged("sliding_windows", blank)
    assert claim.passed is None and "nobody has solved any" in claim.note


# --- all_heads_at_once ----------------------------------------------------------------------------------------------


def head_answers(m=(8, 12, 16), factor=(3.0, 2.5, 2.0), explicit=lambda n: 1.0 * n - 1, order=lambda n: 1.0 * n):
    """``factor`` times the ``order`` is the epoch at which a head gets to 98 %."""

    def one(largest, f, budget=80):
        memories = np.arange(2, largest + 1)
        epoch = np.asarray(f(memories), float)[:, None] + np.array([-0.2, 0, 0, 0.2])
        return xr.Dataset({"epoch": (("n", "member"), epoch)}, {"n": memories, "member": np.arange(4)}).assign_attrs(
            budget=budget
        )

    out = {f"all_heads_{k}": one(k, lambda n, c=c: c * order(n)) for k, c in zip(m, factor, strict=True)}
    return {"multi_head": one(30, explicit)} | out


def test_all_heads_at_once_passes_where_planted():
    claim = judged("all_heads_at_once", head_answers())
    assert claim.passed is True and claim.interval[0] > 0.9
    assert "15 heads at most instead of 19" in claim.note
    assert not judged("all_heads_at_once", head_answers(m=(8, 12, 20))).note


def test_heads_that_were_not_reached_are_late():
    found = head_answers()
    found["all_heads_16"] = found["all_heads_16"].where(found["all_heads_16"]["n"] < 12)
    assert judged("all_heads_at_once", found).passed is True
    found["all_heads_16"] = found["all_heads_16"].where(found["all_heads_16"]["n"] < 8)
    assert judged("all_heads_at_once", found).passed is False
    assert "81 with 15 heads" in judged("all_heads_at_once", found).measured


def shuffled(found):
    values = found["all_heads_16"]["epoch"].values
    return found | {"all_heads_16": found["all_heads_16"].copy(data={"epoch": RNG.permuted(values, axis=0)})}


def unsolved(found, *labels):
    return found | {k: found[k].assign(epoch=found[k]["epoch"] * np.nan) for k in labels}


@pytest.mark.parametrize(
    "answers",
    [
        head_answers(order=lambda n: 18.0 - n, factor=(0.9, 0.8, 0.7)),
        head_answers(order=lambda n: 0.0 * n + 12),
        shuffled(head_answers()),
        head_answers(factor=(2.0, 2.5, 3.0)),
        head_answers(factor=(3.0, 2.0, 2.5)),
        head_answers(factor=(2.5, 2.5, 2.5)),
        head_answers(explicit=lambda n: 2.2 * n),
        head_answers(explicit=lambda n: 5.0 * n),
        unsolved(head_answers(), "multi_head"),
        head_answers(m=(8, 16), factor=(3.0, 2.0)),
    ],
    ids=[
        "largest first",
        "all at once",
        "shuffled",
        "later with more heads",
        "not in order",
        "equally soon",
        "explicit between",
        "explicit slower",
        "explicit never",
        "two populations",
    ],
)
def test_all_heads_at_once_fails_where_planted(answers):
    assert judged("all_heads_at_once", answers).passed is False


def test_all_heads_at_once_without_any_head_that_got_there():
    found = head_answers()
    nobody = unsolved(found, *found)
    claim = judged("all_heads_at_once", nobody)
    assert claim.passed is None and "none of the 15 heads" in claim.note


# --- gated_cells ----------------------------------------------------------------------------------------------------

MEMORIES = (2, 3, 4, 6, 8, 10)


def gated(tasks=("n_parity", "n_dms"), **changed):
    """``gru_multi_head=…`` replaces the largest N of members, ``gru_none=…`` the N solved from scratch."""
    planted = {"single_head": (9, 8, 9, 10), "multi_head": (14, 15, 13, 14), "none": 4}
    out = {}
    for task in tasks:
        for cell in ("gru", "lstm"):
            mine = {name: changed.get(f"{cell}_{name}", value) for name, value in planted.items()}
            for name in ("single_head", "multi_head"):
                values = np.asarray(mine[name], int)
                out[f"{task}-{cell}-{name}"] = xr.Dataset(
                    {"largest_n": ("member", values)},
                    {"member": np.arange(len(values))},
                    {"epochs": 100, "largest_possible": 101, "members": len(values)},
                )
            solved = np.broadcast_to(mine["none"], 4)
            accuracy = {n: np.where(n <= solved, 0.99, 0.6) for n in MEMORIES}
            out[f"{task}-{cell}-none"] = scratch(accuracy, dict.fromkeys(MEMORIES, NEVER))
    return out


def test_gated_cells_pass_where_planted():
    claim = judged("gated_cells", gated())
    assert claim.passed is True and claim.note == ""
    assert 8.9 < claim.interval[0] < 10 < claim.interval[1] < 11.1
    assert judged("gated_cells", gated(gru_single_head=(20, 20, 20, 20))).passed is True  # the claim is about the LSTM


@pytest.mark.parametrize(
    "answers",
    [
        gated(gru_multi_head=(4, 4, 4, 4)),
        gated(lstm_multi_head=(3, 3, 2, 3), lstm_single_head=(2, 2, 2, 2), lstm_none=8),
        gated(gru_multi_head=(3, 3, 30, 3), gru_none=3),
        gated(lstm_single_head=(14, 15, 13, 14)),
        gated(lstm_single_head=(14, 15, 13, 14), lstm_multi_head=(9, 8, 9, 10)),
        gated(lstm_none=(2, 2, 10, 10), lstm_multi_head=(8, 8, 8, 9), lstm_single_head=(3, 3, 3, 3)),
        gated(gru_none=10),
        gated(gru_multi_head=()),
        gated(lstm_single_head=(), lstm_multi_head=(14, 14, 14, 14)),
    ],
    ids=[
        "equal",
        "swapped",
        "one lucky member",
        "single-head as good",
        "single-head better",
        "from scratch uncertain",
        "more than was asked from scratch",
        "multi-head diverged",
        "single-head diverged",
    ],
)
def test_gated_cells_fail_where_planted(answers):
    assert judged("gated_cells", answers).passed is False


def test_gated_cells_that_solved_nothing_and_one_task_alone():
    none = dict.fromkeys(("gru_multi_head", "lstm_multi_head", "gru_single_head", "lstm_single_head"), (0, 0))
    claim = judged("gated_cells", gated(gru_none=0, lstm_none=0, **none))
    assert claim.passed is None and "has solved any N" in claim.note
    claim = judged("gated_cells", gated(("n_parity",)))
    assert claim.passed is True and "n_parity only" in claim.note

"""The cognitive tasks once more, in plain NumPy and by hand, one step after the other: what the tests compare with."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

import poprnn as pr
from poprnn.tasks.contract import Stage, in_steps


def make(**options):
    """The task, with durations that a batch has in common unless said otherwise: then batches differ in length."""
    return pr.tasks.Cognitive(**{"timing": "batch"} | options)


VARIANTS = ("soo", "yang")
NAMES = ["go", "rtgo", "dlygo", "anti", "rtanti", "dlyanti", "dm1", "dm2", "ctxdm1", "ctxdm2", "multsendm"]
NAMES += ["dlydm1", "dlydm2", "ctxdlydm1", "ctxdlydm2", "multsendlydm", "dms", "dnms", "dmc", "dnmc"]
DELAYED_CHOICE = tuple(n for n in NAMES if "dlydm" in n)
CHOICE = tuple(n for n in NAMES if "dm" in n and n not in ("dms", "dmc"))
MATCHING = ("dms", "dnms", "dmc", "dnmc")
REACTION = ("rtgo", "rtanti")


def stage_of(task, heads=None, split="train"):
    active = np.isin(np.arange(task.n_heads), range(task.n_heads) if heads is None else heads)
    return Stage(jnp.asarray(active), jnp.asarray(0), jnp.asarray(0), False, split)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def sampled(task, setting, key):
    """A trial with its inputs and targets step by step."""
    trial = task.sample(setting, (), key=key)
    return trial._replace(inputs=in_steps(trial.inputs, task.capacity), targets=in_steps(trial.targets, task.capacity))


@functools.cache
def drawer(task, heads, split, batches):
    """Trials each with a setting of its own, or all with one."""
    stage = stage_of(task, heads, split)

    def one(key):
        setting_key, key = jax.random.split(key)
        setting = task.draw(stage, key=setting_key)
        return setting, sampled(task, setting, key)

    def together(trial_keys):
        setting = task.draw(stage, key=jax.random.fold_in(trial_keys[0], 1))
        return setting, jax.vmap(lambda key: sampled(task, setting, key))(trial_keys)

    return jax.vmap(one) if batches else together


def drawn(task, n, seed=0, heads=None, split="train", batches=True):
    """Settings and trials in full."""
    return jax.tree.map(np.asarray, jax.jit(drawer(task, heads, split, batches))(keys(n, seed)))


def published(variant, name):
    """Durations in ms by period: a pair is uniform, a list is chosen from."""
    if variant == "soo":
        short = (400, 600)
        epochs = {"rule": [1000], "fixation": short, "stimulus": short, "response": [500]}
        if name not in ("go", "rtgo", "anti", "rtanti", "dm1", "dm2", "ctxdm1", "ctxdm2", "multsendm"):
            epochs["delay"] = (900, 1100)
        if name in DELAYED_CHOICE + MATCHING:
            epochs["second_stimulus"] = short
        return epochs
    gap, some = [200, 400, 800, 1600], [200, 400, 600]
    response = {"response": some if name in ("dmc", "dnmc") else [500]}
    if name in ("go", "anti"):
        return response | {"fixation": (300, 700), "stimulus": (500, 1500)}
    if name in REACTION:
        return response | {"fixation": (500, 2500)}
    if name in ("dlygo", "dlyanti"):
        return response | {"fixation": [300, 500, 700], "stimulus": some, "delay": gap}
    if name in DELAYED_CHOICE:
        pair = {"fixation": some, "stimulus": some, "delay": gap}
        return response | pair | {"second_stimulus": some, "second_delay": (100, 300)}
    if name in MATCHING:
        return response | {"fixation": some, "stimulus": some, "delay": gap}
    return response | {"fixation": (100, 400), "stimulus": [400, 800, 1600]}


PERIODS = {
    "soo": ["rule", "fixation", "stimulus", "delay", "second_stimulus", "response"],
    "yang": ["rule", "fixation", "stimulus", "delay", "second_stimulus", "second_delay", "response"],
}


def bump(direction):
    found = []
    for i in range(32):
        d = abs(direction - 2 * math.pi * i / 32) % (2 * math.pi)
        found.append(0.8 * math.exp(-0.5 * (8 * min(d, 2 * math.pi - d) / math.pi) ** 2))
    return np.array(found)


def right_answer(variant, name, condition):
    """Direction of the answer from directions and strengths alone, ``None`` to hold."""
    first, second = condition["directions"].astype(np.float64)
    strengths = condition["strengths"].astype(np.float64)
    if name in CHOICE:
        sums = strengths.sum(axis=1) if name.startswith("multsen") else strengths[:, int(name[-1]) - 1]
        return first if sums[0] > sums[1] else second
    if name in MATCHING:
        if name.endswith("c"):
            match = (first < math.pi) == (second < math.pi)
        else:
            d = abs(first - second)
            match = min(d, 2 * math.pi - d) < (math.pi / 18 + 1e-4 if variant == "soo" else 1e-4)
        return second if match == (name in ("dms", "dmc")) else None
    return first + math.pi if "anti" in name else first


def by_hand(variant, condition, periods, dt):
    """Inputs, targets, weights up to the trial's end, one step after the other."""
    name = NAMES[condition["rule"]]
    fixation, response, end = periods["fixation"][0], *periods["response"]
    inputs, targets, weights = np.zeros((end, 85)), np.full((end, 33), 0.05), np.zeros(end)
    shown = [set(range(*periods["stimulus"])), set()]
    if name in REACTION:
        shown[0] = set(range(response, end))
    if variant == "yang" and name in ("go", "anti"):
        shown[0] |= set(range(response, end))
    if name in CHOICE:
        shown[1] = set(range(*periods["second_stimulus" if "dly" in name else "stimulus"]))
    if name in MATCHING:
        shown[1] = set(range(*periods["second_stimulus"])) if variant == "soo" else set(range(response, end))
    stays = name in REACTION or (variant == "yang" and name in MATCHING)
    answer = right_answer(variant, name, condition)
    wait, steps = (200, 1) if variant == "soo" else (100, 25)
    for t in range(end):
        inputs[t, 65 + NAMES.index(name)] = 1
        inputs[t, 0] = t >= fixation and (t < response or stays)
        for s in (0, 1):
            if t in shown[s]:
                for ring in (0, 1):
                    strength = condition["strengths"][s, ring]
                    inputs[t, 1 + 32 * ring : 33 + 32 * ring] += strength * bump(condition["directions"][s])
        if t >= response and answer is not None:
            targets[t, 1:] += bump(answer)
        else:
            targets[t, 0] = 0.85 if variant == "soo" else 0.8
        if fixation + round(wait / dt) <= t < response:
            weights[t] = 1
        if t >= response + round(wait / dt):
            weights[t] = steps
    return inputs, targets, weights


def counted(variant, trial, dt):
    _, _, weights = by_hand(variant, trial.condition, trial.periods, dt)
    response = trial.periods["response"][0]
    steps = np.flatnonzero(weights)
    return steps[steps < response], steps[steps >= response]


def population_angle(ring):
    return math.atan2(
        sum(a * math.sin(2 * math.pi * i / 32) for i, a in enumerate(ring)),
        sum(a * math.cos(2 * math.pi * i / 32) for i, a in enumerate(ring)),
    )


def performance_by_hand(variant, trial, outputs, dt):
    name = NAMES[trial.condition["rule"]]
    answer = right_answer(variant, name, trial.condition)

    def is_right(t):
        if answer is None:
            return False
        d = abs(population_angle(outputs[t, 1:]) - answer) % (2 * math.pi)
        return min(d, 2 * math.pi - d) < 0.2 * math.pi

    if variant == "yang":
        t = trial.periods["response"][1] - 1
        return float(outputs[t, 0] > 0.5) if answer is None else float(outputs[t, 0] <= 0.5 and is_right(t))
    before, after = counted(variant, trial, dt)
    share = 5 / 6 if name in DELAYED_CHOICE + MATCHING else 4 / 5 if name in ("dlygo", "dlyanti") else 2 / 3
    fixed = np.mean([outputs[t, 0] > 0.5 for t in before])
    if answer is None:
        return share * fixed + (1 - share) * np.mean([outputs[t, 0] > 0.5 for t in after])
    left = np.mean([outputs[t, 0] < 0.5 for t in after])
    return share * fixed + (1 - share) * left * np.mean([is_right(t) for t in after])


def loss_by_hand(variant, trial, outputs, dt):
    squared = (outputs.astype(np.float64) - trial.targets) ** 2
    if variant == "soo":
        before, after = counted(variant, trial, dt)
        return squared[before].mean() + squared[after].mean()
    end, response, wait = trial.periods["response"][1], trial.periods["response"][0], round(100 / dt)
    mask = np.zeros((end, 33))
    mask[wait:response] = 1
    mask[response + wait :] = 5
    mask[:, 0] *= 2
    return np.mean((mask * (outputs[:end] - trial.targets[:end])) ** 2)

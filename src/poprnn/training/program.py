"""One member's training as pure functions: start, train for some steps, evaluate."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from poprnn.cells.contract import Context, Parameters
from poprnn.core import loops, mapping
from poprnn.core.arrays import Array, Count, PRNGKey, Scalar, Tree
from poprnn.core.keys import member_key
from poprnn.core.loops import while_loop
from poprnn.tasks.contract import Stage
from poprnn.training import unroll as unrolling
from poprnn.training.batches import activity_penalty, draw, seen_by_steps, sequence_of, state_of, trains_last_readout
from poprnn.training.dynamics import Dynamics
from poprnn.training.methods.contract import Method
from poprnn.training.methods.control import Control
from poprnn.training.monitors.budget_spent import BudgetSpent
from poprnn.training.monitors.certificate_broken import CertificateBroken
from poprnn.training.monitors.contract import Monitor, Observation
from poprnn.training.monitors.diverged import Diverged
from poprnn.training.settings import Setup
from poprnn.training.state import Batch, MemberState, Record, Shared, all_finite, first_true, select_trainable

Lengths = tuple[Count, Count]
"""Time steps of a batch, and those of them through which a gradient goes back."""


class Program:
    """The functions of one setup. ``setup`` may be given varied values per member; see :meth:`of`."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        certified = (CertificateBroken(),) if setup.cell.is_certified else ()
        self.monitors: tuple[Monitor, ...] = (Diverged(), *certified, *setup.training.monitors, BudgetSpent())
        self.outcomes = (*(m.outcome for m in self.monitors), "ended_with_population")
        self.has_host_monitors = any(m.on == "host" for m in self.monitors)
        self.has_population_monitors = any(m.on == "population" for m in self.monitors)

    @functools.cached_property
    def n_parts(self) -> int:
        """Equal parts that a batch's trials are cut in; devices may share a member by them."""
        size = sum(a.size for a in jax.tree.leaves(state_of(self.setup)))
        return unrolling.n_parts(self.setup.training.batch, size)

    def of(self, varied: dict[str, Any]) -> Setup:
        """The setup as one member sees it."""
        return self.setup.substitute(varied)

    # --- start -------------------------------------------------------------------------------------------------

    def start(
        self, member: Count, varied: dict[str, Any], seed: Count, parameters: Parameters | None = None
    ) -> MemberState:
        """A member's state before training, from random or given parameters."""
        setup = self.of(varied)
        if parameters is None:
            key = member_key(seed, member, "init")
            parameters = setup.cell.init(setup.task.n_inputs, setup.task.n_outputs, key=key)
        parameters = select_trainable(parameters, setup)
        for penalty in setup.training.penalties:
            penalty.check(setup.cell.prepare(parameters, Context()))
        zero, zero_count = jnp.zeros((), jnp.float32), jnp.asarray(0, jnp.int32)
        return MemberState(
            jnp.asarray(member, jnp.int32),
            varied,
            parameters,
            setup.training.optimizer.build().init(parameters.trainable),
            setup.training.curriculum.init(setup.task),
            tuple(m.init() for m in self.monitors),
            zero_count,
            zero_count,
            zero_count,
            zero,
            jnp.asarray(False),
            zero_count,
        )

    # --- train -------------------------------------------------------------------------------------------------

    def train(self, state: MemberState, shared: Shared) -> tuple[MemberState, tuple[()]]:
        """``shared.n_steps`` optimiser steps, fewer if the member diverges."""
        setup = self.of(state.varied)
        optimizer = setup.training.optimizer.build()
        stage = setup.training.curriculum.stage(setup.task, state.progress)._replace(split="train")
        key = member_key(shared.seed, state.member, "train")
        trial_key = member_key(shared.seed, 0, "train") if setup.training.shared_trials else key
        end = state.n_steps + shared.n_steps
        n_parts = 1 if mapping.is_vmapped() else self.n_parts

        def loss_of(trainable: dict[str, Any], state: MemberState, part: Count, workspace: Tree) -> tuple[Scalar, Any]:
            return self.batch_loss(
                setup,
                Parameters(trainable, state.parameters.fixed),
                stage,
                shared.arrays,
                state.n_steps,
                workspace,
                key=jax.random.fold_in(key, state.n_steps),
                trial_key=jax.random.fold_in(trial_key, state.n_steps),
                part=(part, n_parts),
            )

        def step(loop: tuple[MemberState, Tree]) -> tuple[MemberState, Tree]:
            state, workspace = loop

            def share(part: Count, carry: tuple[Lengths, Tree]) -> tuple[Tree, tuple[Lengths, Tree]]:
                loss = functools.partial(loss_of, state=state, part=part, workspace=carry[1])
                (value, carry), gradient = jax.value_and_grad(loss, has_aux=True)(state.parameters.trainable)
                return (value, gradient), carry

            nothing = (jnp.int32(0), jnp.int32(0))
            (value, gradient), (lengths, workspace) = mapping.mean_of_parts(share, n_parts, (nothing, workspace))
            memory = state.optimizer
            if type(setup.training.method).restarts is not Method.restarts:
                fresh = optimizer.init(state.parameters.trainable)
                restarts = setup.training.method.restarts(state.n_steps)
                memory = jax.tree.map(lambda new, old: jnp.where(restarts, new, old), fresh, memory)
            change, memory = optimizer.update(gradient, memory, state.parameters.trainable)
            weights = optax.apply_updates(state.parameters.trainable, change)
            return _accept(state, value, gradient, weights, memory, lengths), workspace

        workspace = None
        if not loops.are_python():
            shapes = jax.eval_shape(lambda: loss_of(state.parameters.trainable, state, 0, None)[1][1])
            workspace = jax.tree.map(jnp.zeros_like, shapes)
        going = lambda loop: (loop[0].n_steps < end) & ~loop[0].diverged
        return while_loop(going, step, (state, workspace))[0], ()

    def batch_loss(
        self,
        setup: Setup,
        parameters: Parameters,
        stage: Stage,
        arrays: Tree,
        n_step: Count,
        workspace: Tree,
        *,
        key: PRNGKey,
        trial_key: PRNGKey | None = None,
        part: tuple[Count, int] = (0, 1),
    ) -> tuple[Scalar, tuple[Lengths, Tree]]:
        """Loss of (a part of) one fresh training batch with its penalties; the batch's lengths, and memory it used."""
        training = setup.training
        schedule = setup.cell.schedule(n_step) | training.method.schedule(n_step)
        context = Context(schedule=schedule, training=True)
        batch = self.run_batch(
            setup,
            training.method,
            parameters,
            stage,
            arrays,
            context,
            key=key,
            trial_key=trial_key,
            part=part,
            workspace=workspace,
        )
        losses = jax.vmap(lambda o, t: training.objective.loss(setup.task, o, t, batch.setting))(
            batch.outputs, batch.trials
        )
        value = jnp.mean(losses) + batch.activity_penalty
        for penalty in training.penalties:
            value = value + penalty.strength * penalty.on_weights(batch.prepared)
        n_steps, without = jnp.int32(batch.setting.length), jnp.int32(batch.setting.no_gradient)
        return value, ((n_steps, n_steps - without), batch.workspace)

    def run_batch(
        self,
        setup: Setup,
        method: Method,
        parameters: Parameters,
        stage: Stage,
        arrays: Tree,
        context: Context,
        *,
        key: PRNGKey,
        trial_key: PRNGKey | None = None,
        n_trials: int | None = None,
        part: tuple[Count, int] = (0, 1),
        workspace: Tree = None,
        emit: unrolling.Read | None = None,
    ) -> Batch:
        """Draw a batch of trials and run them; differentiable in the parameters. ``emit`` asks for more.

        ``part = (i, n)`` runs the i-th of n equal parts of the batch's trials. ``trial_key``: where the trials come
        from, if not from ``key`` as everything else.
        """
        task, training = setup.task, setup.training
        setting, trials, start_keys, step_keys = draw(
            setup, method, stage, arrays, context, n_trials or training.batch, part, key=key, trial_key=trial_key
        )
        context = context._replace(dt=setting.dt)
        prepared = setup.cell.prepare(parameters, context)
        dynamics = Dynamics(setup.cell, method, task if task.closed_loop else None)
        carry = jax.vmap(lambda t, k: dynamics.start(prepared, t, task.n_outputs, key=k))(trials, start_keys)
        penalty = activity_penalty(setup) if context.training else None
        # where only a last readout is trained, no gradient goes back through time
        gradient = context.training and not (penalty is None and trains_last_readout(setup, parameters))
        sequence = sequence_of(setting, trials, step_keys, context, seen_by_steps(trials, task, method))
        carry, emitted, workspace = unrolling.unroll(
            dynamics,
            prepared if gradient else lax.stop_gradient(prepared),
            carry if gradient else lax.stop_gradient(carry),
            sequence,
            emit=emit or (dynamics.output if task.readout == "all" else None),
            accumulate=penalty,
            gradient=gradient,
            n_steps=task.capacity,
            plan_=unrolling.plan(carry, task.capacity, state_bytes=training.state_memory_mb * 2**20),
            workspace=workspace,
        )
        by_trial = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), emitted.outputs)
        outputs = by_trial if task.readout == "all" else jax.vmap(lambda c: dynamics.output(prepared, c))(carry)
        total = jnp.zeros(()) if penalty is None else jnp.mean(emitted.sums) / jnp.maximum(setting.length, 1)
        return Batch(setting, trials, prepared, outputs, by_trial, total, workspace)

    # --- evaluate ----------------------------------------------------------------------------------------------

    def score(
        self,
        setup: Setup,
        parameters: Parameters,
        stage: Stage,
        arrays: Tree,
        n_batches: int,
        *,
        key: PRNGKey,
        n_trials: int | None = None,
    ) -> tuple[Scalar, dict[str, Array]]:
        """Mean loss of the base dynamics over fresh batches, and mean scores over those trials that have one.

        A score that no trial has (of a head that is not active, or that no trial drew) is NaN.
        """

        def one(key: PRNGKey) -> tuple[Scalar, dict[str, Array], dict[str, Array]]:
            batch = self.run_batch(setup, Control(), parameters, stage, arrays, Context(), key=key, n_trials=n_trials)
            task, objective = setup.task, setup.training.objective
            losses = jax.vmap(lambda o, t: objective.loss(task, o, t, batch.setting))(batch.outputs, batch.trials)
            scores = jax.vmap(lambda o, t: task.scores(o, t, batch.setting))(batch.outputs, batch.trials)
            known = jax.tree.map(lambda a: ~jnp.isnan(a), scores)
            sums = jax.tree.map(lambda a, k: jnp.sum(jnp.where(k, a, 0.0), axis=0), scores, known)
            return jnp.mean(losses), sums, jax.tree.map(lambda k: jnp.sum(k, axis=0, dtype=jnp.float32), known)

        # sums and counts, not means: batches differ in how many of their trials belong to a head
        loss, sums, counts = mapping.mean_of_parts(lambda i, _: (one(jax.random.fold_in(key, i)), ()), n_batches, ())[0]
        return loss, jax.tree.map(jnp.divide, sums, counts)

    def evaluate(self, state: MemberState, shared: Shared) -> tuple[MemberState, Record]:
        """Score on fresh trials, move on in the curriculum, ask the monitors."""
        setup = self.of(state.varied)
        training, task = setup.training, setup.task
        stage = training.curriculum.stage(task, state.progress)._replace(split="evaluate")
        key = jax.random.fold_in(member_key(shared.seed, state.member, "evaluate"), state.n_steps)
        loss, scores = self.score(setup, state.parameters, stage, shared.arrays, training.evaluation_batches, key=key)
        progress = training.curriculum.update(task, state.progress, scores)
        diverged = state.diverged | ~jnp.isfinite(loss)
        progress = jax.tree.map(lambda new, old: jnp.where(diverged, old, new), progress, state.progress)
        epoch = -(-state.n_steps // training.steps_per_epoch)
        seen = Observation(epoch, shared.last_epoch, loss, scores, state.parameters, progress.finished, diverged)
        memories, ends = self.ask(state.monitors, seen, "device")
        after = training.curriculum.stage(task, progress)
        passed = (after.index > stage.index) | (progress.finished & ~state.progress.finished)
        n_in_epoch = jnp.maximum(state.n_steps - (epoch - 1) * training.steps_per_epoch, 1)
        outcome = first_true(ends)
        record = Record(
            state.n_steps,
            state.n_time_steps,
            state.n_gradient_steps,
            state.loss_sum / n_in_epoch,
            loss,
            scores,
            stage.index,
            stage.newest,
            passed,
            outcome,
        )
        return state._replace(
            optimizer=training.optimizer.observe(state.optimizer, loss),
            progress=progress,
            monitors=memories,
            diverged=diverged,
            outcome=outcome,
            loss_sum=jnp.zeros_like(state.loss_sum),
        ), record

    def recorded(self, memories: tuple[Tree, ...]) -> dict[str, Any]:
        """What the monitors add to the history."""
        pairs = zip(self.monitors, memories, strict=True)
        return {name: value for monitor, memory in pairs for name, value in monitor.recorded(memory).items()}

    def ask(self, memories: tuple[Tree, ...], seen: Observation, where: str) -> tuple[tuple[Tree, ...], list[Any]]:
        """Every monitor of one kind; the others keep their memory and say no."""
        out, ends = [], []
        for monitor, memory in zip(self.monitors, memories, strict=True):
            new, end = monitor.update(memory, seen) if monitor.on == where else (memory, False)
            out.append(new)
            ends.append(end)
        return tuple(out), ends


def _accept(
    state: MemberState, loss: Scalar, gradient: Tree, weights: Tree, memory: Tree, lengths: Lengths
) -> MemberState:
    """The state after an optimiser step; one that is not finite is not taken, and the member has diverged."""
    # the gradient is part of the test because clipping can turn an infinite gradient into a finite step
    good = jnp.isfinite(loss) & all_finite(gradient) & all_finite(weights)
    keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)
    return state._replace(
        parameters=state.parameters._replace(trainable=keep(weights, state.parameters.trainable)),
        optimizer=keep(memory, state.optimizer),
        n_steps=state.n_steps + good,
        n_time_steps=state.n_time_steps + lengths[0],
        n_gradient_steps=state.n_gradient_steps + lengths[1],
        loss_sum=state.loss_sum + jnp.where(good, loss, 0),
        diverged=~good,
    )

"""The unroll and its methods, objectives, penalties, monitors, curricula, the fit loop, rollout, checkpoints."""

"""Oracles for accuracy_by_n, timescales_single, dimensionality and connectivity, and for how they are asked."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from sklearn.decomposition import PCA

import poprnn as pr
from poprnn.analysis import _population, dimensionality as _lazy  # noqa: F401  (the package serves functions)
from poprnn.analysis.contract import load_result
from poprnn.training.run import Snapshot

VANILLA = pr.cells.VanillaRNN(n_units=4)

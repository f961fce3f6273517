"""How long a pair of operators takes and how near it is brought: poprnn beside dsa-metric, in one run.

    python benchmarks/similarity.py [--rank 100] [--pairs 20] [--dsa-python PYTHON]

Operators: half of them Gaussian, half fitted to networks of random weights (which need no training). dsa-metric does
1500 steps of Adam from each of two starts, on two threads, in the interpreter ``--dsa-python``, which needs dsa-metric
and torch; without it that half is left out. All pairs of the one, then all of the other: run it on a quiet machine.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

THEIRS = """
import json, sys, time
import numpy as np, torch
from DSA.simdist import SimilarityTransformDist
torch.set_num_threads(2)
given = np.load(sys.argv[1])
operators, out = torch.from_numpy(given["operators"]).float(), []
for i, j in given["pairs"]:
    torch.manual_seed(0)
    start = time.perf_counter(), time.process_time()
    compare = SimilarityTransformDist(iters=1500, lr=0.01, score_method="euclidean")
    found = float(compare.fit_score(operators[i].clone(), operators[j].clone()))
    out.append((found, time.perf_counter() - start[0], time.process_time() - start[1]))
print(json.dumps(out))
"""


def operators(rank: int, n: int) -> np.ndarray:
    """``n`` of each kind, of unit norm."""
    from poprnn.analysis._operators import fit_operators

    random = np.random.default_rng(0)
    gaussian = random.normal(size=(n, rank, rank))
    n_units, n_steps = 64, 60
    W = random.normal(size=(n, 1, n_units, n_units)) / 8
    inputs = random.normal(size=(n_steps, 64, 2)) @ random.normal(size=(n, 1, 2, n_units))
    states = [np.zeros((n, 64, n_units))]
    for x in np.moveaxis(inputs, 1, 0):
        drive = np.einsum("mij,mtj->mti", W[:, 0], states[-1])
        states.append(0.7 * states[-1] + 0.3 * np.tanh(drive + x))
    fitted = fit_operators(np.stack(states[1:], axis=2), 10, rank, analysis="benchmark").matrices
    both = np.concatenate([gaussian, fitted])
    return both / np.linalg.norm(both, axis=(1, 2), keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--dsa-python", help="interpreter with dsa-metric")
    options = parser.parse_args()

    from poprnn.analysis._orthogonal_alignment import align, lower_bound
    from poprnn.analysis.dynamical_similarity import default_starts

    each = -(-options.pairs // 2)
    n = next(k for k in itertools.count(2) if k * (k - 1) // 2 >= each)
    matrices = operators(options.rank, n)
    chosen = np.array(list(itertools.islice(itertools.combinations(range(n), 2), each)))
    pairs = np.concatenate([chosen, chosen + n])
    settings = dict(n_starts=default_starts(options.rank), seed=0)
    align(matrices, pairs, **settings)  # compiles
    start, busy = time.perf_counter(), time.process_time()
    q = align(matrices, pairs, **settings)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    i, j = pairs.T
    ours = np.linalg.norm(matrices[i] - q @ matrices[j] @ np.swapaxes(q, 1, 2), axis=(1, 2))
    bound = lower_bound(matrices)[i, j]
    print(f"poprnn      {seconds / len(pairs):8.3f} s a pair, {busy / len(pairs):.3f} s of one core")
    if options.dsa_python is None:
        sys.exit("no --dsa-python: nothing to compare with")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "given.npz"
        np.savez(path, operators=matrices, pairs=pairs)
        done = subprocess.run([options.dsa_python, "-c", THEIRS, path], capture_output=True, text=True, check=True)
    theirs, wall, core = np.array(json.loads(done.stdout.splitlines()[-1])).T
    print(f"dsa-metric  {wall.mean():8.3f} s a pair, {core.mean():.3f} s of one core")
    print(
        f"ratio       {wall.mean() * len(pairs) / seconds:8.1f}, of cores' time {core.mean() * len(pairs) / busy:.1f}"
    )
    for kind, rows in (("Gaussian", slice(None, each)), ("fitted", slice(each, None))):
        a, b = ours[rows], theirs[rows]
        print(
            f"{kind:9} mean distance {a.mean():.5f}, dsa-metric {b.mean():.5f}, bound {bound[rows].mean():.5f}; "
            f"largest excess over dsa-metric {(a - b).max():+.5f}, smallest {(a - b).min():+.5f}"
        )


if __name__ == "__main__":
    main()

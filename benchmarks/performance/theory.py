"""How fast the exact solution of a single neuron is, against integrating its equation.

    OMP_NUM_THREADS=1 python benchmarks/performance/theory.py

One core, one run, CPU time, minima over repeats. The peer is SciPy's DOP853 at rtol 1e-12 with the same times asked for.
"""

import time
from collections.abc import Callable

import numpy as np
from scipy.integrate import solve_ivp

from richlearn.theory import SingleNeuron

STARTS, TIMES, INTEGRATED = 10_000, np.geomspace(1e-3, 1e2, 100), 20


def timed(compute: Callable[[], object], repeats: int) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        compute()
        best = min(best, time.process_time() - start)
    return best


def integrate(a: float, w: np.ndarray, beta: np.ndarray) -> np.ndarray:
    def velocity(_: float, state: np.ndarray) -> np.ndarray:
        off = beta - state[0] * state[1:]
        return np.concatenate([[state[1:] @ off], state[0] * off])

    return solve_ivp(velocity, (0, TIMES[-1]), np.concatenate([[a], w]), "DOP853", TIMES, rtol=1e-12, atol=1e-14).y


def main() -> None:
    generator = np.random.default_rng(0)
    a, w, beta = generator.normal(size=STARTS), generator.normal(size=(STARTS, 2)), generator.normal(size=(STARTS, 2))
    exact = timed(lambda: SingleNeuron(a, w, beta).at(TIMES), 5)
    few = [(a[i], w[i], beta[i]) for i in range(INTEGRATED)]
    integrated = timed(lambda: [integrate(*each) for each in few], 3) / INTEGRATED * STARTS
    pairs = STARTS * len(TIMES)
    print(f"{pairs:,} pairs of start and time: {exact:.3f} s; integrated: {integrated:.0f} s ({integrated / exact:,.0f} times)")


if __name__ == "__main__":
    main()

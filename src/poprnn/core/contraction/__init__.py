"""The mathematics of contracting networks: certificates of single modules, of their assemblies, and of Euler steps.

Pure functions of NumPy arrays in float64, without anything of poprnn's own: cells, the monitor and the analysis
``contraction`` use them alike. The dynamics are those of Kozachkov, Ennis & Slotine, NeurIPS 2022,

    tau dx/dt = -x + W phi(x) + L x + u(t),      0 <= phi' <= g,

and a metric M certifies them at a rate l (in units of 1/tau) if for all slopes D = diag(d), 0 <= d_i <= g,

    M J + J^T M <= -2 l M,      J = -I + W D + L.

Then any two trajectories under the same input come together: their distance ``sqrt(e^T M e)`` falls at least as
``exp(-l t / tau)``.
"""

"""wtacrs estimates the weight gradients of linear layers from a sample of their input's rows.

    wtacrs.torch    `convert(model, budget=0.3, bits=4)` makes the linear layers of a PyTorch model keep a sample of
                    their input, packed
    wtacrs.jax      `linear(h, w, key, budget=0.3, bits=4)` is `h @ w` with an estimated gradient, for JAX on the CPU
    wtacrs.numpy    row norms, selections and one layer's two passes, on NumPy arrays
    wtacrs.record   `record(model, layers)` writes layers of a PyTorch model for the command `wtacrs`

The first three require libwtacrs, which an installed package contains. The environment variable WTACRS_LIBRARY names
another one. Each module requires its framework, which the extra of the same name installs: `pip install wtacrs[torch]`.
"""

__version__ = "0.1.0"

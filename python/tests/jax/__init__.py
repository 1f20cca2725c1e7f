"""Tests of `wtacrs.jax`."""

import os

# Two devices on the one CPU, for shard_map; before JAX starts.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"

"""What a step computes on: the device that JAX uses. JAX is asked once; later runs find the answer in the cache."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from deploycheck.errors import DeploycheckError
from deploycheck.runner.code import versions
from deploycheck.runner.keys import environment
from deploycheck.store import fingerprint
from deploycheck.store.disk import write_whole

FILE = "devices.json"
ASK = "import json, jax; print(json.dumps({'backend': jax.default_backend(), 'device': jax.devices()[0].device_kind}))"
TIMEOUT_S = 300
NVIDIA = Path("/proc/driver/nvidia/gpus")


def find_platform(cache: Path) -> dict[str, str]:
    """Return JAX's backend and device, and the environment variables and Python version that decide a result.

    JAX is asked in a separate process, once for each set of libraries, drivers and devices; the answer is saved in the
    cache.
    """
    asked = fingerprint(_what_decides_the_device())
    file = cache / FILE
    known = _read(file)
    if asked not in known:
        known = {**known, asked: _ask()}
        write_whole(file, json.dumps(known, indent=1) + "\n")
    return {**known[asked], **environment()}


def _what_decides_the_device() -> dict[str, Any]:
    plugins = sorted(point.dist.name for point in metadata.entry_points(group="jax_plugins") if point.dist)
    variables = ("JAX_", "XLA_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "TPU_")
    return {
        "libraries": versions("jax", "jaxlib", *plugins),
        "environment": {name: value for name, value in os.environ.items() if name.startswith(variables)},
        "devices": sorted(path.name for kind in ("nvidia*", "accel*", "kfd") for path in Path("/dev").glob(kind)),
        "models": sorted(path.read_text() for path in NVIDIA.glob("*/information")),
        "machine": [sys.executable, platform.machine(), platform.system()],
    }


def _ask() -> dict[str, str]:
    command = [sys.executable, "-P", "-c", ASK]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise DeploycheckError(
            f"JAX doesn't start within {TIMEOUT_S} s", hint="python -c 'import jax; jax.devices()'"
        ) from error
    if child.returncode:
        last = next(reversed(child.stderr.strip().splitlines()), f"exit code {child.returncode}")
        raise DeploycheckError(f"JAX doesn't start: {last}", hint="install it: pip install 'deploycheck[jax]'")
    found: dict[str, str] = json.loads(child.stdout.splitlines()[-1])
    return found


def _read(file: Path) -> dict[str, dict[str, str]]:
    try:
        known: dict[str, dict[str, str]] = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return known

"""Facts about the project that several tests ask for: where it is, its name, its layers."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
NAME = PROJECT["name"]

# The modules of bnlib, from the contract that import-linter holds; the lowest layer comes first.
FRAMEWORKS = {"doctor", "conventions", "replicas", "keras", "tf_ops"}
EVERYWHERE = {
    "cli",
    "conformance",
    "reports",
}  # when called they may import anything
MODULES = [
    name
    for layer in reversed(PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"])
    for name in re.findall(r"\w+", layer)
]
CORE = [
    name
    for name in MODULES
    if name not in FRAMEWORKS | EVERYWHERE | {"book"} and not name.startswith("_")
]

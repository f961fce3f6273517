"""Compiles the kernels while the package is built; without a compiler it is built without them."""

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path(__file__).parent / "src" / "poprnn" / "core" / "native"


class KernelsHook(BuildHookInterface):
    """Puts the shared library beside its sources (editable) and into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, or say why not."""
        del version
        if self.target_name != "wheel":
            return
        spec = importlib.util.spec_from_file_location("build_kernels", NATIVE / "build.py")
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        try:
            library = build.build()
        except OSError as error:
            self.app.display_warning(f"poprnn is installed without compiled kernels and runs slower: {error}")
            return
        build_data["artifacts"].append(f"/{library.relative_to(self.root).as_posix()}")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

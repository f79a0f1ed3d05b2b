"""Scripts as modules: executed once per content, in a namespace and under a name of their own."""

from __future__ import annotations

import sys
import types

MARK = "<script "
"""How the file name of every script begins, in tracebacks."""


class Modules:
    """The modules of this process by the hash of their content."""

    def __init__(self) -> None:
        self._loaded: dict[str, types.ModuleType] = {}
        self._sources: dict[str, str] = {}

    def load(self, digest: str, title: str, source: str) -> types.ModuleType:
        """The module of this content, executed the first time it is asked for.

        Raises whatever the module raises when it is executed; it is then not kept.
        """
        module = self._loaded.get(digest)
        if module is not None:
            return module
        file = f"{MARK}{title}>"
        self._sources[file] = source
        code = compile(source, file, "exec", dont_inherit=True)
        module = types.ModuleType(f"machina_script_{digest[:16]}")
        # A real entry: dataclasses, pickling and lazy imports look their own module up.
        sys.modules[module.__name__] = module
        try:
            exec(code, module.__dict__)  # noqa: S102  # this process exists for it
        except BaseException:
            del sys.modules[module.__name__]
            raise
        self._loaded[digest] = module
        return module

    def show_lines(self) -> None:
        """Lets tracebacks show the lines of scripts, although there is no file."""
        import linecache  # noqa: PLC0415  # slow to load, and a script that goes well needs none

        for file, source in self._sources.items():
            linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)

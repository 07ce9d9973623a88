"""transformers imported without what a lone process that predicts does not use: half of its import time.

Importing one model class of transformers loads torch's compiler (and sympy with it), `scipy.optimize` and FSDP.
They are there for decorators that tell the compiler of a function, for the losses of object detection, and for models
that are cut over several GPUs. `import_transformers_lightly` puts the first two off until they are used, tells
transformers that this process is alone, and has the source of its models listed once, where it is twice. Nothing that
is computed changes.

Modules are hundreds of thousands of objects that stay. `collection_paused` keeps the garbage collector from going
through them again and again while they are made.
"""

import functools
import gc
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

COMPILER, OPTIMIZE = "torch._dynamo", "scipy.optimize"


def import_transformers_lightly() -> None:
    """Prepare this process before transformers is imported. Not done if it was, or if there are more processes."""
    if "transformers" in sys.modules or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return
    import torch.distributed

    if COMPILER not in sys.modules:
        _put_off_the_compiler()
    if OPTIMIZE not in sys.modules:
        put_off(OPTIMIZE, {"linear_sum_assignment": _when_called(OPTIMIZE, "linear_sum_assignment")})

    available = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    try:
        from transformers.utils import is_torch_distributed_available

        is_torch_distributed_available()  # it keeps its first answer
    finally:
        torch.distributed.is_available = available
    _list_the_models_once()


@contextmanager
def collection_paused() -> Iterator[None]:
    """No garbage is looked for within the block; afterwards not among what was made before, until `gc.unfreeze`.

    It is for imports and the loading of a model, which leave little garbage and much that stays. Nothing is done if
    there are more processes, or if the caller has switched the collector off.
    """
    if not gc.isenabled() or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class LateModule(ModuleType):
    """Stands for a package in ``sys.modules`` until it is asked for an attribute or a module that it does not have."""

    def __init__(self, name: str, ready: Mapping[str, Any], alone: Collection[str]):
        super().__init__(name)
        vars(self).update(ready)
        self.__path__: list[str] = []  # so that it is a package; `_Finder` finds its modules
        self.alone = alone
        self.waiting: list[Callable[[ModuleType], None]] = []

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # of the machinery of imports
            raise AttributeError(attribute)
        return getattr(self.load(), attribute)

    def load(self) -> ModuleType:
        """The package itself, which takes its place."""
        if sys.modules.get(self.__name__) is self:
            parent, _, own = self.__name__.rpartition(".")
            del sys.modules[self.__name__]
            delattr(sys.modules[parent], own)
            package = importlib.import_module(self.__name__)
            for name in self.alone:
                if (module := sys.modules.get(f"{self.__name__}.{name}")) is not None:
                    setattr(package, name, module)
            for do in self.waiting:
                do(package)
        return sys.modules[self.__name__]


class _Finder(MetaPathFinder):
    """Finds the modules of late packages: most of them need their package, which is then loaded first."""

    def find_spec(self, name, path=None, target=None):
        parent, _, own = name.rpartition(".")
        package = sys.modules.get(parent)
        if not isinstance(package, LateModule):
            return None
        places = package.__spec__.submodule_search_locations
        if own not in package.alone:
            package.load()
            if name in sys.modules:  # the package has imported it: once is enough
                return spec_from_loader(name, _Existing())
        return PathFinder.find_spec(name, places)


class _Existing(Loader):
    """Gives a module that is imported already."""

    def create_module(self, spec):
        return sys.modules[spec.name]

    def exec_module(self, module):
        pass


def put_off(name: str, ready: Mapping[str, Any], alone: Collection[str] = ()) -> LateModule:
    """Let a package be imported when something of it is used that is not in ``ready``.

    Args:
        name: in full, such as scipy.optimize, not yet imported; its parent is.
        ready: attributes that are given without it.
        alone: modules of it that can be imported without it.
    """
    spec = importlib.util.find_spec(name)
    parent, _, own = name.rpartition(".")
    late = LateModule(name, ready, alone)
    late.__spec__ = spec
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    sys.modules[name] = late
    setattr(sys.modules[parent], own, late)
    return late


def _when_called(name: str, function: str) -> Callable:
    """A function that loads its module when it is called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        module = importlib.import_module(name)
        return getattr(module.load() if isinstance(module, LateModule) else module, function)(*args, **kwargs)

    return call


def _list_the_models_once() -> None:
    """Keep transformers from reading the source of all its models a second time, for ``transformers.models``.

    Its own cache knows the folder by another name: `__init__.py` in it, whose list is that of the folder.
    """
    from transformers.utils import import_utils

    listed = getattr(import_utils, "create_import_structure_from_path", None)
    if listed is None or "transformers.models" in sys.modules:
        return

    @functools.wraps(listed)
    def of_folder(path: Any) -> Any:
        return listed(Path(path).parent if os.path.isfile(path) else path)

    import_utils.create_import_structure_from_path = of_folder


def _put_off_the_compiler() -> None:
    """Give the three decorators that transformers uses when it is imported; the compiler knows of them later."""

    def disable(fn=None, recursive=True, **options):
        if fn is None:
            return functools.partial(disable, recursive=recursive, **options)
        disabled = None

        @functools.wraps(fn)
        def call(*args, **kwargs):
            nonlocal disabled
            compiler = sys.modules[COMPILER]
            if isinstance(compiler, LateModule):  # nothing is being compiled
                return fn(*args, **kwargs)
            if disabled is None:
                disabled = compiler.disable(fn, recursive, **options)
            return disabled(*args, **kwargs)

        return call

    def assume_constant_result(fn):
        fn._dynamo_marked_constant = True  # all that the compiler's own does
        return fn

    def allow_in_graph(fn):
        late.waiting.append(lambda compiler: compiler.allow_in_graph(fn))
        return fn

    marks = (disable, assume_constant_result, allow_in_graph)
    late = put_off(COMPILER, {mark.__name__: mark for mark in marks}, alone=["_trace_wrapped_higher_order_op"])

"""What a manifest says of parts, against the parts of this process: the first difference, and parts made anew.

Comparing needs no code: what a manifest does not say had the default that the class has now, so a new field makes no
old run another one. Making parts anew imports and runs nothing: only classes and functions that this process holds
already are found.
"""

import dataclasses
import dis
import hashlib
import inspect
import sys
import types
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from seqdyn.names import name_of
from seqdyn.parts import FUNCTIONS, PARTS, describe, is_part, within
from seqdyn.types import ConfigError


def difference(there: Any, here: Any, live: Any = None, name: str = "") -> tuple[str, Any, Any] | None:
    """The first place where two JSON values differ: (path, there, here); None where they agree.

    `live` is what `here` describes. In a part, 1 and 1.0 differ, and what `there` does not say had its default.
    """
    if isinstance(there, dict) and isinstance(here, dict):
        defaults = {f.name: _default(f) for f in dataclasses.fields(live)} if is_part(live) else {}
        for key in [*here, *(k for k in there if k not in here)]:
            old = there[key] if key in there else describe(defaults.get(key))
            new = here.get(key, "missing")
            found = difference(old, new, getattr(live, key, None), f"{name}.{key}".lstrip("."))
            if found:
                return found
        return None
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        lives = live if isinstance(live, tuple) and len(live) == len(here) else [None] * len(here)
        for i, (old, new, one) in enumerate(zip(there, here, lives, strict=True)):
            found = difference(old, new, one, f"{name}[{i}]")
            if found:
                return found
        return None
    return None if there == here and (live is None or type(there) is type(here)) else (name, there, here)


def _default(field: Any) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


def rebuilt(described: Any) -> Any:
    """The parts that a manifest describes. Raises ConfigError for a part or function that this process does not hold,
    with the module to import, and for values that the class refuses."""
    if isinstance(described, list):
        return tuple(map(rebuilt, described))
    if not isinstance(described, dict):
        return described
    if "runs" in described:
        return np.asarray(rebuilt(described["runs"]))
    if "float" in described:
        return float(described["float"])
    if "function" in described:
        return _held(FUNCTIONS, described["function"], "function")
    cls: Any = _held(PARTS, described.get("part"), "part")
    fields = [f.name for f in dataclasses.fields(cls)]
    given = {name: rebuilt(value) for name, value in described.items() if name != "part"}
    for name in given:
        if name not in fields:
            raise ConfigError(f"{described['part']} has no field '{name}'; it has {', '.join(fields)}.")
    return cls(**given)


def _held(there: dict[str, Any], name: Any, what: str) -> Any:
    if name not in there:
        module = str(name).partition(":")[0]
        cure = f"import {module} before" if what == "part" else "make a part or a Spec that holds it before"
        raise ConfigError(f"the {what} {name!r} is not known in this process; {cure}.")
    return there[name]


def sources(value: Any) -> dict[str, str]:
    """A digest of the source of every class, with those above it, and function that parts are made of, by name: an
    edited step is the same JSON. Of what has no source, as a class typed at a prompt, it is that of the code. What they
    call is in `reads`. Those of this library are left out, whose version the manifest has."""
    found: dict[str, str] = {}
    for one in within(value):
        if is_part(one):
            name, of = type(one).__part_name__, [c for c in type(one).__mro__ if c is not object]
        else:
            name, of = describe(one)["function"], [one]
        if not name.startswith("seqdyn:"):
            if said := "".join(map(_source, of)):
                found[name] = hashlib.sha256(said.encode()).hexdigest()
    return found


def _source(one: Any) -> str:
    try:
        return inspect.getsource(one)
    except (OSError, TypeError):  # of a class typed at a prompt; of a function of C there is no code either
        made = vars(one) if isinstance(one, type) else {one.__qualname__: getattr(one, "__code__", None)}
        said = [(name, _code(of)) for name, of in made.items() if of and not name.startswith("__dataclass")]
        return repr(said) if said else ""


def _code(of: Any) -> Any:
    """What a function, a property or a constant in code says, without addresses."""
    of = of.fget if isinstance(of, property) else getattr(of, "__func__", of)
    of = getattr(of, "__code__", of)
    if isinstance(of, types.CodeType):
        return of.co_code.hex(), of.co_names, of.co_varnames, [_code(one) for one in of.co_consts]
    return of if isinstance(of, str | bytes | int | float | complex | tuple | None) else type(of).__name__


def reads(value: Any) -> dict[str, str]:
    """What the code of users' parts and functions reads of users' modules, and what that reads in its turn, by name:
    numbers, words, and tuples, lists and dicts of them as they are, and digests of arrays, and of the source of
    functions and classes.

    All this is in their programs, and in no field. What the code itself changes, as a counter or a list that it fills,
    is left out; that a function fills a list which it was given is not seen.
    """
    found: dict[str, str] = {}
    changed: set[str] = set()
    todo = [type(one) if is_part(one) else one for one in within(value)]
    while todo:
        one = todo.pop()
        classes = [cls for cls in one.__mro__ if cls is not object] if isinstance(one, type) else []
        for function in [of for cls in classes for of in vars(cls).values()] or [one]:
            named, fills = _globals(function)
            changed |= fills
            for name, held in named.items():
                if name not in found and (said := _said(held)):
                    found[name] = said
                    todo += [held] if _is_code(held) else []
    return {name: said for name, said in sorted(found.items()) if name not in changed}


_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_ONLY_READ = ("get", "copy", "items", "keys", "values", "index", "count")
"""What a list or a dict has that changes nothing."""


def _is_users(module: str) -> bool:
    """Is it neither the library's, nor Python's, nor an installed package's?"""
    where = getattr(sys.modules.get(module), "__file__", None) or ""
    return module.partition(".")[0] not in {"seqdyn", *sys.stdlib_module_names} and "site-packages" not in where


def _is_code(held: Any) -> bool:
    return inspect.isfunction(inspect.unwrap(held) if callable(held) else held) or inspect.isclass(held)


def _globals(function: Any) -> tuple[dict[str, Any], set[str]]:
    """What the code of a user's function names of its module, and of users' modules that it has, by name, of functions
    and classes those of users alone; and the names of what it changes: where it sets an item of anything, all lists
    and dicts."""
    function = function.fget if isinstance(function, property) else getattr(function, "__func__", function)
    function = inspect.unwrap(function) if callable(function) else function
    module, first = getattr(function, "__module__", None), getattr(function, "__code__", None)
    if first is None or not _is_users(str(module)):
        return {}, set()
    there, codes, changed, found = function.__globals__, [first], set(), {}
    mine = name_of(function).partition(":")[0]
    while codes:
        code = codes.pop()
        said = [of for of in dis.get_instructions(code) if of.opname != "EXTENDED_ARG"]
        stores = any(of.opname in ("STORE_SUBSCR", "DELETE_SUBSCR") for of in said)
        attributes = [of.argval if of.opname in _ATTRIBUTES else None for of in said] + [None, None]
        for n, of in enumerate(said):  # co_names has the names of attributes, too
            name = f"{mine}:{of.argval}"
            if of.opname == "STORE_GLOBAL":
                changed.add(name)
            elif of.opname in _LOADS and of.argval in there:
                held, attribute = there[of.argval], attributes[n + 1]
                if inspect.ismodule(held) and attribute and _is_users(held.__name__):
                    name, held, attribute = (
                        f"{held.__name__}:{attribute}",
                        getattr(held, attribute, None),
                        attributes[n + 2],
                    )
                found[name] = held
                if isinstance(held, list | dict) and (stores or attribute not in (None, *_ONLY_READ)):
                    changed.add(name)
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    users = {name: held for name, held in found.items() if not _is_code(held) or _is_users(str(held.__module__))}
    return users, changed


def _said(held: Any) -> str | None:
    """A value in a manifest; None for what cannot be compared."""
    if isinstance(held, bool | int | float | complex | str | None):
        return repr(held)
    if isinstance(held, tuple | list | dict):
        each = [_said(one) for one in held]
        values = [_said(one) for one in held.values()] if isinstance(held, dict) else []
        if None in (*each, *values):
            return None
        if isinstance(held, tuple):
            return repr(held)
        pairs = [f"{key}: {value}" for key, value in zip(each, values, strict=False)]
        said = f"{{{', '.join(pairs)}}}" if isinstance(held, dict) else f"[{', '.join(map(str, each))}]"
        return said if len(said) < 200 else _digest(said.encode())
    if isinstance(held, Tracer):  # it has no value
        return None
    if isinstance(held, np.ndarray | np.generic | jax.Array) and getattr(held.dtype, "kind", "O") in "biufc":
        return _digest(f"{held.dtype} {held.shape} ".encode() + np.asarray(held).tobytes())
    if _is_code(held):
        return _digest(said.encode()) if (said := _source(held)) else None
    return None


def _digest(said: bytes) -> str:
    return hashlib.sha256(said).hexdigest()[:16]

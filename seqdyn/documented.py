"""Fields in `help()`: what stands below a field in the source is shown with its class, read when it is asked for."""

import ast
import inspect
import textwrap
from typing import Any, TypeVar

_Class = TypeVar("_Class", bound=type)


class _WithFields:
    """In the place of a class's `__doc__`: its text, then every field with what stands below it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __get__(self, instance: Any, cls: type) -> str:
        # A class below it has its own text, or none.
        mine = next(one for one in cls.__mro__ if one.__dict__.get("__doc__") is self)
        told = [f"{name}\n{textwrap.indent(text, '    ')}" for name, text in _fields(mine).items()]
        return "\n\n".join([self._text, *(["Fields:", *told] if told else [])])


def fields_in_help(cls: _Class) -> _Class:
    """`cls`, whose `__doc__` and `help()` show its fields, too."""
    text = cls.__dict__.get("__doc__")
    if not isinstance(text, _WithFields):
        cls.__doc__ = _WithFields(inspect.cleandoc(text or ""))  # type: ignore[assignment]
    return cls


def _fields(cls: type) -> dict[str, str]:
    """Name -> what stands below it, for the fields that say something; {} where there is no source, as in a console."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    found = {}
    for field, below in zip(body, body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            if isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
                found[field.target.id] = inspect.cleandoc(below.value.value)
    return found

"""beartype for jaxtyping's import hook, which asks it anew each time that a function within a function is made."""

import beartype

_checked = {}


def checked(function):
    """`function` with its annotations checked.

    jaxtyping hands over an empty function with the name and the annotations of the one that is called, so two that are
    written alike are the same. Its own annotations are classes made anew each time, alike as text.
    """
    code = function.__code__
    key = (function.__module__, function.__qualname__, code.co_varnames, code.co_flags, repr(function.__annotations__))
    if key not in _checked:
        _checked[key] = beartype.beartype(function)
    return _checked[key]

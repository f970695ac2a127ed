"""Functions with signatures that are put together: what a rule or wrapper is looked at for."""

import functools
import inspect
import typing
from collections.abc import Callable, Container, Iterable
from typing import Any

from ._schema import keywords


def bound(call: Any, takes: Container[str], values: dict[str, Any]) -> Callable[..., Any]:
    """The function with those of the values that it takes."""
    return functools.partial(call, **{k: v for k, v in values.items() if k in takes})


def defaults(call: Any) -> list[str]:
    """The keywords that have a default."""
    found = inspect.signature(call).parameters.values()
    return [p.name for p in found if p.kind is p.KEYWORD_ONLY and p.default is not p.empty]


def signed(body: Any, name: str, parts: Iterable[tuple[Any, str]]) -> Any:
    """``body`` with the keywords of all these functions, for those who look at a signature."""
    takes: dict[str, inspect.Parameter] = {}
    for owner, function in parts:
        call = getattr(owner, function, None)
        if call is None:
            continue
        hints = typing.get_type_hints(call, include_extras=True)
        own = inspect.signature(call).parameters
        for key in keywords(owner, call):
            if key in ("new", "when"):
                continue
            default = own[key].default if key in own else inspect.Parameter.empty
            if key not in takes or takes[key].default is inspect.Parameter.empty:
                hint = hints.get(key, Any)
                kind = inspect.Parameter.KEYWORD_ONLY
                takes[key] = inspect.Parameter(key, kind, default=default, annotation=hint)
    if name == "update" or name.startswith("measure"):
        takes["decay"] = inspect.Parameter("decay", inspect.Parameter.KEYWORD_ONLY)

    def call_(*args: Any, **values: Any) -> Any:
        return body(*args, **values)

    call_.__name__ = name
    call_.__annotations__ = {k: p.annotation for k, p in takes.items()}
    vars(call_)["__signature__"] = inspect.Signature(list(takes.values()))
    return call_

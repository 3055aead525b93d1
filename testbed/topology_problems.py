"""What is wrong with a topology, in plain words: problems with their paths, on their way through pydantic and into one error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError

from testbed.errors import InputError, TopologyError, did_you_mean
from testbed.topology_values import shown

T = TypeVar("T")
Step = str | int


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong at ``path``, the keys that lead to it; ``on_key``: the last key itself is what is wrong."""

    path: tuple[Step, ...]
    message: str
    hint: str = ""
    on_key: bool = False


def reader(read: Callable[[object], T]) -> BeforeValidator:
    """pydantic's form of a reader of ``topology_values``: its InputError keeps message and hint."""

    def validate(value: object) -> T | None:
        if value is None:
            return None
        try:
            return read(value)
        except InputError as error:
            raise as_pydantic([Problem((), error.message, error.hint)]) from None

    return BeforeValidator(validate)


def as_pydantic(problems: Sequence[Problem]) -> PydanticCustomError:
    """Problems on their way through pydantic; their paths begin where the validator stands."""
    text = "; ".join(one.message for one in problems)
    return PydanticCustomError("topology", "{text}", {"text": text, "problems": list(problems)})


def problems_of(error: ValidationError, keys_at: Callable[[tuple[Step, ...]], Iterable[str]]) -> list[Problem]:
    """pydantic's findings in plain words; ``keys_at`` gives the keys that may stand at a path."""
    problems: list[Problem] = []
    for one in error.errors(include_url=False):
        path = tuple(one["loc"])
        inner: list[Problem] = one.get("ctx", {}).get("problems", [])
        if inner:
            problems += [Problem((*path, *found.path), found.message, found.hint, found.on_key) for found in inner]
        else:
            problems.append(_in_plain_words(one["type"], path, one["input"], one.get("ctx", {}), one["msg"], keys_at))
    return [_name_is_key(one) for one in problems]


def _name_is_key(problem: Problem) -> Problem:
    """A host's or network's name is not written as a value: its key is."""
    path = problem.path
    if len(path) == 3 and path[0] in ("hosts", "networks") and path[2] == "name":
        return Problem(path[:2], problem.message, problem.hint, on_key=True)
    return problem


def _in_plain_words(
    kind: str,
    path: tuple[Step, ...],
    value: object,
    context: Mapping[str, Any],
    message: str,
    keys_at: Callable[[tuple[Step, ...]], Iterable[str]],
) -> Problem:
    written = shown(value)
    match kind:
        case "extra_forbidden":
            known = sorted(keys_at(path[:-1]))
            near = did_you_mean(str(path[-1]), known)
            return Problem(path, f"there is no key {shown(path[-1])}{near}", f"keys here: {', '.join(known)}", on_key=True)
        case "missing":
            return Problem(path[:-1], f"'{path[-1]}' is missing", f"write {path[-1]}: and its value")
        case "literal_error":
            allowed = str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
            near = did_you_mean(value, allowed) if isinstance(value, str) else ""
            return Problem(path, f"there is no {path[-1]} {written}{near}", f"one of: {', '.join(allowed)}")
        case "bool_parsing" | "bool_type":
            return Problem(path, f"{written} is neither true nor false", "true or false")
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            return Problem(path, f"{written} is not a whole number", "a number without quotes, point or unit")
        case "float_parsing" | "float_type" | "finite_number":
            return Problem(path, f"{written} is not a number", "a number like 2 or 0.5")
        case "greater_than_equal" | "less_than_equal" | "greater_than" | "less_than":
            words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
            key = next(key for key in words if key in context)
            return Problem(path, f"{written} is out of range", f"{words[key]} {context[key]:g}")
        case "string_type":
            return Problem(path, f"{written} is not text")
        case "tuple_type" | "list_type":
            return Problem(path, f"{written} is not a list", "one entry a line, each after '- '")
        case "dict_type" | "model_type" | "model_attributes_type":
            return Problem(path, f"{written} is not a mapping", f"keys here: {', '.join(sorted(keys_at(path)))}")
        case "path_type":
            return Problem(path, f"{written} is not a path")
        case _:
            return Problem(path, message[:1].lower() + message[1:])


def topology_error(
    problems: Sequence[Problem], *, file: str = "", locate: Callable[[Problem], tuple[int, int]] = lambda _: (0, 0), most: int = 20
) -> TopologyError:
    """One error for all problems in the order of the file; ``locate`` gives line and column of each, from 1 (0: unknown)."""
    found = dict.fromkeys((locate(one), _sentence(one), one.hint) for one in problems)
    placed = sorted(found, key=lambda one: one[0])
    (line, column), message, hint = placed[0]
    if len(placed) == 1:
        return TopologyError(message, file=file, line=line, column=column, hint=hint)
    texts = [f"{message}\n  {hint}" if hint else message]
    for (its_line, its_column), its_message, its_hint in placed[1:most]:
        texts.append(str(TopologyError(its_message, file=file, line=its_line, column=its_column, hint=its_hint)))
    if len(placed) > most:
        texts.append(f"and {len(placed) - most} more problems")
    return TopologyError("\n".join(texts), file=file, line=line, column=column)


def _sentence(problem: Problem) -> str:
    # A key is whatever somebody wrote: only what is short and printable is shown as it is.
    place = ".".join(step if isinstance(step, str) and step.isprintable() and len(step) <= 60 else shown(step) for step in problem.path)
    return f"{place}: {problem.message}" if place else problem.message

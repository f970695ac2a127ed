"""What the command line's arguments say."""

from typing import Any


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def assignment(text: str) -> tuple[str, Any]:
    """``b1=0.8`` as a name and a value."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set takes NAME=VALUE, got {text!r}")
    known: dict[str, Any] = {"true": True, "false": False, "none": None}
    if value.lower() in known:
        return name, known[value.lower()]
    try:
        return name, float(value)
    except ValueError:
        return name, value

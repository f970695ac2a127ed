"""A safetensors file that is written whole or not at all, and of which no byte changes unnoticed.

``arrayopt/checkpoint.py`` says what is in it.
"""

import hashlib
import json
import os
import tempfile
from typing import Any

import numpy as np

from ._namespace import WIDTH
from ._transfer import CheckpointError, from_bytes
from ._version import __version__

FORMAT = 1
START = b'{"__metadata__":{"arrayopt":"{\\"checksum\\":\\"'  # what follows the first 8 bytes
MEMBERS = {
    "checksum": (str,),
    "format": (int,),
    "arrayopt": (str,),
    "rule": (str,),
    "custom": (bool,),
    "step": (int,),
    "options": (dict,),
    "schedules": (list,),
    "decay_mask": (dict, type(None)),
    "parameters": (dict,),
    "slots": (dict,),
    "tensors": (dict,),
}
PLAIN = (bool, int, float, str, type(None))
NAMED = ("state_dtype",)  # options that may be objects; the optimizer checks them
SEAL = slice(8 + len(START), 8 + len(START) + 64)  # where the header's checksum is


def sha256(x: Any) -> str:
    if isinstance(x, np.ndarray):
        x = x.reshape(-1).view(np.uint8)
    return hashlib.sha256(x).hexdigest()


def _sealed(head: bytes) -> bytes:
    """The checksum of a header, as it stands in it."""
    return sha256(head[: SEAL.start] + b"0" * 64 + head[SEAL.stop :]).encode()


def write(path: str, tensors: dict[str, np.ndarray], about: str) -> None:
    """The file, written in a folder beside it, forced to the disk, and moved to its place."""
    from safetensors.numpy import save_file

    folder, name = os.path.split(path)
    with tempfile.TemporaryDirectory(".tmp", f".{name[:200]}.", folder) as beside:
        other = os.path.join(beside, name)
        with open(other, "xb") as file:
            mode = os.fstat(file.fileno()).st_mode  # the usual one; save_file makes another
        save_file(tensors, other, {"arrayopt": about})
        os.chmod(other, mode)
        with open(other, "r+b") as file:
            size = file.read(8)
            head = size + file.read(int.from_bytes(size, "little"))
            if head[8 : SEAL.start] != START:
                raise RuntimeError("this version of safetensors does not put the metadata first")
            file.seek(SEAL.start)
            file.write(_sealed(head))
            file.flush()
            os.fsync(file.fileno())
        os.replace(other, path)
    if os.name == "posix":  # the renaming too must be on the disk
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read(path: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """The metadata and the tensors of a file, checked against their checksums."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        return _parsed(data)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _parsed(data: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    from safetensors import SafetensorError, deserialize

    end = 8 + int.from_bytes(data[:8], "little")
    if len(data) <= 8 or not data.startswith(START[: len(data) - 8], 8):
        kind = "a safetensors file, but" if data[8:10] == b'{"' and end <= len(data) else "a file"
        raise CheckpointError(f"{kind} not one that arrayopt.save wrote")
    if end > len(data):
        raise CheckpointError(f"cut off in its header, at {len(data)} of {end} bytes")
    head = data[:end]
    if head[SEAL] != _sealed(head):
        raise CheckpointError(f"its header (bytes 0 to {end}) is damaged: wrong checksum")
    try:
        header = json.loads(head[8:])
        about = json.loads(header.pop("__metadata__")["arrayopt"])
        newer = about["format"] > FORMAT and (
            f"its format is {about['format']}, written by arrayopt {about['arrayopt']}; "
            f"this one ({__version__}) reads up to {FORMAT}"
        )
        wrong = None if newer else _malformed(about, header)
        last = end + max((x["data_offsets"][1] for x in header.values()), default=0)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"its header is not as format 1 has it: {error!r}") from None
    if newer or wrong:
        raise CheckpointError(newer or f"its header is not as format 1 has it: {wrong}")
    if len(data) != last:
        raise CheckpointError(f"it has {len(data)} bytes, but should have {last}")
    try:
        parts = dict(deserialize(data))  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise CheckpointError(str(error)) from None
    for name, digest in about["tensors"].items():
        if sha256(parts[name]["data"]) != digest:
            raise CheckpointError(f"the bytes of {name} are damaged: wrong checksum")
    return about, {k: from_bytes(k, **parts[k]) for k in about["tensors"]}


def _malformed(about: Any, tensors: Any) -> str | None:
    """What is wrong in the metadata, which may be anyone's."""
    for name, kinds in MEMBERS.items():
        if type(about[name]) not in kinds:
            return f"{name} is {about[name]!r:.80}"
    held, mask = about["parameters"], about["decay_mask"]
    shapes = [(dtype, n) for dtype, shape in held.values() for n in (0, *shape)]
    for name, fine in (
        ("members", about.keys() == MEMBERS.keys()),
        ("step", about["step"] >= 0),
        ("options", all(type(x) in PLAIN or k in NAMED for k, x in about["options"].items())),
        ("schedules", all(type(x) is str for x in about["schedules"])),
        ("parameters", held and all(d in WIDTH and type(n) is int and n >= 0 for d, n in shapes)),
        ("decay_mask", not mask or (mask.keys() == held.keys() and {*mask.values()} <= {0, 1})),
        ("slots", all(type(x) is bool for x in about["slots"].values())),
        ("tensors", about["tensors"].keys() == tensors.keys()),
    ):
        if not fine:
            return f"{name} of {about.get(name, [*about])!r:.80}"
    return None

"""Mutated model files, and a loop that feeds them to the reader under a memory and a time limit.

    python tests/model_fuzz.py --count 200000 --seed 1

Every file must be accepted and self-consistent, or refused with one sentence. The first that does neither is written to
the folder given by ``--keep`` and named in the error. Runs as its own process because it limits its own memory.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import resource
import signal
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from networks import Limits, random_network

from lutq_hw import coded, modelfile
from lutq_hw.errors import ModelError
from lutq_hw.network import Network

SECONDS_PER_FILE = 10
LONGEST_SENTENCE = 600

Rng = np.random.Generator


# --- a zip archive whose every field can lie


@dataclass(frozen=True)
class Member:
    """One archive member as written; a field that is not None replaces the true value."""

    name: bytes
    data: bytes
    deflated: bool = False
    flags: int = 0
    method: int | None = None
    crc: int | None = None
    packed: int | None = None
    size: int | None = None
    offset: int | None = None
    local_name: bytes | None = None


def pack(members: list[Member], *, comment: bytes = b"", count: int | None = None) -> bytes:
    """A zip archive of ``members``."""
    body, directory = bytearray(), bytearray()
    for member in members:
        engine = zlib.compressobj(1, zlib.DEFLATED, -15)
        stored = engine.compress(member.data) + engine.flush() if member.deflated else member.data
        method = (8 if member.deflated else 0) if member.method is None else member.method
        crc = zlib.crc32(member.data) if member.crc is None else member.crc
        packed = len(stored) if member.packed is None else member.packed
        size = len(member.data) if member.size is None else member.size
        offset = len(body) if member.offset is None else member.offset
        local = member.name if member.local_name is None else member.local_name
        fields = struct.pack("<HHHHLLLHH", member.flags, method, 0, 33, crc, packed, size, len(local), 0)
        body += b"PK\x03\x04" + struct.pack("<H", 20) + fields + local + stored
        fields = struct.pack("<HHHHLLLHH", member.flags, method, 0, 33, crc, packed, size, len(member.name), 0)
        directory += b"PK\x01\x02" + struct.pack("<HH", 20, 20) + fields + struct.pack("<HHHLL", 0, 0, 0, 0, offset)
        directory += member.name
    number = len(members) if count is None else count
    end = struct.pack("<HHHHLLH", 0, 0, number, number, len(directory), len(body), len(comment))
    return bytes(body + directory + b"PK\x05\x06" + end + comment)


def npy(array: np.ndarray) -> bytes:
    """The `.npy` file of ``array``, of any type but objects."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


Parts = dict[str, Any]


@lru_cache
def _contents(data: bytes) -> tuple[bytes, Parts]:
    with np.load(io.BytesIO(data)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return arrays.pop("header").tobytes(), arrays


def unpack(data: bytes) -> tuple[dict[str, Any], Parts]:
    """Header and arrays of a valid model file; the arrays are not to be written to."""
    text, arrays = _contents(data)
    return json.loads(text), dict(arrays)


def with_codings(header: dict[str, Any], arrays: Parts, choose: Callable[[], str]) -> tuple[dict[str, Any], Parts]:
    """Header and arrays with the assignments of each layer as ``choose`` has it: raw, huffman or sparse."""
    arrays = dict(arrays)
    for node in header["nodes"]:
        kind = choose() if "assignments" in node["arrays"] else "raw"
        if kind != "raw":
            header["version"] = 2
            made = (coded.dense if kind == "huffman" else coded.sparse)(arrays.pop(f"{node['name']}.assignments"))
            node["coding"] = json.loads(json.dumps(made.coding.fields))
            node["arrays"][node["arrays"].index("assignments")] = "coded"
            arrays[f"{node['name']}.coded"] = made.array
    return header, arrays


def repack(rng: Rng, header: Any, arrays: Parts, text: bytes | None = None) -> bytes:
    """An intact archive, so that the mutation is met only behind the checksums."""
    text = json.dumps(header).encode() if text is None else text
    deflated = bool(rng.random() < 0.3)
    everything = {"header": np.frombuffer(text, np.uint8), **arrays}
    return pack([Member(f"{name}.npy".encode(), npy(array), deflated) for name, array in everything.items()])


# --- mutations: bytes of valid files in, bytes of one mutated file out


def _pick(rng: Rng, items: Any) -> Any:
    return items[int(rng.integers(len(items)))]


def flip_bits(rng: Rng, pool: list[bytes]) -> bytes:
    """A few bits anywhere."""
    data = bytearray(_pick(rng, pool))
    for _ in range(int(rng.integers(1, 9))):
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def truncate(rng: Rng, pool: list[bytes]) -> bytes:
    """Cut at either end, or bytes added."""
    data = _pick(rng, pool)
    at = int(rng.integers(len(data)))
    return _pick(rng, [data[:at], data[at:], data[:at] + data[at + int(rng.integers(1, 40)):], data + data[:at % 64]])


def splice(rng: Rng, pool: list[bytes]) -> bytes:
    """The beginning of one file and the end of another, or a piece of one inside the other."""
    a, b = _pick(rng, pool), _pick(rng, pool)
    i, j = int(rng.integers(len(a))), int(rng.integers(len(b)))
    k = j + int(rng.integers(1, 200))
    return _pick(rng, [a[:i] + b[j:], a[:i] + b[j:k] + a[i:], a[:i] + b[j:k] + a[i + k - j:]])


def overwrite(rng: Rng, pool: list[bytes]) -> bytes:
    """A run of equal or random bytes; often in the directory at the end."""
    data = bytearray(_pick(rng, pool))
    length = int(rng.integers(1, 9))
    at = int(rng.integers(max(0, len(data) - 300), len(data))) if rng.random() < 0.6 else int(rng.integers(len(data)))
    data[at:at + length] = _pick(rng, [b"\0" * length, b"\xff" * length, b"\x7f" * length, rng.bytes(length)])
    return bytes(data)


INTERESTING: list[Any] = [
    None, True, False, 0, 1, 2, -1, 3, 8, 9, 31, 32, 33, 255, 256, 4096, 4097, 65536, 65537, 1 << 31, 1 << 63, 1 << 64,
    -(1 << 63), 10**19, 0.5, 1e308, "", "x", "image", "out", "conv0", "thresholds", "shift", "dense", "conv2d", "input",
    "output", "scores", "argmax", "table", "../../x", "a" * 70, "a" * 5000, "\ud800", "\n", "\x1b[31m", "é",
    "add", "avg_pool2d", "requantize", "activation", "coded", "coding", "huffman", "sparse",
    ["image"], ["image", "image"], [None], [True, True],
    [], {}, [[]], [1], [1, 1], [0, 0], [2, 2], [1, 1, 1], [3, 3, 3], [4096, 4096, 4096], [70000], [1, 2, 3, 4],
    {"kind": "shift", "shift": 1, "bits": 4, "signed": False},
    {"kind": "table", "shift": 1, "bits": 4, "signed": False},
    {"kind": "thresholds", "bits": 4, "signed": True}, {"kind": "huffman", "shape": [4, 4], "symbols": 3},
    {"kind": "sparse", "shape": [4096, 8000], "symbols": 1, "rest": 0, "kept": 1, "gap_symbols": 2, "gaps": 1},
]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON tree."""
    items: list[tuple[Any, Any]] = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    found = [(value, key) for key, _ in items]
    for _, child in items:
        if isinstance(child, dict | list):
            found += _places(child)
    return found


def mutate_header(rng: Rng, pool: list[bytes]) -> bytes:
    """One to three changes in the JSON tree: a value replaced, removed, moved, repeated; a key renamed or added."""
    header, arrays = unpack(_pick(rng, pool))
    for _ in range(int(rng.integers(1, 4))):
        places = _places(header)
        if not places:
            break
        container, key = _pick(rng, places)
        other, other_key = _pick(rng, places)
        choice = rng.integers(8)
        if choice < 3:
            container[key] = copy.deepcopy(_pick(rng, INTERESTING))
        elif choice == 3:
            del container[key]
        elif choice == 4:
            container[key] = copy.deepcopy(other[other_key])
        elif choice == 5 and isinstance(container, list):
            container.insert(int(rng.integers(len(container) + 1)), copy.deepcopy(container[key]))
        elif choice == 6 and isinstance(container[key], int) and not isinstance(container[key], bool):
            container[key] += int(rng.integers(-2, 3))
        elif isinstance(container, dict):
            container[_pick(rng, ["kind", "step", "extra", "name", "é", "input", "x" * 300])] = container.pop(key)
    return repack(rng, header, arrays)


def mutate_text(rng: Rng, pool: list[bytes]) -> bytes:
    """The header as text: what JSON libraries let through, and what exhausts them."""
    header, arrays = unpack(_pick(rng, pool))
    text = json.dumps(header).encode()
    choice = rng.integers(9)
    if choice < 3:
        digits = [i for i, byte in enumerate(text) if chr(byte).isdigit()]
        at = _pick(rng, digits)
        new = _pick(rng, [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 5000, b"0.1", b"-0", b"1E400",
                          b"\"\\ud800\"", b"[" * 40 + b"]" * 40, b"true"])
        text = text[:at] + new + text[at + 1:]
    elif choice == 3:
        text = text.replace(b'"kind":', b'"name": "x", "kind":', 1)
    elif choice == 4:
        text = _pick(rng, [b"[" * 100000, b"{\"a\":" * 50000, b"[" * 20 + b"]" * 20, b"", b"null", b"[]", b"3", b"\"\"",
                           b"[{}" + b",[]" * 100000 + b"]"])
    elif choice == 5:
        text = _pick(rng, [b"\xef\xbb\xbf", b"\xff", b"\0", b" " * 100000]) + text
    elif choice == 6:
        text = text.decode().encode("utf-16")
    else:
        mutable = bytearray(text)
        mutable[rng.integers(len(text))] = int(rng.integers(256))
        text = bytes(mutable)
    return repack(rng, None, arrays, text)


def _other_array(rng: Rng, array: np.ndarray) -> np.ndarray:
    """``array`` with another type, shape, order or value."""
    choice = rng.integers(9)
    if array.dtype.kind not in "iu":
        return array  # changed before
    if choice == 0:
        return array.astype(_pick(rng, ["f4", "f8", "?", "i8", ">i4", ">u2", "i1", "c8", "U2", "S3", "M8[s]", "u8"]))
    if choice == 1:
        return np.asfortranarray(array)
    if choice == 2:
        flat = array.reshape(-1)
        return _pick(rng, [array[None], flat, array[..., :1], array[:0], array.T, array[1:], flat[0]])
    if choice == 3:
        return np.concatenate([array, array], axis=int(rng.integers(array.ndim)))
    if choice == 4:
        shapes = [(1,), (0,), (3, 0), (300, 300), (1, 1, 1, 1), (70000,), (2, 256), (1, 256, 9)]
        return np.zeros(_pick(rng, shapes), array.dtype)
    if choice == 5:
        return array[rng.permutation(len(array))]
    if choice == 6:
        return np.array([(1, 2)], dtype=[("a", "i4"), ("b", "i4")])
    value = _pick(rng, [255, 127, -1, -128, 1 << 20, (1 << 20) + 1, 1 << 31, -(1 << 31), 1 << 40, -(1 << 63),
                        (1 << 63) - 1, 2, 0])
    wide = array.astype(np.int64).copy()
    wide.reshape(-1)[rng.integers(wide.size)] = value
    return wide


def mutate_array(rng: Rng, pool: list[bytes]) -> bytes:
    """Arrays changed, removed, renamed, exchanged, or one too many."""
    header, arrays = unpack(_pick(rng, pool))
    for _ in range(int(rng.integers(1, 3))):
        if not arrays:
            break
        name = _pick(rng, sorted(arrays))
        choice = rng.integers(10)
        if choice < 6:
            if arrays[name].size:
                arrays[name] = _other_array(rng, arrays[name]) if arrays[name].ndim else arrays[name][None]
        elif choice == 6:
            del arrays[name]
        elif choice == 7:
            new = _pick(rng, ["extra", "image.encode", name + "x", "header2", "conv0.table", "dense0.subgroups"])
            arrays[new] = arrays[name]
        elif choice == 8:
            other = _pick(rng, sorted(arrays))
            arrays[name], arrays[other] = arrays[other], arrays[name]
        else:
            arrays = {**unpack(_pick(rng, pool))[1], **arrays} if rng.random() < 0.5 else unpack(_pick(rng, pool))[1]
    return repack(rng, header, arrays)


def mutate_npy(rng: Rng, pool: list[bytes]) -> bytes:
    """The `.npy` headers: shapes that lie about the data, types, versions, lengths."""
    header, arrays = unpack(_pick(rng, pool))
    members = [Member(b"header.npy", npy(np.frombuffer(json.dumps(header).encode(), np.uint8)))]
    members += [Member(f"{name}.npy".encode(), npy(array), bool(rng.random() < 0.3)) for name, array in arrays.items()]
    at = int(rng.integers(len(members)))
    data = members[at].data
    end = 10 + int.from_bytes(data[8:10], "little")
    text = data[10:end]
    shape = text[text.index(b"'shape': ") + 9:text.index(b")") + 1]
    choice = rng.integers(6)
    if choice == 0:
        new = _pick(rng, [b"(4294967296, 4294967296)", b"(99999999999999999999,)", b"(-1,)", b"()", b"(0,)",
                          b"(1,1,1,1,1,1,1,1,1)", b"(True,)", b"(1e3,)", b"(2**40,)", b"(__import__('os').abort(),)",
                          b"(1000000000,)", b"(3 4,)"])
        text = text.replace(shape, new)
    elif choice == 1:
        new = _pick(rng, [b"'|O'", b"'<f8'", b"'<i3'", b"'>i8'", b"'|V8'", b"[('a', '<i4')]", b"'<u16'", b"'|b1'",
                          b"None", b"'=u1'"])
        text = text.replace(text[text.index(b"'descr': ") + 9:text.index(b", 'fortran")], new)
    elif choice == 2:
        mutable = bytearray(text)
        mutable[rng.integers(len(text))] = int(rng.integers(256))
        text = bytes(mutable)
    elif choice == 3:
        text = _pick(rng, [text * 100, text[:-9], b"", b"(" * 3000, text.replace(b"False", b"True"), text + b"\0" * 50])
    body = data[end:]
    body = body[:int(rng.integers(len(body) + 1))] if choice == 4 else body + b"\0" if choice == 5 else body
    version = _pick(rng, [b"\1\0", b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\4\0", b"\0\0"])
    length = struct.pack("<H", len(text) & 0xFFFF) if version < b"\2" else struct.pack("<L", len(text))
    members[at] = replace(members[at], data=data[:6] + version + length + text + body)
    return pack(members)


def mutate_zip(rng: Rng, pool: list[bytes]) -> bytes:
    """The archive itself: bombs, sizes, offsets and names that lie, repeated and overlapping members."""
    header, arrays = unpack(_pick(rng, pool))
    everything = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays}
    members = [Member(f"{n}.npy".encode(), npy(a), bool(rng.random() < 0.5)) for n, a in everything.items()]
    at = int(rng.integers(len(members)))
    member = members[at]
    lie = _pick(rng, [0, 1, len(member.data) - 1, len(member.data) + 1, 1 << 16, 1 << 26, (1 << 26) + 1, 1 << 31,
                      0xFFFFFFFF])
    name = _pick(rng, [b"", b"/etc/passwd", b"a" * 400 + b".npy", b"\xff.npy", b"header.npy", b"x", b"a\nb.npy"])
    options: list[Callable[[], Any]] = [
        lambda: members.__setitem__(at, replace(member, size=lie)),
        lambda: members.__setitem__(at, replace(member, packed=lie)),
        lambda: members.__setitem__(at, replace(member, offset=lie)),
        lambda: members.__setitem__(at, replace(member, offset=0)),
        lambda: members.__setitem__(at, replace(member, crc=0)),
        lambda: members.__setitem__(at, replace(member, flags=1 << int(rng.integers(16)))),
        lambda: members.__setitem__(at, replace(member, method=int(rng.integers(0, 20)))),
        lambda: members.__setitem__(at, replace(member, local_name=b"x")),
        lambda: members.__setitem__(at, replace(member, name=name)),
        lambda: members.__setitem__(at, replace(member, data=npy(np.zeros(900000, np.uint8)), deflated=True)),
        lambda: members.append(member),
        lambda: members.insert(0, Member(b"bomb.npy", bytes(1 << 20), True, size=int(rng.integers(0, 1 << 22)))),
        lambda: members.extend(Member(f"m{i}.npy".encode(), b"") for i in range(int(rng.integers(1, 100)))),
        lambda: members.clear(),
    ]
    _pick(rng, options)()
    return pack(members, comment=b"c" * int(rng.random() < 0.05),
                count=int(rng.integers(0, 65536)) if rng.random() < 0.05 else None)


def mutate_coded(rng: Rng, pool: list[bytes]) -> bytes:
    """Coded assignments: code lengths that are other codes or none, bits of the streams, counts that lie."""
    some = [data for data in pool if any(name.endswith(".coded") for name in unpack(data)[1])]
    header, arrays = unpack(_pick(rng, some))
    node = _pick(rng, [node for node in header["nodes"] if "coding" in node])
    coding, name = node["coding"], f"{node['name']}.coded"
    data = arrays[name].copy()
    lengths = coding["symbols"] + coding.get("gap_symbols", 0)
    i, j = rng.integers(lengths, size=2)
    choice = rng.integers(8)
    if choice == 0:
        data[[i, j]] = data[[j, i]]
    elif choice == 1:
        data[i] = _pick(rng, [0, 1, 2, 15, 16, 17, 24, 25, 255])
    elif choice == 2:
        data[int(rng.integers(lengths, len(data)))] ^= 1 << int(rng.integers(8))
    elif choice == 3:
        longer = np.append(data, np.uint8(0))
        data = _pick(rng, [data[:-1], longer, data[:lengths], data[:lengths + 1], np.delete(data, i)])
    elif choice == 4:
        data[lengths:] = rng.integers(0, 256, len(data) - lengths)
    elif choice == 5:
        key = _pick(rng, [key for key in coding if key not in ("kind", "shape")])
        coding[key] += int(rng.integers(-2, 3))
    elif choice == 6:
        axis = int(rng.integers(len(coding["shape"])))
        coding["shape"][axis] = _pick(rng, [0, 1, 2, 3, coding["shape"][axis] + 1, 4096, 1 << 20, 1 << 40])
    else:
        other = _pick(rng, [coding["shape"][::-1], coding["shape"][1:], [*coding["shape"], 1], [2, 1 << 24]])
        coding["shape"] = other
    return repack(rng, header, {**arrays, name: data})


MUTATIONS: dict[str, tuple[Callable[[Rng, list[bytes]], bytes], int]] = {
    "flip_bits": (flip_bits, 2), "truncate": (truncate, 1), "splice": (splice, 1), "overwrite": (overwrite, 1),
    "header": (mutate_header, 6), "text": (mutate_text, 2), "array": (mutate_array, 5), "npy": (mutate_npy, 2),
    "zip": (mutate_zip, 2), "coded": (mutate_coded, 4),
}
"""Mutation and how often it is chosen."""


# --- the loop


def base_files(rng: Rng) -> list[bytes]:
    """Valid files of small random networks; every second pair with coded assignments."""
    limits = [Limits(extent=5, channels=3, bits=5, entries=5, graph=graph) for graph in (False, True)]
    files = [modelfile.to_bytes(random_network(rng, limits[number % 2])) for number in range(40)]
    for number in range(40):
        if number % 4 > 1:
            parts = with_codings(*unpack(files[number]), lambda: _pick(rng, ["raw", "huffman", "sparse", "sparse"]))
            files[number] = repack(rng, *parts)
    return files


def check(path: Path) -> str:
    """accepted or refused; `AssertionError` if the reader does neither properly."""
    try:
        network = modelfile.load(path)
    except ModelError as error:
        text = str(error)
        assert text.startswith(f"{path}: "), f"sentence does not begin with the file: {text!r}"
        assert text.isprintable(), f"sentence is not one printable line: {text!r}"
        assert len(text) < LONGEST_SENTENCE + len(str(path)), f"sentence has {len(text)} characters: {text[:200]!r}"
        return "refused"
    check_network(network, path)
    return "accepted"


def check_network(network: Network, path: Path) -> None:
    """What is accepted can be written, and read back the same."""
    for coding in coded.CODINGS:
        data = modelfile.to_bytes(network, coding=coding)
        path.write_bytes(data)
        again = modelfile.load(path)
        assert again.digest == network.digest and again.info == network.info and again.name == network.name
        assert modelfile.to_bytes(again, coding=coding) == data


def _too_long(*_: object) -> None:
    raise TimeoutError(f"took more than {SECONDS_PER_FILE} s")


def run(count: int, seed: int, folder: Path, keep: Path) -> Counter[str]:
    """Check ``count`` mutated files; the n-th depends on ``seed`` and n only."""
    pool = base_files(np.random.default_rng(seed))
    names = [name for name, (_, weight) in MUTATIONS.items() for _ in range(weight)]
    results: Counter[str] = Counter()
    signal.signal(signal.SIGALRM, _too_long)
    path = folder / "m.npz"
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        name = _pick(rng, names)
        data = MUTATIONS[name][0](rng, pool)
        path.write_bytes(data)
        signal.alarm(SECONDS_PER_FILE)
        try:
            results[f"{name} {check(path)}"] += 1
        except BaseException as error:
            kept = keep / f"fuzz_{seed}_{number}.npz"
            kept.write_bytes(data)
            raise AssertionError(f"seed {seed}, file {number} ({name}), kept as {kept}: {error!r}") from error
        finally:
            signal.alarm(0)
    return results


def limit_memory(megabytes: int) -> None:
    """Refuse this process more than ``megabytes`` of data, what Python and numpy already hold included."""
    resource.setrlimit(resource.RLIMIT_DATA, (megabytes << 20, megabytes << 20))


def main() -> None:
    """Run and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memory", type=int, default=256, help="limit in MB")
    parser.add_argument("--keep", type=Path, default=Path(), help="folder for a file that fails")
    args = parser.parse_args()
    limit_memory(args.memory)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        results = run(args.count, args.seed, Path(folder), args.keep)
    for name, number in sorted(results.items()):
        print(f"{number:8,}  {name}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{results.total():,} files in {time.perf_counter() - begin:.1f} s, peak {peak} MB")


if __name__ == "__main__":
    main()

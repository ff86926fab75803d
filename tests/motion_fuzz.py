"""Damaged and hostile motion files over all importers: each is read or refused in a sentence, soon, and does nothing.

python tests/motion_fuzz.py --count 3000 --seed 0      (or: make fuzz COUNT=3000 SEED=0)

For each file it checks: read_motion returns a motion or raises ComoviError with one sentence; within 5 s; nothing is
run, opened for writing, connected or imported from the file (audit hook); memory stays below a bound.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
import resource
import struct
import sys
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import conftest  # noqa: F401  (puts the checkout under its name)

import motion_files
import numpy as np
import torch
from comfyui_comovi.comovi_model.body.toy import toy_body
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.motion_io import ImportedMotion, read_motion

SLOWEST = 5.0  # seconds of processor time
MOST_MEMORY = 3.0  # GiB of the whole process, torch and all: files may unfold to 1 GiB, of which copies are made
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect", "os.remove",
             "os.rename", "os.mkdir", "shutil.rmtree", "ctypes.dlopen", "pty.spawn")  # fmt: skip
SUFFIXES = ("npz", "npy", "pkl", "pt", "bvh", "glb", "usda", "zip", "pc2", "json", "txt")
NUMBERS = (b"nan", b"inf", b"1e308", b"-1", b"0", b"999999999999999999", b"1e-320", b"--", b"0x10", b"3 4", b"")
INTEGERS = (0, 1, -1, 2**31 - 1, -(2**31), 2**16, 2**24)


class Watch:
    """Writes down what the process does while a file is read."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple) -> None:
        if not self.on:
            return
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        if event in FORBIDDEN or writes or (event == "exec" and "<string>" in str(args[0])):
            self.seen.append(f"{event} {str(args)[:80]}")


class Outcome:
    def __init__(self) -> None:
        self.problems: list[str] = []
        self.kinds: Counter[str] = Counter()
        self.slowest = (0.0, "")
        self.memory = 0.0


def check(path: Path, label: str, body, watch: Watch, outcome: Outcome) -> None:
    started = time.process_time()  # a busy machine makes everything late
    watch.seen.clear()
    watch.on = True
    try:
        found = read_motion(path, body=body)
        outcome.kinds[f"read as {found.format}"] += 1
        if not isinstance(found, ImportedMotion) or not len(found.motion):
            outcome.problems.append(f"{label}: returned {found!r:.80}")
    except ComoviError as error:
        outcome.kinds["refused"] += 1
        text = str(error)
        if len(text) > 600 + len(str(path)) or "\n" in text or not text.endswith((".", "?")):
            outcome.problems.append(f"{label}: no good sentence: {text[:300]!r}")
    except BaseException as error:
        outcome.problems.append(f"{label}: {type(error).__name__}: {str(error)[:200]}")
        if isinstance(error, KeyboardInterrupt):
            raise
    finally:
        watch.on = False
    took = time.process_time() - started
    outcome.slowest = max(outcome.slowest, (took, label))
    outcome.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    outcome.problems += [f"{label}: did {event}" for event in watch.seen]
    if took > SLOWEST:
        outcome.problems.append(f"{label}: took {took:.1f} s")
    if outcome.memory > MOST_MEMORY and not any("memory" in problem for problem in outcome.problems):
        outcome.problems.append(f"{label}: memory {outcome.memory:.2f} GiB")


def mutate(content: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """One to four injuries."""
    data = bytearray(content)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        if not data:
            return b""
        place, kind = dice.randrange(len(data)), dice.randrange(10)
        if dice.random() < 0.5:
            place = min(place, dice.randrange(1, 2000)) % len(data)  # headers matter more than tables
        if kind == 0:
            data[place] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            del data[place : place + dice.randrange(1, 200)]
        elif kind == 3:
            data[place:place] = data[place : place + dice.randrange(1, 400)]
        elif kind == 4:
            data[place : place + dice.randrange(1, 60)] = bytes(dice.randrange(1, 60))
        elif kind == 5:
            width = dice.choice("iIqQ"[: dice.choice((2, 4))])
            value = dice.choice(INTEGERS)
            size = struct.calcsize(width)
            data[place : place + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
        elif kind == 6:
            other = dice.choice(others)
            start = dice.randrange(max(1, len(other)))
            data[place : place + 50] = other[start : start + dice.randrange(1, 500)]
        elif kind == 7:
            data[place : place + 4] = dice.randbytes(dice.randrange(1, 12))
        else:
            _new_number(data, place, dice)
    return bytes(data)


def _new_number(data: bytearray, place: int, dice: random.Random) -> None:
    """A number of the text becomes an absurd one."""
    digits = b"0123456789.-+eE"
    start = next((index for index in range(place, min(place + 300, len(data))) if data[index] in digits), None)
    if start is not None:
        end = start
        while end < len(data) and data[end] in digits:
            end += 1
        data[start:end] = dice.choice(NUMBERS)


def mutate_inside(content: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """As mutate, but a member of a zip is injured and the zip packed anew, so that its checksums are right."""
    if content[:2] != b"PK":
        return mutate(content, others, dice)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = dice.choice(list(members))
    members[name] = mutate(members[name], others, dice)
    return motion_files.zip_with(members)


ODD = (None, True, -1, 0, 1, 2**62, 1e300, float("nan"), "", "x", [], {}, [[]], [1, [2]], {"a": 1}, [0] * 7)


def odd_value(dice: random.Random, arrays: bool) -> object:
    if arrays and dice.random() < 0.6:
        shape = tuple(dice.choice((0, 1, 2, 3, 5, 21, 23, 24, 63, 72)) for _ in range(dice.randrange(5)))
        if np.prod(shape) < 10**6:
            kind = dice.choice(("f4", "f8", "i8", "i1", "b1"))
            values = np.random.default_rng(dice.randrange(99)).normal(size=shape) * dice.choice((1, 1e3, 1e30))
            return (values if kind in ("f4", "f8") else values.clip(-100, 100)).astype(kind)
    return dice.choice(ODD)


def mutate_tree(tree: object, dice: random.Random, arrays: bool) -> object:
    """A copy of a nested structure in which one value, somewhere, is another, missing or under another name."""
    if isinstance(tree, dict) and tree and dice.random() < 0.9:
        key = dice.choice(list(tree))
        copy = dict(tree)
        fate = dice.random()
        if fate < 0.1:
            del copy[key]
        elif fate < 0.15:
            copy[dice.choice(("poses", "smpl", "smpls", "pred_rotmat", "frames", 3))] = copy.pop(key)
        else:
            copy[key] = mutate_tree(tree[key], dice, arrays)
        return copy
    if isinstance(tree, (list, tuple)) and len(tree) and dice.random() < 0.9:
        copy_of_list = list(tree)
        place = dice.randrange(len(tree))
        if dice.random() < 0.1:
            del copy_of_list[place]
        else:
            copy_of_list[place] = mutate_tree(tree[place], dice, arrays)
        return copy_of_list
    return odd_value(dice, arrays)


def mutate_structure(content: bytes, trees: list[object], dice: random.Random) -> bytes:
    """JSON and GLB with a value replaced; for other files a pickle of an estimator's results with a value replaced."""
    if content[:1] == b"{":
        return json.dumps(mutate_tree(json.loads(content), dice, False)).encode()
    if content[:4] == b"glTF":
        size = struct.unpack_from("<I", content, 12)[0]
        text = json.dumps(mutate_tree(json.loads(content[20 : 20 + size]), dice, False)).encode()
        return content[:12] + struct.pack("<I", len(text)) + content[16:20] + text + content[20 + size :]
    tree = mutate_tree(dice.choice(trees), dice, True)
    return pickle.dumps(tree, 4) if dice.random() < 0.7 else motion_files.saved_npy(np.array(tree, object))


class _Call:
    def __init__(self, *call) -> None:
        self.call = call

    def __reduce__(self):
        return self.call


def hostile_files(marker: Path) -> dict[str, bytes]:
    """Pickles that want to run something, bombs, absurd headers."""
    touch = f"open({str(marker)!r}, 'w').close()"
    attacks = {
        "system": _Call(os.system, (f"touch {marker}",)), "eval": _Call(eval, (touch,)), "exec": _Call(exec, (touch,)),
        "getattr": _Call(getattr, ("x", "__class__")), "popen": _Call(os.popen, (f"touch {marker}",)),
        "import": _Call(__import__, ("antigravity",)), "open": _Call(open, (str(marker), "w")),
    }  # fmt: skip
    files: dict[str, bytes] = {}
    for name, attack in attacks.items():
        for protocol in (0, 2, 4):
            files[f"pickle {name} {protocol}"] = pickle.dumps({"poses": attack}, protocol)
        files[f"npy {name}"] = motion_files.saved_npy(np.array([attack], object))
        files[f"npz {name}"] = motion_files.saved_npz(smpl=np.array([attack], object))
        files[f"joblib {name}"] = pickle.dumps({"pose": np.zeros(3), "x": attack}, 3)
        files[f"torch {name}"] = motion_files.zip_with({"a/data.pkl": pickle.dumps(attack), "a/version": b"3"})
        files[f"zlib {name}"] = zlib.compress(pickle.dumps(attack))
        old = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
        files[f"old torch {name}"] = old + pickle.dumps(attack, 2)
        inner = b"ctorch.storage\n_load_from_bytes\n" + pickle.dumps(pickle.dumps(attack, 2), 2)[2:-1] + b"\x85R."
        files[f"torch in pickle {name}"] = b"\x80\x02" + inner
    files["setattr on ours"] = b"\x80\x02cnumpy\nndarray\n}X\x05\x00\x00\x00valueK\x01sb."
    files["setattr on a function"] = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nN}X\x08\x00\x00\x00__doc__K\x01s\x86b."
    )
    files["memo bomb"] = b"\x80\x02}r\xff\xff\xff\x7f."
    files["long bomb"] = b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01."
    files["bytes bomb"] = b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x."
    files["frame bomb"] = b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N."
    files["laughs"] = (
        b"\x80\x02]q\x00" + b"".join(b"](" + b"h%c" % n * 10 + b"eq%c" % (n + 1) for n in range(60)) + b"."
    )
    files["own tail"] = b"\x80\x02]q\x00h\x00a."
    files["deep pickle"] = b"\x80\x02" + b"(" * 100_000 + b"l" * 100_000 + b"."
    files["deep json"] = b"[" * 200_000
    files["long json number"] = b'{"global_orient": ' + b"9" * 1_000_000 + b"}"
    files["wide json"] = json.dumps({"smpl": [[0] * 100_000] * 10}).encode()
    files.update(_bombs())
    return files


def _npy_header(shape: tuple, descr: str = "<f8") -> bytes:
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def _zip_of(members: dict[str, tuple[bytes, bytes, int]]) -> bytes:
    """{name: (head, piece, how often)}: packed piece by piece, so that a bomb needs no memory to make."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, (head, piece, times) in members.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(head)
                for _ in range(times):
                    member.write(piece)
    return file.getvalue()


def _bombs() -> dict[str, bytes]:
    block = bytes(2**20)
    packer = zlib.compressobj(1)
    files = {
        "npz bomb": _zip_of({"poses.npy": (_npy_header((2**20, 72)), block, 540), "trans.npy": (b"", block, 1)}),
        "npz of many": _zip_of({f"a{n}.npy": (_npy_header((2**20, 4)), block, 32) for n in range(17)}),
        "long npz": _zip_of({"poses.npy": (_npy_header((2**18, 72)), block, 144), "trans.npy": (
            _npy_header((2**18, 3)), block, 6)}),
        "obj bomb": _zip_of({"a.obj": (b"", b"v 0 0 0\n" * 2**17, 520)}),
        "long obj": _zip_of({"a.obj": (b"", b"v 0 0 0\n" * 2**17, 30)}),
        "zlib bomb": b"".join([packer.compress(block) for _ in range(520)]) + packer.flush(),
    }  # fmt: skip
    files["absurd npy"] = _npy_header((10**12, 263)) + bytes(100)
    files["negative npy"] = _npy_header((-1, 263)) + bytes(2630)
    files["huge numbers npy"] = _npy_header((10**300, 263)) + bytes(100)
    files["objects npy"] = _npy_header((10**9,), "|O") + pickle.dumps([1])
    files["structured npy"] = _npy_header((1,), "|V100000000") + bytes(100)
    files["absurd bvh"] = (
        b"HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\nCHANNELS 1 Xposition\n}\nMOTION\nFrames: 99999999999\nFrame Time: 1\n1\n"
    )
    files["deep bvh"] = b"HIERARCHY\n" + b"ROOT a\n{\n" + b"JOINT b\n{\n" * 100_000
    files["wide bvh"] = (
        b"HIERARCHY\nROOT a\n{\n" + b"JOINT b\n{\n}\n" * 100_000 + b"}\nMOTION\nFrames: 1\nFrame Time: 1\n1\n"
    )
    files["long bvh"] = (
        b"HIERARCHY\nROOT a\n{\nCHANNELS 1 Xposition\n}\nMOTION\nFrames: 1\nFrame Time: 1\n" + b"1\n" * 3_000_000
    )
    files["usda of brackets"] = (
        b'#usda 1.0\ndef Skeleton "a" {\n' + b"token[] joints = [" * 50_000 + b'def SkelAnimation "b"'
    )
    files["usda of times"] = (
        b'#usda 1.0\ndef Skeleton "a" {} def SkelAnimation "b" { rotations.timeSamples = {' + b"0: [" * 200_000
    )
    files["pc2 of nothing"] = b"POINTCACHE2\0" + struct.pack("<iiffi", 1, 2**31 - 1, 0, 1, 2**31 - 1) + bytes(100)
    glb = {"asset": {}, "nodes": [{"children": [0]}], "animations": [{"channels": [], "samplers": []}]}
    files["glb in a circle"] = json.dumps(glb).encode()
    files["glb of nothing"] = json.dumps(
        {
            "asset": {},
            "nodes": [],
            "animations": [
                {
                    "channels": [{"sampler": 0, "target": {"node": 0, "path": "rotation"}}],
                    "samplers": [{"input": 0, "output": 0}],
                }
            ],
            "accessors": [{"bufferView": 0, "componentType": 5126, "count": 2**39, "type": "VEC4"}],
            "bufferViews": [{"buffer": 0, "byteLength": 4}],
            "buffers": [{"byteLength": 4, "uri": "data:,AAAA"}],
        }
    ).encode()
    tensor = torch.zeros(1).expand(2**20, 2**20)
    files["stride bomb"] = motion_files.saved_torch({"pred_rotmat": tensor})
    joblib = motion_files.saved_joblib({"pose": np.zeros((3, 72), np.float32)})
    files["joblib of nothing"] = joblib.replace(b"K\x03KH\x86", b"J\xff\xff\xff\x7fKH\x86")
    return files


def run(count: int, seed: int, watch: Watch, bombs: bool = True) -> Outcome:
    body, outcome, dice = toy_body(segments=4), Outcome(), random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        marker = folder / "hacked"
        files = motion_files.corpus(body, folder)
        for label, (kind, content) in files.items():
            path = folder / "motion"
            path.write_bytes(content)
            check(path, label, body, watch, outcome)
            if outcome.kinds[f"read as {kind}"] < 1:
                outcome.problems.append(f"{label}: the whole file is not read as {kind}")
        hostile = hostile_files(marker) if bombs else {}
        for label, content in hostile.items():
            path = folder / "motion"
            path.write_bytes(content)
            check(path, label, body, watch, outcome)
            if marker.exists():
                outcome.problems.append(f"{label}: CODE WAS RUN")
                marker.unlink()
        trees = motion_files.result_trees(body)
        contents, names = [content for _, content in files.values()], list(files)
        for number in range(count):
            label = names[number % len(names)]
            path = folder / f"motion.{dice.choice(SUFFIXES)}"
            way = dice.choice((mutate, mutate_inside, mutate_structure, mutate_structure))
            data = way(files[label][1], trees if way is mutate_structure else contents, dice)
            path.write_bytes(data)
            check(path, f"{label}, injury {number} of seed {seed}", body, watch, outcome)
            path.unlink()
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    outcome = run(arguments.count, arguments.seed, Watch())
    for kind, number in outcome.kinds.most_common():
        print(f"{number:6d} {kind}")
    print(f"slowest file {outcome.slowest[0]:.2f} s ({outcome.slowest[1]}), memory at most {outcome.memory:.2f} GiB, "
          f"{time.perf_counter() - started:.0f} s in all, seed {arguments.seed}")  # fmt: skip
    print("\n".join(outcome.problems[:40]) or "no problem")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())

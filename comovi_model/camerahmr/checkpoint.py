"""The published Lightning files, read without running anything that they contain.

`torch.load(weights_only=True)` reads them when they hold tensors and plain containers. Files that also carry the
settings of their training run (a yacs object) it refuses; for those, a reader of our own takes the tensors and turns
every other name of the pickle into a stand-in that does nothing.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..body.motion import load_arrays
from ..body.pickled_arrays import Inert
from ..errors import ComoviError
from ..files import require_file
from ..wan.weights import open_weights, write_weights

BODY_FILE, FIELD_OF_VIEW_FILE = "camerahmr_checkpoint_cleaned.ckpt", "cam_model_cleaned.ckpt"
MEAN_PARAMETERS = {"pose": "init_body_pose", "shape": "init_betas", "cam": "init_cam"}
STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
LARGEST_PICKLE = 64 * 2**20  # bytes of the description of the tensors, without their numbers


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .ckpt, .pt or .safetensors file by name, below `state_dict` where there is one."""
    path = require_file(path, "CameraHMR checkpoint")
    if path.suffix == ".safetensors":
        files = open_weights(path)
        return {name: files[name] for name in files}
    try:
        content: Any = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError:
        content = _read_tensors_only(path)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise ComoviError(f"{path} is not a PyTorch checkpoint that can be read; download it again.") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise ComoviError(f"{path} holds no tensors under names, so it is no checkpoint of a network.")
    return tensors


def check_kind(tensors: Mapping[str, Tensor], path: str | Path, wanted: str) -> None:
    """Refuse the files that are easily mistaken for the wanted one ("body" or "field of view"), each by its name."""
    if any(name.startswith("smplx_head.") for name in tensors):
        problem = "is the SMPL-X variant (bedlam), whose body has other joints"
    elif any(name.startswith("head.dec_kp") for name in tensors):
        problem = "is the dense-keypoint network (densekp), which only made training labels"
    elif wanted == "body" and "smpl_head.decpose.weight" not in tensors:
        problem = "is not CameraHMR's body network: it has no smpl_head"
    elif wanted == "field of view" and "fc3.weight" not in tensors:
        problem = "is not the field-of-view network: it has no fc3"
    else:
        return
    name = BODY_FILE if wanted == "body" else FIELD_OF_VIEW_FILE
    raise ComoviError(f"{path} {problem}; use {name}.")


def fill(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Give a network its weights (float32, evaluation mode); every one must be there.

    Others are ignored: the published files hold layers that nobody reads (deckp, fc2, backbone.final_layer). How many
    batches a norm has seen in training may be missing: nothing here reads it.
    """
    state = network.state_dict()
    missing = [name for name in state if name not in tensors and not name.endswith("num_batches_tracked")]
    shapes = [name for name in state if name in tensors and tensors[name].shape != state[name].shape]
    if missing or shapes:
        few = [f"{name} is missing" for name in missing[:2]]
        few += [f"{name} is {tuple(tensors[name].shape)} instead of {tuple(state[name].shape)}" for name in shapes[:2]]
        raise ComoviError(
            f"{source} does not fit the network: {len(missing)} tensors missing and {len(shapes)} of another size "
            f"({'; '.join(few)})."
        )
    uncounted = torch.zeros((), dtype=torch.int64)
    given = {name: tensors.get(name, uncounted) for name in state}
    given = {name: value.float() if value.is_floating_point() else value for name, value in given.items()}
    network.load_state_dict(given, assign=True)
    network.eval().requires_grad_(False)


def mean_parameters(path: str | Path) -> dict[str, Tensor]:
    """smpl_mean_params.npz, for checkpoints that lack the mean body: under the names of the head's buffers."""
    arrays = load_arrays(path, "mean parameters", set(MEAN_PARAMETERS))
    lacking = [name for name in MEAN_PARAMETERS if name not in arrays]
    if lacking:
        raise ComoviError(f"{path} has no array {lacking[0]!r}; expected SPIN's smpl_mean_params.npz.")
    return {
        f"smpl_head.{ours}": torch.from_numpy(arrays[name].astype(np.float32)).reshape(1, -1)
        for name, ours in MEAN_PARAMETERS.items()
    }


def convert(path: str | Path, out: str | Path, dtype: torch.dtype = torch.float32) -> int:
    """Write a checkpoint as safetensors; statistics of batch norms and the head stay in float32. Returns the count."""
    tensors = read_checkpoint(path)
    kept = {}
    for name, tensor in tensors.items():
        wide = name.startswith("smpl_head.") or "running_" in name or not tensor.is_floating_point()
        kept[name] = tensor.clone() if wide else tensor.to(dtype)
    write_weights(out, kept, {"source": Path(path).name})
    return len(kept)


class _Storage:
    """What a storage type in the pickle says: the kind of its numbers."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype


class _TensorReader(pickle._Unpickler):  # the Python one: bounded memory
    """Builds tensors; every other name becomes a stand-in that swallows what is given to it."""

    def __init__(self, archive: zipfile.ZipFile, member: str):
        super().__init__(archive.open(member))
        self.archive, self.folder = archive, member.removesuffix("data.pkl")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _rebuild_tensor if name == "_rebuild_tensor_v2" else _rebuild_parameter
        if module == "torch" and name in STORAGES:
            return _Storage(STORAGES[name])
        return Inert

    def persistent_load(self, identity: Any) -> Any:
        kind, storage, key, _location, count = identity
        if kind != "storage" or not isinstance(storage, _Storage) or not str(key).isdigit():
            raise ValueError("an unknown kind of reference")
        info = self.archive.getinfo(f"{self.folder}data/{key}")
        if info.file_size != count * storage.dtype.itemsize:
            raise ValueError("a tensor of another size than announced")
        return torch.frombuffer(bytearray(self.archive.read(info)), dtype=storage.dtype)


def _rebuild_tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    reach = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if all(size) else 0
    if not isinstance(storage, Tensor) or offset < 0 or min(stride, default=0) < 0 or reach >= max(len(storage), 1):
        raise ValueError("a tensor outside its storage")
    return torch.as_strided(storage, size, stride, offset)


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def _read_tensors_only(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
            if len(members) != 1 or archive.getinfo(members[0]).file_size > LARGEST_PICKLE:
                raise ValueError("no description of tensors in it")
            return _TensorReader(archive, members[0]).load()
    except Exception as error:  # a damaged archive can raise anything, and all of it means one thing
        raise ComoviError(
            f"{path} is a damaged or foreign checkpoint ({type(error).__name__}: {str(error)[:120]}); nothing in it "
            "was run. Download it again."
        ) from error

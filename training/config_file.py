"""Settings in and out of TOML: presets, `include`, `--set a.b=v`, and every unknown name refused."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..comovi_model.errors import ComoviError
from ..comovi_model.files import atomic_path, require_file
from .config import PATHS, RunConfig, TrainConfig, as_dict

PRESETS = Path(__file__).resolve().parent / "configs"
RESOLVED = "resolved.toml"


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_config(name_or_path: str | Path, sets: Sequence[str] = ()) -> TrainConfig:
    """The settings of a preset or a TOML file, with `a.b=value` changes on top; its paths are made absolute."""
    return build_config(merge(read_tables(find_config(name_or_path)), parse_sets(sets)))


def load_resolved(run: Path) -> TrainConfig:
    """The settings that a run was started with."""
    return load_config(require_file(Path(run) / RESOLVED, "settings of a training run"))


def merge_sets(config: TrainConfig, sets: Sequence[str]) -> dict[str, Any]:
    """The tables of a configuration with `a.b=value` changes on top."""
    return merge(as_dict(config), parse_sets(sets))


def build_config(tables: Mapping[str, Any]) -> TrainConfig:
    """Settings from nested dicts."""
    config = build_record(TrainConfig, _absolute(merge({"run": {"out": RunConfig.out}}, tables)), "")
    assert isinstance(config, TrainConfig)
    return config


def find_config(name_or_path: str | Path) -> Path:
    """The file of a preset, or the file itself."""
    text = str(name_or_path)
    preset = PRESETS / f"{text}.toml"
    if "/" not in text and preset.exists():
        return preset
    if not text.endswith(".toml") and not Path(text).exists():
        raise ComoviError(f"no settings are called {text!r}; give a .toml file or one of {', '.join(preset_names())}.")
    return require_file(text, "settings")


def read_tables(path: Path, chain: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tables of a file, those of the files that it includes below them."""
    path = path.resolve()
    if path in chain:
        raise ComoviError(f"{path} includes itself (by way of {', '.join(p.name for p in chain)}); break the circle.")
    tables = parse_toml(path)
    below: dict[str, Any] = {}
    included = tables.pop("include", [])
    for name in [included] if isinstance(included, str) else included:
        beside = path.parent / name
        below = merge(below, read_tables(beside if beside.exists() else find_config(name), (*chain, path)))
    return merge(below, tables)


def parse_toml(path: Path) -> dict[str, Any]:
    """One TOML file as nested dicts."""
    try:
        import tomllib as toml  # Python 3.11
    except ImportError:
        try:
            import tomli as toml  # type: ignore[no-redef, import-not-found, unused-ignore]
        except ImportError:
            raise ComoviError("reading TOML needs Python 3.11, or `pip install tomli`.") from None
    try:
        return toml.loads(require_file(path, "settings").read_text(encoding="utf-8-sig"))
    except (toml.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ComoviError(f"{path} is not valid TOML: {error}.") from None


def parse_sets(sets: Sequence[str]) -> dict[str, Any]:
    """["a.b=1", "a.c=x"] -> {"a": {"b": 1, "c": "x"}}; a value that is not TOML is taken as text."""
    tables: dict[str, Any] = {}
    for item in sets:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise ComoviError(f"--set {item!r} is not understood; write section.name=value, for example optim.lr=1e-5.")
        value = _parse_value(text.strip())
        for part in reversed(name.strip().split(".")):
            value = {part: value}
        tables = merge(tables, value)
    return tables


def _parse_value(text: str) -> Any:
    """true, false, numbers, lists and quoted text as in TOML; anything else is the text itself."""
    try:
        return json.loads(text.replace("'", '"') if text.startswith("[") else text)
    except ValueError:
        return text


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(below)
    for name, value in above.items():
        both = isinstance(value, Mapping) and isinstance(out.get(name), Mapping)
        out[name] = merge(out[name], value) if both else value
    return out


def _absolute(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The same tables, with paths that are relative to the current folder made absolute."""
    out = merge({}, tables)
    for name in PATHS:
        *parents, last = name.split(".")
        table: Any = out
        for parent in parents:
            table = table.get(parent, {}) if isinstance(table, Mapping) else {}
            table = dict(table) if isinstance(table, Mapping) else {}
        if last in table:
            value = table[last]
            change = [_absolute_path(v) for v in value] if isinstance(value, (list, tuple)) else _absolute_path(value)
            nested: Any = {last: change}
            for parent in reversed(parents):
                nested = {parent: nested}
            out = merge(out, nested)
    return out


def _absolute_path(value: Any) -> Any:
    return str(Path(value).expanduser().absolute()) if isinstance(value, str) and value else value


def build_record(kind: type, table: Any, where: str) -> Any:
    """A frozen record from a table, every name and type checked; `where` is the table's own name."""
    if not isinstance(table, Mapping):
        raise ComoviError(f"{where} is {table!r}; it must be a table with {_names(kind)}.")
    known = [item.name for item in fields(kind)]
    hints = get_type_hints(kind)
    values = {}
    for name, value in table.items():
        full = f"{where}.{name}" if where else name
        if name not in known:
            raise ComoviError(f"there is no setting {full}{_nearest(kind, name, where)}")
        values[name] = _convert(hints[name], value, full)
    return kind(**values)


def _names(kind: type) -> str:
    return ", ".join(item.name for item in fields(kind))


def _nearest(kind: type, name: str, where: str) -> str:
    """ "; did you mean ...", by the spelling here, else by the same name in another section."""
    near = difflib.get_close_matches(name, [item.name for item in fields(kind)], 1, 0.6)
    if near:
        return f"; did you mean {where}.{near[0]}?" if where else f"; did you mean {near[0]}?"
    elsewhere = [full for full in _all_names(TrainConfig, "") if full.split(".")[-1] == name]
    if elsewhere:
        return f"; did you mean {elsewhere[0]}?"
    return f"; {where or 'a settings file'} has {_names(kind)}."


def _all_names(kind: type, where: str) -> list[str]:
    names = []
    for name, hint in get_type_hints(kind).items():
        full = f"{where}.{name}" if where else name
        names += _all_names(hint, full) if is_dataclass(hint) and isinstance(hint, type) else [full]
    return names


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type that the record asks for."""
    if is_dataclass(hint) and isinstance(hint, type):
        return build_record(hint, value, where)
    origin = get_origin(hint) or hint
    if origin in (Union, UnionType):
        if value is None:
            return None
        return _convert(next(h for h in get_args(hint) if h is not type(None)), value, where)
    if origin is tuple:
        inner = get_args(hint)
        items = list(value) if isinstance(value, (list, tuple)) else [value] if value != "" else []
        if inner[-1] is Ellipsis:
            return tuple(_convert(inner[0], item, where) for item in items)
        if len(items) != len(inner):
            raise ComoviError(f"{where} is {value!r}; it must be a list of {len(inner)}.")
        return tuple(_convert(kind, item, where) for kind, item in zip(inner, items, strict=True))
    if origin is Mapping or (isinstance(origin, type) and issubclass(origin, Mapping)):
        if not isinstance(value, Mapping):
            raise ComoviError(f"{where} is {value!r}; it must be a table.")
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, Path):
        return str(value)
    if hint in (int, float, bool, str) and type(value) is hint:
        return value
    expected = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, str(hint))
    raise ComoviError(f"{where} is {value!r}; it must be {expected}.")


def dump_config(config: TrainConfig) -> str:
    """The settings as TOML."""
    return "\n".join(_dump_table(as_dict(config), "")).strip() + "\n"


def _dump_table(table: Mapping[str, Any], where: str) -> list[str]:
    lines = [f"{name} = {_dump_value(value)}" for name, value in table.items() if not isinstance(value, Mapping)]
    for name, value in table.items():
        if isinstance(value, Mapping):
            full = f"{where}.{name}" if where else name
            lines += ["", f"[{full}]", *_dump_table(value, full)]
    return lines


def _dump_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_dump_value(item) for item in value) + "]"
    if isinstance(value, float):
        return repr(value) if "." in repr(value) or "e" in repr(value) else f"{value!r}.0"
    return json.dumps(value, ensure_ascii=False)


def write_resolved(config: TrainConfig, run: Path) -> None:
    with atomic_path(run / RESOLVED) as path:
        path.write_text(dump_config(config), encoding="utf-8")

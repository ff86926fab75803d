"""What was said about each clip: sentences, and their words with the parts of speech that published evaluators read.

Captions come from a list of clips (.jsonl with "id" and "text"), or from a folder of ID.txt, one caption per line:
plain, or as HumanML3D writes them: sentence#word/TAG word/TAG ...#from#to, in seconds. As in its protocol, a sentence
about a part of the clip (from or to is not 0) is not one about the clip, and is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ...comovi_model.errors import ComoviError
from ...comovi_model.files import require_file


@dataclass(frozen=True)
class Caption:
    """`words`: (word in its base form, part of speech) pairs, or None where nobody tagged them."""

    text: str
    words: tuple[tuple[str, str], ...] | None = None


def read_captions(path: Path) -> dict[str, list[Caption]]:
    """Captions by clip id."""
    if path.is_dir():
        found = {file.stem: _captions_of_file(file) for file in sorted(path.glob("*.txt"))}
    else:
        found = _captions_of_list(require_file(path, "captions"))
    found = {name: captions for name, captions in found.items() if captions}
    if not found:
        raise ComoviError(f"{path} holds no captions; give a list of clips (.jsonl), or a folder of ID.txt files.")
    return found


def _captions_of_list(path: Path) -> dict[str, list[Caption]]:
    found: dict[str, list[Caption]] = {}
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text = row["text"]
            found[str(row["id"])] = [Caption(str(one)) for one in ([text] if isinstance(text, str) else text)]
        except (ValueError, KeyError, TypeError):
            raise ComoviError(f'{path}, line {number}: expected {{"id": ..., "text": ...}}.') from None
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ComoviError(f"{path} is not text in UTF-8.") from None


def _seconds(text: str) -> float:
    """HumanML3D's file says nan, as well as 0.0, where a sentence is about the whole clip."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _captions_of_file(path: Path) -> list[Caption]:
    captions = []
    for line in _text(path).split("\n"):
        parts = line.strip().split("#")
        if not parts[0] or any(_seconds(part) > 0 for part in parts[2:4]):  # said of a part of the clip only
            continue
        words = None
        if len(parts) > 1 and "/" in parts[1]:
            pairs = (token.rpartition("/") for token in parts[1].split())
            words = tuple((word, tag) for word, _, tag in pairs)
        captions.append(Caption(parts[0], words))
    return captions


def tagged(caption: Caption) -> tuple[tuple[str, str], ...]:
    """The caption's words with tags; spaCy tags those that came without."""
    if caption.words is not None:
        return caption.words
    words = []
    for token in _spacy()(caption.text.replace("-", "")):
        if not token.text.isalpha():
            continue
        base = token.lemma_ if token.pos_ in ("NOUN", "VERB") and token.text != "left" else token.text
        words.append((base.lower(), token.pos_))
    return tuple(words)


@cache
def _spacy() -> Any:
    try:
        import spacy

        return spacy.load("en_core_web_sm")
    except (ImportError, OSError) as error:
        raise ComoviError(
            f"these captions carry no parts of speech, and spaCy cannot tag them ({error}): pip install spacy, then "
            "python -m spacy download en_core_web_sm; or give captions in HumanML3D's form."
        ) from None


def pick(captions: Mapping[str, Sequence[Caption]], names: Sequence[str], rng: Any) -> list[Caption]:
    """One caption per clip."""
    return [captions[name][int(rng.integers(len(captions[name])))] for name in names]

"""Embeddings of motions and sentences in one space: the published evaluator when the user has it, else random ones.

N motions of F frames with 263 features (HumanML3D), M numbers per embedding.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ...comovi_model.body.pickled_arrays import ArrayUnpickler, Refused
from ...comovi_model.errors import ComoviError
from ...comovi_model.motion_io.humanml3d import WIDTH
from .captions import Caption, tagged
from .matching_network import LONGEST, MatchingNetwork

MOST_WORDS = 20
TAGS = ("VERB", "NOUN", "DET", "ADP", "NUM", "AUX", "PRON", "ADJ", "ADV", "Loc", "Body", "Obj", "Act", "Desc", "OTHER")
# Words that the evaluator's authors gave tags of their own (word_vectorizer.py of HumanML3D).
OWN_TAGS = {
    "Loc": "left right clockwise counterclockwise anticlockwise forward back backward up down straight curve",
    "Body": "arm chin foot feet face hand mouth leg waist eye knee shoulder thigh",
    "Obj": "stair dumbbell chair window floor car ball handrail baseball basketball",
    "Act": "walk run swing pick bring kick put squat throw hop dance jump turn stumble stop sit lift lower raise wash "
    "stand kneel stroll rub bend balance flap jog shuffle lean rotate spin spread climb",
    "Desc": "slowly carefully fast careful slow quickly happy angry sad happily angrily sadly",
}
TAG_OF_WORD = {word: tag for tag, words in OWN_TAGS.items() for word in words.split()}
FILES = {
    "finest.tar": "the matching network (text_mot_match/model/finest.tar)",
    "mean.npy": "mean of the features it was trained on",
    "std.npy": "their deviation",
    "our_vab_data.npy": "GloVe vectors",
    "our_vab_words.pkl": "their words",
    "our_vab_idx.pkl": "the row of each word",
}


class Embedder(Protocol):
    """`name` goes into the results; `comparable`: whether they may stand beside published ones."""

    name: str
    comparable: bool
    target: np.ndarray | None  # (22, 3) skeleton that motions are rescaled to first

    def texts(self, captions: Sequence[Caption]) -> np.ndarray: ...

    def motions(self, features: Sequence[np.ndarray]) -> np.ndarray: ...


class RandomEmbedder:
    """A fixed random projection of simple statistics. It runs everywhere and means nothing beside the paper's tables;
    only the Fréchet distance tells sets of motions apart."""

    comparable = False
    target: np.ndarray | None = None

    def __init__(self, seed: int = 0, width: int = 64):
        rng = np.random.default_rng(seed)
        self.name = f"random:{seed}"
        self.words = rng.standard_normal((4096, width)) / np.sqrt(8)
        self.project = rng.standard_normal((3 * WIDTH, width)) / np.sqrt(3 * WIDTH)

    def texts(self, captions: Sequence[Caption]) -> np.ndarray:
        rows = [[_bucket(word, len(self.words)) for word in one.text.lower().split()] for one in captions]
        return np.stack([self.words[row].sum(0) for row in rows])

    def motions(self, features: Sequence[np.ndarray]) -> np.ndarray:
        rows = [np.concatenate([x.mean(0), x.std(0), x[-1] - x[0]]) for x in features]
        return np.stack(rows) @ self.project


def _bucket(word: str, count: int) -> int:
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little") % count


class PublishedEmbedder:
    """HumanML3D's evaluator, from a folder (or folders below it) with the files that FILES names."""

    comparable = True

    def __init__(self, folder: Path):
        paths = {name: find(folder, name) for name in FILES}
        missing = [f"{name}: {FILES[name]}" for name, path in paths.items() if path is None]
        if missing:
            raise ComoviError(
                f"{folder} lacks {'; '.join(missing)}. The evaluator and GloVe come from the README of HumanML3D or "
                "MoMask; mean and std from Comp_v6_KLD005/meta beside it."
            )
        found = {name: path for name, path in paths.items() if path is not None}
        self.network = MatchingNetwork.read(found["finest.tar"])
        self.mean, self.std = (_array(found[name], (WIDTH,)) for name in ("mean.npy", "std.npy"))
        self.vectors = _array(found["our_vab_data.npy"])
        rows = _plain_pickle(found["our_vab_idx.pkl"])
        if not isinstance(rows, dict) or "unk" not in rows:
            raise ComoviError(f"{found['our_vab_idx.pkl']} is no table of words; expected word -> row with 'unk'.")
        self.rows = {str(word): int(row) for word, row in rows.items()}
        self.target: np.ndarray | None = None
        skeleton = find(folder, "target_skeleton.npy")
        if skeleton is not None:
            self.target = _array(skeleton, (22, 3))
        digest = hashlib.sha256(found["finest.tar"].read_bytes()).hexdigest()[:16]
        self.name = f"humanml3d:{digest}" + ("" if skeleton else ", skeletons not rescaled")
        self.comparable = skeleton is not None

    def texts(self, captions: Sequence[Caption]) -> np.ndarray:
        vectors = np.zeros((len(captions), MOST_WORDS + 2, self.vectors.shape[1]), np.float32)
        tags = np.zeros((len(captions), MOST_WORDS + 2, len(TAGS)), np.float32)
        lengths = []
        for i, caption in enumerate(captions):
            words = (("sos", "OTHER"), *tagged(caption)[:MOST_WORDS], ("eos", "OTHER"))
            lengths.append(len(words))
            words += (("unk", "OTHER"),) * (MOST_WORDS + 2 - len(words))
            for j, (word, tag) in enumerate(words):
                known = word in self.rows
                vectors[i, j] = self.vectors[self.rows[word if known else "unk"]]
                tags[i, j, tag_number(word, tag) if known else TAGS.index("OTHER")] = 1
        return self.network.embed_texts(torch.from_numpy(vectors), torch.from_numpy(tags), lengths)

    def motions(self, features: Sequence[np.ndarray]) -> np.ndarray:
        scaled = [torch.from_numpy(((x[:LONGEST] - self.mean) / self.std).astype(np.float32)) for x in features]
        return self.network.embed_motions(scaled)


def tag_number(word: str, tag: str) -> int:
    """Place of a known word's tag among TAGS."""
    tag = TAG_OF_WORD.get(word, tag.removesuffix("_VIP"))
    return TAGS.index(tag if tag in TAGS else "OTHER")


def find(folder: Path, name: str) -> Path | None:
    """The file of this name in a folder or below it; the shortest path wins."""
    found = sorted(Path(folder).rglob(name), key=lambda path: (len(path.parts), str(path)))
    return found[0] if found else None


def _array(path: Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ComoviError(f"{path} is no array of numbers ({error}).") from None
    if shape is not None and array.shape != shape:
        raise ComoviError(f"{path} has shape {array.shape}; expected {shape}.")
    return np.asarray(array, np.float64)


def _plain_pickle(path: Path) -> Any:
    """A pickle of plain containers, read without running anything."""
    try:
        with path.open("rb") as file:
            return ArrayUnpickler(file).load()
    except (Refused, pickle.UnpicklingError, ValueError, EOFError, IndexError, KeyError, TypeError) as error:
        raise ComoviError(f"{path} is refused: it is not a plain table of words ({error}).") from None


def load_embedder(folder: str | Path | None, seed: int = 0) -> Embedder:
    """The published evaluator of a folder; without one the random embedder."""
    return PublishedEmbedder(Path(folder)) if folder else RandomEmbedder(seed)

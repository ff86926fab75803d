"""The sentences of the synthetic people: a small grammar with paraphrases, and the vocabulary it spans."""

from __future__ import annotations

import re

import numpy as np

from .actions import ACTION_NAMES, ActionRequest
from .scene import CLOTHES

SUBJECTS = ("a person", "a man", "a woman", "someone", "the person")
CLOTHING = ("in a {shirt} shirt and {trousers} trousers", "wearing a {shirt} shirt and {trousers} trousers",
            "with a {shirt} shirt and {trousers} trousers", "in {shirt} shirt and {trousers} pants")  # fmt: skip
PHRASES: dict[str, tuple[str, ...]] = {
    "walk": ("walks forward", "is walking forward", "takes a walk towards the camera", "walks"),
    "turn": ("turns to the {side}", "turns {side}", "is turning around to the {side}"),
    "wave": ("waves with the {side} hand", "is waving the {side} hand", "raises the {side} hand and waves hello"),
    "jump": ("jumps up", "is jumping", "jumps into the air", "jumps"),
    "squat": ("squats down and stands up", "does a squat", "is squatting"),
    "sit": ("sits down", "is sitting down on a chair", "takes a seat"),
    "kick": ("kicks with the {side} leg", "does a {side} kick", "is kicking with the {side} foot"),
    "punch": ("punches with the {side} fist", "throws two {side} punches", "is boxing with the {side} hand"),
    "bow": ("bows", "bends forward in a bow", "is taking a bow"),
    "raise_arms": ("raises both arms", "lifts both arms up", "is holding both hands up"),
    "jumping_jack": ("does jumping jacks", "is doing jumping jacks", "performs a star jump"),
    "clap": ("claps", "claps both hands", "is clapping and applauding"),
    "step_aside": ("steps to the {side}", "takes a step to the {side}", "is stepping aside to the {side}"),
    "point": ("points to the {side}", "is pointing to the {side}", "points with the {side} arm"),
    "stretch": ("stretches with the {side} arm up", "stretches the {side} arm over the head",
                "is stretching with the {side} hand high"),
    "march": ("marches on the spot", "is marching in place", "lifts the knees high"),
}  # fmt: skip
ADVERBS = {"slowly": ("slowly", "very slowly"), "": ("", ""), "quickly": ("quickly", "fast")}
MAX_TOKENS = 24
PAD, UNKNOWN = 0, 1


def write_sentence(request: ActionRequest, shirt: str, trousers: str, rng: np.random.Generator) -> str:
    """One sentence for a request and two colours of clothes; clothes are left out of a fifth of the sentences."""

    def pick(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    clothes = pick(CLOTHING).format(shirt=shirt, trousers=trousers) if rng.random() < 0.8 else ""
    phrase = pick(PHRASES[ACTION_NAMES[request.action]]).format(side=request.side)
    return " ".join(w for w in (pick(SUBJECTS), clothes, phrase, pick(ADVERBS[request.speed])) if w)


def split_words(sentence: str) -> list[str]:
    """Lower-case words of a sentence; punctuation separates."""
    return re.findall(r"[a-z]+", sentence.lower())


def build_vocabulary() -> tuple[str, ...]:
    """Every word of the grammar, sorted, after the two special entries (padding 0, unknown word 1)."""
    words: set[str] = set()
    sides = ("left", "right")
    for text in (
        *SUBJECTS,
        *CLOTHING,
        *(p for ps in PHRASES.values() for p in ps),
        *(a for ps in ADVERBS.values() for a in ps),
    ):
        for side in sides:
            words.update(split_words(text.format(shirt="", trousers="", side=side)))
    words.update(CLOTHES)
    return ("<pad>", "<unknown>", *sorted(words))


VOCABULARY = build_vocabulary()
WORD_ID = {word: index for index, word in enumerate(VOCABULARY)}


def encode_words(sentence: str) -> tuple[np.ndarray, list[str]]:
    """Token ids (24,) int64, zero-padded, and the words that the nano model does not know."""
    words = split_words(sentence)
    ids = np.zeros(MAX_TOKENS, np.int64)
    for index, word in enumerate(words[:MAX_TOKENS]):
        ids[index] = WORD_ID.get(word, UNKNOWN)
    return ids, [w for w in words if w not in WORD_ID]


def mentioned_colours(sentence: str) -> tuple[str | None, str | None]:
    """The shirt and trouser colours a sentence names, None where it names none."""
    match = re.search(r"(\w+) shirt(?: and (\w+) (?:trousers|pants))?", sentence.lower())
    names = match.groups() if match else (None, None)
    return tuple(n if n in CLOTHES else None for n in names)  # type: ignore[return-value]

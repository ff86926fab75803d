"""Reading a sentence for the nano model, and telling a person what it did not understand."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ComoviError
from .actions import ACTION_NAMES
from .scene import CLOTHES
from .sentences import ADVERBS, MAX_TOKENS, PHRASES, SUBJECTS, encode_words, split_words

SMALL_WORDS = ("a", "and", "both", "down", "forward", "in", "is", "of", "on", "over", "the", "to", "two", "up", "with",
               "left", "right")  # fmt: skip
DEFAULT_PROMPT = "a woman in a red shirt and blue trousers raises both arms"


@dataclass(frozen=True)
class Prompt:
    """A sentence the model can follow at least in part."""

    text: str
    unknown: tuple[str, ...]  # words that are not in the vocabulary, each once, in order
    notices: tuple[str, ...]


def read_prompt(text: str | None) -> Prompt:
    """The sentence without surplus spaces; an error when nothing of it can be understood."""
    text = " ".join((DEFAULT_PROMPT if text is None else text).split())
    words = split_words(text)
    if not words:
        raise ComoviError(f'the prompt has no words; say what the person does, as in "{DEFAULT_PROMPT}".')
    unknown = tuple(dict.fromkeys(encode_words(text)[1]))
    if not set(words) - set(unknown):
        raise ComoviError(
            f'the nano model knows no word of the prompt "{_shortened(text)}"; try for example "{DEFAULT_PROMPT}" '
            f"or one of these actions: {', '.join(example_actions())}."
        )
    notices = []
    if unknown:
        notices.append(f"these words are not in the nano model's vocabulary: {', '.join(unknown)}.")
    if not names_action(words):
        notices.append("the sentence names no action that the nano model knows, so expect any of them.")
    if len(words) > MAX_TOKENS:
        notices.append(f"the nano model reads the first {MAX_TOKENS} words of a sentence; yours has {len(words)}.")
    return Prompt(text, unknown, tuple(notices))


def names_action(words: list[str]) -> bool:
    """True when a word of the sentence belongs to the phrases of some action and to no other part of a sentence."""
    return bool(_action_words() & set(words[:MAX_TOKENS]))


def example_actions() -> list[str]:
    """One phrase per action, in the left-handed form where it has two."""
    return [PHRASES[name][0].format(side="left") for name in ACTION_NAMES]


def what_it_knows() -> list[str]:
    """Lines that say which sentences work."""
    speeds = [options[0] for options in ADVERBS.values() if options[0]]
    return [
        f"actions: {', '.join(example_actions())}",
        "sides: left or right, as the person has them",
        f"speeds: {', '.join(speeds)}",
        f"clothes: a COLOUR shirt and COLOUR trousers, with COLOUR one of {', '.join(CLOTHES)}",
        f"people: {', '.join(SUBJECTS)}",
    ]


def _action_words() -> set[str]:
    phrases = (p.format(side="") for options in PHRASES.values() for p in options)
    return {word for phrase in phrases for word in split_words(phrase)} - set(SMALL_WORDS)


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"

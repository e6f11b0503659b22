"""Captions as numbers: the tokeniser, the vocabulary, and the words that name colours."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

PAD, UNK, EOS = 0, 1, 2     # the released code has <exc> at 0 and <pad> at 1, and masks 0 as if it were the padding
SPECIAL = ("<pad>", "<unk>", "<eos>")

# A token is a run of letters and digits, also with hyphens inside ("medium-sized"); an apostrophe with what follows
# ("bird's" is "bird" and "'s", as NLTK has it); or one punctuation mark.
TOKEN = re.compile(r"[^\W_]+(?:-[^\W_]+)*|'[^\W_]+|[^\w\s]|_")

# the paper's six groups of CUB's fifteen primary colours (released `CUBDataset.py`, which calls the first "blue2red")
COLOUR_GROUPS = {"blue to red": ("blue", "iridescent", "purple", "rufous", "green", "pink", "red"),
                 "brown": ("brown",), "grey": ("grey",), "yellow": ("yellow", "olive", "orange", "buff"),
                 "black": ("black",), "white": ("white",)}
_SPELLINGS = {"gray": "grey", "greyish": "grey", "grayish": "grey", "bluish": "blue", "blueish": "blue",
              "purplish": "purple", "greenish": "green", "pinkish": "pink", "reddish": "red", "brownish": "brown",
              "yellowish": "yellow", "orangish": "orange", "blackish": "black", "whitish": "white"}
# word -> number of its group, 0 to 5
COLOUR_WORDS = {word: group for group, names in enumerate(COLOUR_GROUPS.values()) for word in names}
COLOUR_WORDS |= {word: COLOUR_WORDS[name] for word, name in _SPELLINGS.items()}


def tokenise(text: str) -> list[str]:
    """Lower-case words and punctuation marks, in order."""
    return TOKEN.findall(text.lower())


def colour_groups(tokens: Iterable[str]) -> set[int]:
    """The groups, 0 to 5, that a caption's colour words belong to."""
    return {COLOUR_WORDS[token] for token in tokens if token in COLOUR_WORDS}


@dataclass(frozen=True)
class Vocabulary:
    """Words by number; the first three are `SPECIAL`. `Vocabulary.of(captions)` counts them."""

    words: tuple[str, ...]
    index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "index", {word: i for i, word in enumerate(self.words)})

    @classmethod
    def of(cls, captions: Iterable[Sequence[str]], more_than: int = 3) -> "Vocabulary":
        """The words that occur more than `more_than` times in tokenised captions, the most frequent first."""
        counts = Counter(token for caption in captions for token in caption)
        kept = sorted((word for word, n in counts.items() if n > more_than), key=lambda word: (-counts[word], word))
        return cls((*SPECIAL, *kept))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokens: Sequence[str], length: int) -> np.ndarray:
        """(length,) int64: words, <eos>, then <pad>; what does not fit before the <eos> is cut off."""
        row = np.full(length, PAD)
        known = [self.index.get(token, UNK) for token in tokens[:length - 1]] + [EOS]
        row[:len(known)] = known
        return row

    def decode(self, row: Iterable[int]) -> list[str]:
        """The words up to the first <eos>, <pad> left out."""
        words = []
        for number in row:
            if number == EOS:
                break
            if number != PAD:
                words.append(self.words[number])
        return words


def as_text(tokens: Sequence[str]) -> str:
    """Tokens as one would write them: no space before a punctuation mark."""
    text = ""
    for token in tokens:
        text += token if not text or not re.fullmatch(r"[\w<>-]+", token) else f" {token}"
    return text

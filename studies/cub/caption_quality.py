"""Whether imagined captions are true and not all the same: their colour words, and their diversity.

A colour word counts where it is used as English does: before a noun ("a black and white wing"), or after "is" or "are"
("the crown is red"). A word salad of frequent colours scores nothing with it.
"""

from collections.abc import Sequence

import numpy as np

from mmvm.errors import UserError
from studies.cub.captions import COLOUR_WORDS

NOUNS = frozenset("""bird birds beak bill bills wing wings feather feathers breast chest belly abdomen underside head
    crown cap forehead face cheek cheeks throat chin neck nape back upperparts body tail rectrices rump eye eyes eyering
    feet foot leg legs tarsus tarsals secondaries primaries coverts wingbar wingbars patch stripe stripes streaks spots
    vent side sides flank flanks superciliary eyebrow plumage color""".split())
BETWEEN = frozenset("""and or , colored coloured dark light bright pale jet glossy pure plain warm deep royal lemon
    long short thick thin pointed pointy curved small large tiny big sharp round stout heavy hooked very
    mostly""".split())
COPULAS = frozenset(("is", "are"))


def grammatical_colours(tokens: Sequence[str]) -> list[int]:
    """The groups, 0 to 5, of a caption's colour words that stand where a colour word may, in order."""
    found = []
    for i, token in enumerate(tokens):
        if token in COLOUR_WORDS and (_leads_to(tokens[i + 1:], NOUNS) or _leads_to(tokens[:i][::-1], COPULAS)):
            found.append(COLOUR_WORDS[token])
    return found


def quality(captions: Sequence[Sequence[str]], labels: np.ndarray) -> dict[str, float]:
    """Of tokenised captions (N) and the colour groups (N, 6) of their images:

    colour_accuracy    share of grammatical colour words whose group the image has
    colour_words       grammatical colour words per caption
    grammatical        share of all colour words that are grammatical
    distinct           different captions over all captions
    distinct_bigrams   different pairs of neighbouring words over all pairs
    """
    labels = np.asarray(labels).astype(bool)
    if len(captions) != len(labels) or not len(labels):
        raise UserError(f"{len(captions)} captions and {len(labels)} rows of labels: give one row each, at least one")
    used = [grammatical_colours(tokens) for tokens in captions]
    right = [labels[i, group] for i, groups in enumerate(used) for group in groups]
    n_words = sum(token in COLOUR_WORDS for tokens in captions for token in tokens)
    bigrams = [pair for tokens in captions for pair in zip(tokens, tokens[1:])]
    return {"colour_accuracy": float(np.mean(right)) if right else float("nan"),
            "colour_words": len(right) / len(captions),
            "grammatical": len(right) / n_words if n_words else float("nan"),
            "distinct": len({tuple(tokens) for tokens in captions}) / len(captions),
            "distinct_bigrams": len(set(bigrams)) / len(bigrams) if bigrams else 0.0}


def _leads_to(tokens: Sequence[str], goal: frozenset[str]) -> bool:
    """Whether a word of `goal` comes first but for colours and what may stand between."""
    for token in tokens:
        if token in goal:
            return True
        if token not in COLOUR_WORDS and token not in BETWEEN:
            return False
    return False

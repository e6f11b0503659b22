"""One kind of error for everything a user can cause and mend."""

LONGEST = 3_000


class UserError(ValueError):
    """Says what is wrong (file, row or name), what was expected, and the cure.

    The command line prints the sentence alone and exits with status 2; a notebook shows it as the last line. It is one
    line of at most `LONGEST` characters that a terminal can show, whatever a file or a parameter had in it.

    >>> try: Normal(scale=-1)
    ... except UserError as error: print(error)
    Normal scale must be positive, got -1
    """

    def __init__(self, sentence: object = ""):
        line = "".join(sign if sign.isprintable() else "?" for sign in " ".join(str(sentence).splitlines()))
        if len(line) > LONGEST:
            line = f"{line[:LONGEST * 2 // 3]} [...] {line[-LONGEST // 4:]}"
        super().__init__(line)


class ValueWarning(UserWarning):
    """The values can be trained on, or looked at, but the result will be poor; says why and what to do."""

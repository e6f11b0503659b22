"""One kind of error for everything a user can cause and mend."""


class UserError(ValueError):
    """Says what is wrong (file, row or name), what was expected, and the cure.

    The command line prints the sentence alone and exits with status 2; a notebook shows it as the last line.

    >>> try: Normal(scale=-1)
    ... except UserError as error: print(error)
    Normal scale must be positive, got -1
    """

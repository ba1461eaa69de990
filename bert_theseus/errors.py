"""The one exception for bad input: what is wrong, where, and what to do about it."""


class InputError(ValueError):
    """Bad input from the user; scripts print it as one line and exit with status 2.

    what:  the fault, in a few words.
    where: a path, ``path:line`` or an argument's name.
    fix:   what the user can do about it.

    >>> str(InputError("unknown label '118'", "tnews/dev.json:7", "use one of 100 … 116"))
    "unknown label '118', tnews/dev.json:7, use one of 100 … 116"
    """

    def __init__(self, what: str, where: str | None = None, fix: str | None = None):
        self.what, self.where, self.fix = what, where, fix
        parts = (str(part) for part in (what, where, fix) if part)
        super().__init__(", ".join(" ".join(part.split()) for part in parts))

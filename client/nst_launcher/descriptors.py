"""The descriptors of stdin, stdout and stderr."""

import os


def open_missing_descriptors() -> None:
    """Give closed standard streams a descriptor that can be neither read nor written.

    Otherwise the next opened file or connection would get the number, and messages of libraries would go into it.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is the one that is missing.
            os.open(os.devnull, mode)

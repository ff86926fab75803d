"""The one exception for problems that a user can mend."""

from __future__ import annotations


class ComoviError(ValueError):
    """Something given to us cannot be used.

    The message is one sentence, two at most: which input, what was expected, what came, what to do. The command line
    prints it as one line and exits with status 2; ComfyUI shows it in the node. Our own mistakes are assertions.
    """

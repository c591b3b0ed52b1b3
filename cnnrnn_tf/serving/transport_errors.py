"""What went wrong between a client and its server enters; an error that says whether to try again leaves."""

from tfrecords.errors import UserError

_MAX_LENGTH = 400  # characters of a server's message: TensorFlow's may hold a whole graph


class ServingError(UserError):
    """The server answered with an error, or not in time: asking it the same again would not help."""


class RequestRefused(ServingError):
    """The server finds the request itself at fault."""


class ServerUnavailable(ServingError):
    """No server is there, or it is overloaded or restarting: the same request may succeed in a moment."""


def describe_timeout(url, timeout_s):
    """The ServingError of a request that got no answer."""
    return ServingError(
        f"no answer from {url} within {timeout_s:g} s: send fewer images at once, or wait longer"
    )


def one_line(text: str) -> str:
    """A server's message, on one line and not too long.

    >>> one_line("Task size 64\\n  is larger")
    'Task size 64 is larger'
    """
    line = " ".join(text.split())
    return line if len(line) <= _MAX_LENGTH else f"{line[:_MAX_LENGTH]}..."

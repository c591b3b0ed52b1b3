"""Image files enter; their labels leave, as a server's TensorFlow Serving gives them.

    client = Client("http://localhost:8501", model="tagger")
    for image in client.tag([Path("photo.jpg").read_bytes()]):
        print(image.labels, image.error)

A URL that begins with grpc:// means gRPC (extra [serving]); REST imports neither gRPC nor TensorFlow.
"""

import base64
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from cnnrnn_tf.serving.rest_transport import RestTransport
from cnnrnn_tf.serving.tagged_image import TaggedImage, check_options, fill_options, join_names, rank_row
from cnnrnn_tf.serving.transport_errors import RequestRefused, ServerUnavailable, ServingError
from tfrecords.conversion import make_sendable
from tfrecords.errors import UserError

__all__ = ["Client", "ServerUnavailable", "ServingError"]

TAG_GIVEN = "tag_given"
_REAL, _WHOLE = ("features", "threshold"), ("beam_size", "min_length", "max_length")
_ONE_PIXEL = base64.b64decode("R0lGODdhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs=")
_MAX_BATCH_BYTES = 64 << 20
_MAX_TIMEOUT_S, _MAX_WAIT_S = 1e6, 30.0


class Client:
    """A tagger behind TensorFlow Serving. Threads may share it."""

    def __init__(
        self,
        url: str,
        model: str = "tagger",
        version: int | None = None,
        timeout_s: float = 60.0,
        retries: int = 3,
        first_wait_s: float = 0.5,
        batch_size: int = 32,
    ):
        """Connects to nothing yet.

        Args:
            url: http://host:8501 (REST), or grpc://host:8500 or host:8500 (gRPC).
            model: the name that the server knows the model by.
            version: its number; None for the server's choice, the highest.
            timeout_s: seconds that the server may leave one request unanswered. A request that took longer is
                not sent again: the server may be busy with it still.
            retries: how often a request is sent again that found no server, or one that is overloaded or
                restarting (503, 429, UNAVAILABLE, RESOURCE_EXHAUSTED). Tagging changes nothing on the server,
                so sending twice does no harm.
            first_wait_s: seconds before the first of these; each further wait is twice as long, up to 30 s.
                Each is shortened at random by up to half, so that many clients do not come back at once.
            batch_size: images in a request, at most; fewer if they are large. Not above the server's
                max_batch_size.

        Raises:
            UserError: the URL is of neither kind, a number is out of range, or gRPC is not installed.
        """
        for is_fine, message in (
            (
                0 < timeout_s <= _MAX_TIMEOUT_S,
                f"timeout_s {timeout_s}: expected more than 0, and {_MAX_TIMEOUT_S:,.0f} at most",
            ),
            (retries >= 0, f"retries {retries}: expected 0 or more"),
            (batch_size >= 1, f"batch_size {batch_size}: expected 1 or more"),
        ):
            if not is_fine:
                raise UserError(message)
        self._model, self._version, self._batch_size = model, version, batch_size
        self._retries, self._first_wait_s = retries, first_wait_s
        self._transport = _make_transport(url, timeout_s)

    def tag(
        self,
        files: Iterable[bytes],
        given: Sequence[str] = (),
        absent: Sequence[str] = (),
        *,
        beam_size: int | None = None,
        min_length: int | None = None,
        max_length: int | None = None,
        threshold: float | None = None,
    ) -> list[TaggedImage]:
        """Tags image files.

        Args:
            files: the content of each file. HEIC (with the extra `[heif]`), AVIF, TIFF, JPEG 2000 and odd BMP
                files are sent as JPEG or PNG.
            given: names of labels that all images are known to have.
            absent: names of labels that none of them has.
            beam_size: candidate paths; None, here and below, for what the export was made with.
            min_length: the fewest labels of an image.
            max_length: the most labels of an image.
            threshold: labels with a probability below are left out.

        Returns:
            A TaggedImage for each file, in order. One that cannot be decoded says so in its `error`.

        Raises:
            ServerUnavailable: no server, or no free one, after all retries.
            ServingError: the server refuses the request or does not answer in time.
            UserError: known labels and an option at once, which no signature takes; or an option that is NaN
                or too large, or a name with a newline, which cannot be sent.
        """
        options = _read_options(beam_size, min_length, max_length, threshold)
        return list(self.tag_each(files, given, options, absent))

    def tag_each(
        self,
        files: Iterable[bytes],
        given: Sequence[str] = (),
        options: Mapping[str, float] | None = None,
        absent: Sequence[str] = (),
    ) -> Iterator[TaggedImage]:
        """Does what `tag` does batch by batch, reading no further ahead; `options` by name."""
        options = options or {}
        check_options(options, given, absent)
        signature, settings = _choose_signature(given, absent, options)
        for batch in _batch(map(_convert, files), self._batch_size):
            inputs = {"image_bytes": batch} | {name: [value] * len(batch) for name, value in settings.items()}
            rows = self.call(signature, inputs)
            if len(rows) != len(batch):
                raise ServingError(f"{len(rows)} rows came back for {len(batch)} images: no tagger of ours")
            yield from (
                _read_scores(row, options) if signature == "scores" else _read_row(row) for row in rows
            )

    def read_labels(self) -> list[str]:
        """Asks the server for the names of all labels, by the scores of a picture of one pixel."""
        (row,) = self.call("scores", {"image_bytes": [_ONE_PIXEL]})
        return list(row["labels"])

    def call(self, signature: str, inputs: Mapping[str, Sequence]) -> list[dict]:
        """Runs any signature of the export on one batch, with retries.

        Args:
            signature: its name: "scores", "embed", "tag_given"...
            inputs: {input name: a value a row}: bytes, text, numbers or lists of them, alike in all rows.
                Without rows the server is not asked: some would keep such a request waiting.

        Returns:
            {output name: value} for each row.

        Raises:
            ServingError: see `tag`.
            UserError: the inputs have different numbers of rows, or a value of a type that is never sent.
        """
        inputs = _check_inputs(inputs)
        if not any(inputs.values()):
            return []
        for wait_s in self._waits():
            try:
                return self._ask(signature, inputs)
            except ServerUnavailable as error:
                if wait_s is None:
                    attempts = f"; tried {self._retries + 1} times" if self._retries else ""
                    raise ServerUnavailable(f"{error}{attempts}") from None
                time.sleep(wait_s)

    def _ask(self, signature, inputs):
        try:
            return self._transport.predict(self._model, self._version, signature, inputs)
        except RequestRefused as error:
            expected = self._transport.list_inputs(self._model, self._version, signature)
            if expected is None or expected == sorted(inputs):
                raise
            older = (
                "an export of an older version: export the run again"
                if signature == TAG_GIVEN
                else "send these"
            )
            raise ServingError(
                f"{signature} takes {', '.join(expected)} on this server, and was sent "
                f"{', '.join(sorted(inputs))}: {older} ({error})"
            ) from None

    def _waits(self):
        """Seconds to wait after each attempt that fails; None after the last."""
        for i in range(self._retries):
            yield min(self._first_wait_s * 2.0 ** min(i, 100), _MAX_WAIT_S) * random.uniform(0.5, 1)
        yield None


def _make_transport(url, timeout_s):
    expected = "expected http://host:8501 (REST) or grpc://host:8500 (gRPC)"
    try:
        parts = urlsplit(url if "://" in url else f"grpc://{url}")
        is_grpc = parts.scheme == "grpc"
        is_complete = (
            bool(parts.hostname) and " " not in parts.netloc and (parts.port is not None or not is_grpc)
        )
    except ValueError:  # a port that is no number, or half an IPv6 address
        raise UserError(f"URL {url!r}: {expected}") from None
    if "@" in parts.netloc:  # and not shown: it may hold a password
        raise UserError(f"URL with a user or a password: neither would be sent; {expected}")
    if not is_complete or parts.scheme not in ("http", "https", "grpc") or parts.query or parts.fragment:
        raise UserError(f"URL {url!r}: {expected}")
    if not is_grpc:
        return RestTransport(url, timeout_s)
    if parts.path.strip("/"):
        raise UserError(f"URL {url!r}: gRPC has no path; {expected}")
    from cnnrnn_tf.serving.grpc_transport import GrpcTransport

    return GrpcTransport(parts.netloc, timeout_s)


def _read_options(beam_size, min_length, max_length, threshold):
    options = {
        "beam_size": beam_size,
        "min_length": min_length,
        "max_length": max_length,
        "threshold": threshold,
    }
    return {name: value for name, value in options.items() if value is not None}


def _choose_signature(given, absent, options):
    """Returns its name, and the value of each further input, the same for all images."""
    if "top_k" in options:
        return "scores", {}
    if options:
        return "tag", fill_options(options)
    if given or absent:
        return TAG_GIVEN, {"given": join_names(given), "absent": join_names(absent, "absent")}
    return "serving_default", {}


def _check_inputs(inputs):
    """Returns them as plain lists; a value of another type could fail all requests that it is joined with."""
    if not inputs:
        raise UserError("no inputs: name each with a value a row, such as image_bytes=[...]")
    columns = {name: _to_column(name, values) for name, values in inputs.items()}
    if len(set(map(len, columns.values()))) > 1:
        found = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise UserError(f"different numbers of rows ({found}): send one of each input for each image")
    return columns


def _to_column(name, values):
    if isinstance(values, str | bytes):
        raise UserError(
            f"{name}: expected a list with a value a row, and got a single {type(values).__name__}"
        )
    column = values.tolist() if hasattr(values, "tolist") else list(values)
    return [_to_plain(name, value) for value in column]


def _to_plain(name, value):
    value = value.tolist() if hasattr(value, "tolist") else value  # NumPy's
    if isinstance(value, list | tuple):
        return [_to_plain(name, each) for each in value]
    if isinstance(value, bool) or not isinstance(value, str | bytes | int | float):
        raise UserError(
            f"{name}: a value of type {type(value).__name__} cannot be sent; expected text or numbers"
        )
    if name in _REAL and isinstance(value, int):
        return float(value)
    if name in _WHOLE and isinstance(value, float):
        raise UserError(f"{name} {value}: expected a whole number")
    return value


def _convert(file):
    """HEIC and the like as JPEG or PNG. What cannot be converted is sent: the server says what it is."""
    return make_sendable(file)[0] or file


def _batch(files, batch_size):
    batch, num_bytes = [], 0
    for file in files:
        if batch and num_bytes + len(file) > _MAX_BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
        batch.append(file)
        num_bytes += len(file)
        if len(batch) == batch_size:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def _read_scores(row, options):
    if row["error"]:
        return TaggedImage((), (), (), None, row["error"])
    return rank_row(row["labels"], row["scores"], row["ranking"], options)


def _read_row(row):
    try:
        places = slice(0, row["num_labels"])
        return TaggedImage(
            labels=tuple(row["labels"][places]),
            probabilities=tuple(row["probabilities"][places]),
            step_probabilities=tuple(row["step_probabilities"][places]),
            path_probability=row["path_probability"],
            error=row["error"],
        )
    except KeyError as error:
        raise ServingError(f"the model answers without {error}: it is no export of `cnnrnn export`") from None
    except TypeError as error:  # a number where there should be a list, or the other way round
        raise ServingError(f"the model is no export of `cnnrnn export`: {error}") from None

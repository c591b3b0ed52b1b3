"""Rows of a signature's inputs enter; TensorFlow Serving's rows of outputs leave, over its REST API.

Needs the standard library alone.
"""

import base64
import http.client
import json
import ssl
import time
from urllib.parse import quote, urlsplit

from cnnrnn_tf.serving.transport_errors import (
    RequestRefused,
    ServerUnavailable,
    ServingError,
    describe_timeout,
    one_line,
)

_TRY_AGAIN = (http.client.TOO_MANY_REQUESTS, http.client.SERVICE_UNAVAILABLE)
_CLOSED = (http.client.RemoteDisconnected, http.client.IncompleteRead, OSError)
_CHUNK_BYTES = 1 << 16


class RestTransport:
    """The REST API at a URL. Each request has a connection of its own, so threads may share the object."""

    def __init__(self, url, timeout_s):
        """Connects to nothing yet.

        Args:
            url: http://host:8501 or https://host/prefix.
            timeout_s: seconds that the server may leave a request unanswered.
        """
        self._url, self._timeout_s = url, timeout_s
        parts = urlsplit(url)
        self._connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = parts.hostname, parts.port
        self._prefix = quote(parts.path.rstrip("/"), safe="/%")

    def predict(self, model, version, signature, inputs):
        """Asks for one batch.

        Args:
            model: the name that it is served by.
            version: its number, or None for the server's choice.
            signature: the signature's name.
            inputs: {input name: a value a row}; bytes, text, numbers or lists of them, alike in all rows.

        Returns:
            A dictionary of output name: value for each row, in order.

        Raises:
            ServerUnavailable: another attempt may succeed.
            ServingError: any other failure.
        """
        path = f"{self._find_model(model, version)}:predict"
        body = json.dumps({"signature_name": signature, "instances": _to_instances(inputs)}).encode()
        status, answer = self._send(path, body)
        if status != http.client.OK:
            error = RequestRefused if status == http.client.BAD_REQUEST else ServingError
            error = ServerUnavailable if status in _TRY_AGAIN else error
            raise error(f"{self._url} answers {status}: {_read_error(answer)}")
        return self._read_rows(answer)

    def list_inputs(self, model, version, signature):
        """Returns the names of a signature's inputs, sorted; None where the server does not say."""
        try:
            status, answer = self._send(f"{self._find_model(model, version)}/metadata", None)
            if status != http.client.OK:
                return None
            signatures = json.loads(answer.decode())["metadata"]["signature_def"]["signature_def"]
            return sorted(signatures[signature]["inputs"])
        except (ServingError, ValueError, KeyError, TypeError):
            return None

    def _find_model(self, model, version):
        wanted = "" if version is None else f"/versions/{version}"
        return f"{self._prefix}/v1/models/{quote(model, safe='')}{wanted}"

    def _send(self, path, body):
        connection = self._connect(self._host, self._port, timeout=self._timeout_s)
        try:
            self._open(connection)
            deadline, connected = time.monotonic() + self._timeout_s, connection.sock
            method = "GET" if body is None else "POST"
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, _read_until(deadline, response, connected)
        except TimeoutError:
            raise describe_timeout(self._url, self._timeout_s) from None
        except _CLOSED as error:
            raise ServerUnavailable(f"{self._url} closed the connection ({_name(error)})") from None
        except http.client.HTTPException:
            raise ServingError(
                f"{self._url} does not speak HTTP: for its gRPC port write grpc:// before it"
            ) from None
        finally:
            connection.close()

    def _open(self, connection):
        try:
            connection.connect()
        except ssl.SSLError as error:
            raise ServingError(f"{self._url} offers no connection by TLS ({_name(error)})") from None
        except (OSError, UnicodeError, http.client.InvalidURL) as error:
            is_late = isinstance(error, TimeoutError)
            reason = "no answer in time" if is_late else getattr(error, "strerror", None) or _name(error)
            raise ServerUnavailable(
                f"no server at {self._url} ({reason}): start it, or correct the URL"
            ) from None

    def _read_rows(self, answer):
        try:
            rows = json.loads(answer.decode(errors="replace"))["predictions"]
        except (ValueError, KeyError, TypeError):
            begin = one_line(answer[:80].decode(errors="replace"))
            raise ServingError(f"{self._url} answers, but not as TensorFlow Serving does: {begin}") from None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ServingError(f"{self._url} answers without names of outputs: the model is no tagger")
        return rows


def _read_until(deadline, response, connected):
    """The body. A socket's own time-out begins anew with each byte that arrives."""
    data = bytearray()
    while part := response.read1(_CHUNK_BYTES):
        data += part
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        connected.settimeout(remaining_s)
    if response.length:
        raise http.client.IncompleteRead(bytes(data), response.length)
    return bytes(data)


def _to_instances(inputs):
    """The rows as the server reads them; those of a single input go without its name."""
    columns = [[_to_json(value) for value in values] for values in inputs.values()]
    if len(columns) == 1:
        return columns[0]
    return [dict(zip(inputs, row, strict=True)) for row in zip(*columns, strict=True)]


def _to_json(value):
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _read_error(answer):
    text = answer.decode(errors="replace")
    try:
        return one_line(str(json.loads(text)["error"]))
    except (ValueError, KeyError, TypeError):  # a proxy's page, or an error that is no valid JSON
        return one_line(text) or "no reason given"


def _name(error):
    return one_line(str(error)) or type(error).__name__

"""Malformed requests beside a good one in a server that joins requests: who fails, and how.

Each is sent to the stand-in at the same time as a good request of the same signature, so that both fall into
one batch. `bad` and `good` are what a whole TensorFlow Serving server of 2026 did to the two.
"""

import base64
import concurrent.futures
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

BATCHING = {"max_batch_size": 2, "batch_timeout_s": 0.5, "allowed_batch_sizes": [2]}
DEAD = "no server"  # the connection was refused, or closed without an answer


@dataclass(frozen=True)
class Malformed:
    """One of them, with what becomes of it and of the good request beside it."""

    name: str
    signature: str
    body: dict
    """What differs from a good request: an input and its value, or the whole `instances` or `inputs`."""
    bad: Any
    good: Any


IMAGE = "IMAGE"  # stands for a good image's JSON
MALFORMED = (
    Malformed("given is a list", "tag_given", {"given": ["sea"]}, 400, 400),
    Malformed("given is an empty list", "tag_given", {"given": []}, 400, 400),
    Malformed("absent is a list", "tag_given", {"absent": ["sea"]}, 400, 400),
    Malformed("beam_size is a list", "tag", {"beam_size": [3]}, 400, 400),
    Malformed("a row is a list", "serving_default", {"instances": [[IMAGE]]}, 400, 400),
    Malformed("given is a number", "tag_given", {"given": 3}, 400, 200),
    Malformed("absent is missing", "tag_given", {"absent": None}, 400, 200),
    Malformed("threshold is text", "tag", {"threshold": "high"}, 400, 200),
    Malformed("beam_size is a real number", "tag", {"beam_size": 3.5}, 400, 200),
    Malformed("beam_size is out of bounds", "tag", {"beam_size": 99}, 200, 200),  # and its row says so
    Malformed("an unknown name is given", "tag_given", {"given": "skie"}, 200, 200),
    Malformed("no image", "serving_default", {"instances": [{"b64": "AAAA"}]}, 200, 200),
    Malformed("bad base64", "serving_default", {"instances": [{"b64": "?"}]}, 400, 200),
    Malformed("no rows", "serving_default", {"instances": []}, 400, 200),
    Malformed("no rows, in columns", "serving_default", {"inputs": []}, 200, 200),  # once rows come
    Malformed("too many rows", "serving_default", {"instances": [IMAGE] * 3}, 400, 200),
)
GOOD_INPUTS = {
    "serving_default": {},
    "tag": {"beam_size": 3, "min_length": 0, "max_length": 3, "threshold": 0.0},
    "tag_given": {"given": "sea", "absent": ""},
}


def send_both(rest_url: str, request: Malformed, image: bytes) -> tuple[Any, Any]:
    """Sends a malformed request and a good one at once; returns the HTTP status of each, or DEAD."""
    encoded = {"b64": base64.b64encode(image).decode()}
    inputs = GOOD_INPUTS[request.signature]
    good = {"instances": [{"image_bytes": encoded, **inputs} if inputs else encoded]}
    if {"instances", "inputs"} & set(request.body):
        bad = json.loads(json.dumps(request.body).replace(f'"{IMAGE}"', json.dumps(encoded)))
    else:
        row = {"image_bytes": encoded, **inputs, **request.body}
        bad = {"instances": [{name: value for name, value in row.items() if value is not None}]}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first, second = (
            pool.submit(ask, rest_url, {"signature_name": request.signature, **body}) for body in (bad, good)
        )
        return first.result(), second.result()


def ask(rest_url: str, body: dict) -> Any:
    """Returns the HTTP status of a request, or DEAD."""
    data = json.dumps(body).encode()
    try:
        with urllib.request.urlopen(f"{rest_url}/v1/models/tagger:predict", data, timeout=120) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except TimeoutError:  # an OSError too, and no sign of death
        raise
    except OSError:  # URLError and a closed connection are both
        return DEAD

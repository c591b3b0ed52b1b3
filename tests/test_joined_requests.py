"""What a malformed request costs the request that a batching server joins it with."""

import concurrent.futures
import json
import threading

import numpy as np
import pytest
from malformed_requests import BATCHING, DEAD, MALFORMED, ask, send_both
from served_model import Batcher, ServerError
from serving_stand_in import start_stand_in
from tiny_model import make_photograph

IMAGE = make_photograph(0)


@pytest.fixture(scope="module")
def stand_in(tiny_export):
    with start_stand_in(tiny_export, "--batching", json.dumps(BATCHING)) as running:
        yield running


@pytest.mark.parametrize("request_", MALFORMED, ids=lambda each: each.name)
def test_a_malformed_request_fails_no_other_where_the_server_allows_it(stand_in, request_):
    assert send_both(stand_in.rest_url, request_, IMAGE) == (request_.bad, request_.good)


def test_with_padding_one_input_of_the_wrong_rank_ends_the_server(tiny_export):
    padding = json.dumps({**BATCHING, "pad_variable_length_inputs": True})
    with start_stand_in(tiny_export, "--batching", padding) as running:
        assert send_both(running.rest_url, MALFORMED[0], IMAGE) == (DEAD, DEAD)
        assert ask(running.rest_url, {"instances": ["a"]}) == DEAD


class Died(Exception):
    """The stand-in's process would be gone."""


def die():
    raise Died


def join(first, second, **options):
    """What two requests of one input get that fall into one batch: their rows, or why not."""
    options = {"batch_timeout_s": 5, "allowed_batch_sizes": [2], "die": die} | options
    batcher = Batcher(lambda inputs: inputs, max_batch_size=2, **options)

    def run(array):
        try:
            return batcher.run({"x": array})["x"].tolist()
        except ServerError as error:
            return error.message

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, [np.array(first), np.array(second)]))


@pytest.mark.parametrize(
    ("first", "second", "pads", "message"),
    [
        ([1], [[2]], False, "Tensors with name 'x' from different tasks have different shapes"),
        ([[1]], [[2, 3]], False, "Tensors with name 'x' from different tasks have different shapes"),
        ([1], np.zeros([1, 0], int), True, "Got empty tensor in batch of non-empty tensors."),
        (
            [1],
            np.array([2], np.int32),
            False,
            "Tensors with name 'x' from different tasks have different types",
        ),
        (
            [1],
            np.array([2], np.int32),
            True,
            "Tensors with name 'x' from different tasks have different types",
        ),
        ([1], [[2]], True, "the batch was not run"),  # for the process is gone
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_requests_that_do_not_fit_together_all_fail(first, second, pads, message):
    if message == "the batch was not run":
        with pytest.raises(Died):
            join(first, second, pad_variable_length_inputs=pads)
        return
    assert all(found.startswith(message) for found in join(first, second, pad_variable_length_inputs=pads))


def test_a_request_without_rows_waits_until_one_with_rows_comes():
    batcher = Batcher(lambda inputs: inputs, max_batch_size=1, batch_timeout_s=0, allowed_batch_sizes=[1])
    found = []
    waiting = threading.Thread(target=lambda: found.append(batcher.run({"x": np.zeros([0])})))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive() and not found
    batcher.run({"x": np.ones([1])})
    waiting.join(5)
    assert not waiting.is_alive() and len(found[0]["x"]) == 0

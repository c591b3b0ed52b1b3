"""The files of `ours.py` enter; what tensorflow-addons makes of the same weights and tables leaves as files.

    .venv-addons/bin/python benchmarks/addons/theirs.py FOLDER

The second step of `make addons`. It runs on Keras 2 and TensorFlow 2.15 and imports nothing of this project.
FOLDER/theirs gets a file for each of FOLDER/ours, see there:

- `table-NAME.npz`: HammingLoss, F1Score and MultiLabelConfusionMatrix, twice: with a score equal to the
  threshold in the set, as ours have it (`reached`), and as they are (`strict`).
- `search-NAME.npz`: the beams of BeamSearchDecoder. `published` runs on the plain decoder, which may repeat a
  label and knows no maximum; `renormalised` on one that masks its scores as our search does.
- `speed.npz`: the seconds of both.
"""

import math
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import tensorflow as tf

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the end of its life
    import tensorflow_addons as tfa

BATCHES = (0.3, 0.45)
"""Where a table is cut, elsewhere than in `ours.py`: no measure may depend on it."""
SPEED_RUNS = 100
_NEVER = -1e9  # a score whose softmax is 0


def main(words=None) -> int:
    (folder,) = map(Path, sys.argv[1:] if words is None else words)
    (folder / "theirs").mkdir(parents=True, exist_ok=True)
    answers = {"table": measure, "search": search_all, "speed": time_search}
    for path in sorted((folder / "ours").glob("*.npz")):
        with np.load(path) as case:
            answer = answers[path.stem.split("-")[0]](dict(case))
        np.savez(folder / "theirs" / path.name, **answer)
    return 0


# ---- measures


def measure(table):
    """The measures of a table, `reached` where a score equal to the threshold counts, `strict` where not."""
    threshold = np.float32(table["threshold"])
    thresholds = {"reached": np.nextafter(threshold, np.float32(0)), "strict": threshold}
    return {
        f"{name}_{measure}": value
        for name, cut in thresholds.items()
        for measure, value in _measure_at(float(cut), table).items()
    }


def _measure_at(threshold, table):
    num_labels = table["y_true"].shape[1]
    metrics = {
        "hamming_loss": tfa.metrics.HammingLoss(mode="multilabel", threshold=threshold),
        "micro_f1": tfa.metrics.F1Score(num_labels, average="micro", threshold=threshold),
        "macro_f1": tfa.metrics.F1Score(num_labels, average="macro", threshold=threshold),
    }
    confusion = tfa.metrics.MultiLabelConfusionMatrix(num_labels)
    cuts = [int(cut * len(table["y_true"])) for cut in BATCHES]
    for rows in np.split(np.arange(len(table["y_true"])), cuts):
        y_true, y_pred, weights = (table[name][rows] for name in ("y_true", "y_pred", "weights"))
        for metric in metrics.values():
            metric.update_state(y_true, y_pred, weights)
        confusion.update_state(y_true, y_pred > np.float32(threshold))  # it takes no weights
    found = {name: metric.result().numpy() for name, metric in metrics.items()}
    return {**found, "confusion": confusion.result().numpy()}


# ---- the decoder, and the search


class PlainCell(tf.keras.layers.Layer):
    """One step of our decoder as BeamSearchDecoder wants it: an RNN cell whose outputs are the scores.

    The projected image does not enter the recurrence; it is carried along in the state, beam by beam. Inputs
    are the embedding of the last token and the token as one-hot <float32>[rows, labels], zeros for START.
    """

    def __init__(self, case):
        super().__init__()
        self.units, self.embedding_dim = case["output_kernel"].shape
        self.num_labels = len(case["label_embeddings"]) - 1
        self.lstm = tf.keras.layers.LSTMCell(self.units)
        self.lstm.build((None, self.embedding_dim))
        self.lstm.set_weights([case["kernel"], case["recurrent_kernel"], case["bias"]])
        self.output_kernel = tf.constant(case["output_kernel"])
        self.label_embeddings = tf.constant(case["label_embeddings"])
        self.table = tf.concat([case["label_embeddings"], case["start_embedding"]], axis=0)

    @property
    def state_size(self):
        return [self.units, self.units, self.embedding_dim]

    @property
    def output_size(self):
        return self.num_labels + 1

    def get_initial_state(self, inputs=None, batch_size=None, dtype=None):
        return [tf.zeros([batch_size, size]) for size in self.state_size]

    def call(self, inputs, states, training=None):
        embedded, _ = inputs
        *recurrent, projected = states
        output, recurrent = self.lstm(embedded, recurrent)
        joint = tf.nn.relu(output @ self.output_kernel + projected)
        return tf.matmul(joint, self.label_embeddings, transpose_b=True), [*recurrent, projected]

    def embed(self, tokens):
        return tf.gather(self.table, tokens), tf.one_hot(tokens, self.num_labels)


class MaskedCell(PlainCell):
    """The same with our search's masks, `renormalise=True`: no label twice, and END alone at the maximum."""

    def __init__(self, case):
        super().__init__(case)
        self.max_length = int(case["max_length"])

    @property
    def state_size(self):
        return [*super().state_size, self.num_labels]

    def call(self, inputs, states, training=None):
        *states, emitted = states
        emitted += inputs[1]
        scores, states = super().call(inputs, states)
        is_full = tf.reduce_sum(emitted, axis=1, keepdims=True) >= self.max_length
        forbidden = (emitted > 0) | is_full
        forbidden = tf.pad(forbidden, [[0, 0], [0, 1]])  # END never is
        return tf.where(forbidden, _NEVER, scores), [*states, emitted]


CELLS = {"published": PlainCell, "renormalised": MaskedCell}


def search_all(case):
    """The beams of every rule and width, as `RULE_BEAM_tokens` and so on."""
    answer = {}
    for rule, make_cell in CELLS.items():
        cell = make_cell(case)
        for beam in case["beams"].tolist():
            tokens, log_probs = search(cell, case, beam or count_beams(rule, case))
            answer[f"{rule}_{beam}_tokens"] = _pad(
                tokens.numpy(), cell.num_labels, int(case["max_length"]) + 1
            )
            answer[f"{rule}_{beam}_log_probs"] = log_probs.numpy()
    return answer


def search(cell, case, beam):
    """Returns tokens <int32>[images, beam, steps] and log-probabilities <float32>[images, beam]."""
    decoder = tfa.seq2seq.BeamSearchDecoder(
        cell, beam_width=beam, embedding_fn=cell.embed, maximum_iterations=int(case["max_length"]) + 1
    )
    features = tf.constant(case["features"])
    num_images = len(case["features"])
    state = cell.get_initial_state(batch_size=num_images)
    state[2] = features @ case["feature_kernel"]
    outputs, final_state, _ = decoder(
        None,
        start_tokens=tf.fill([num_images], cell.num_labels + 1),
        end_token=cell.num_labels,
        initial_state=tfa.seq2seq.tile_batch(state, multiplier=beam),
    )
    return tf.transpose(outputs.predicted_ids, [0, 2, 1]), final_state.log_probs


def count_beams(rule, case):
    """How many beams hold all finished paths, and without masks also the unfinished ones of the last step."""
    num_labels, max_length = len(case["label_embeddings"]) - 1, int(case["max_length"])
    if rule == "published":
        return sum(num_labels**length for length in range(max_length + 2))
    return sum(math.perm(num_labels, length) for length in range(max_length + 1))


def time_search(case):
    """The seconds of each run, compiled, and the steps that it took."""
    answer = {}
    for rule, make_cell in CELLS.items():
        decode = tf.function(_bind(make_cell(case), case))
        answer[f"{rule}_num_steps"] = decode()[0].shape[-1]
        seconds = []
        for _ in range(SPEED_RUNS):
            start = time.perf_counter()
            decode()[1].numpy()
            seconds.append(time.perf_counter() - start)
        answer[f"{rule}_seconds"] = seconds
    return answer


def _bind(cell, case):
    return lambda: search(cell, case, int(case["beam"]))


def _pad(tokens, end, num_steps):
    missing = num_steps - tokens.shape[-1]
    return np.pad(tokens, [(0, 0), (0, 0), (0, missing)], constant_values=end)


if __name__ == "__main__":
    sys.exit(main())

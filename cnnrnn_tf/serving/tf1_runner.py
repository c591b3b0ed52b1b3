"""A job file enters; the outputs of an export's signatures leave, run in a TF1 session.

    python tf1_runner.py JOB RESULT

The job and the result are those of `c_api_runner`; only here TensorFlow's Python is the loader.
"""

import pickle
import sys
from pathlib import Path


def main(job_path, result_path):
    job = pickle.loads(Path(job_path).read_bytes())
    Path(result_path).write_bytes(pickle.dumps(run_job(job)))


def run_job(job):
    """Returns {"calls": [{name: array} or error]}, or {"error": what TensorFlow says against the export}."""
    import tensorflow as tf

    def run(call):
        try:
            return session.run(call["outputs"], call["inputs"])
        except (tf.errors.OpError, ValueError, TypeError) as error:
            return str(error)

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        try:
            tf.compat.v1.saved_model.loader.load(session, ["serve"], job["export_dir"])
        except (tf.errors.OpError, RuntimeError, ValueError) as error:
            return {"error": str(error)}
        return {"calls": [run(call) for call in job["calls"]]}


if __name__ == "__main__":
    main(*sys.argv[1:])

"""From a data set as its owners ship it to TFRecord shards on disk.

Enters: a source (photographs and their labels). Leaves: `data/<name>/` with `manifest.json`,
`vocabulary.json`, `skipped.csv` and the shards. Try `python -m tfrecords build demo`, then
`python -m tfrecords report demo`.
"""

from tfrecords.quiet import greet_silently

greet_silently()  # where TensorFlow is imported later, which building data sets does without

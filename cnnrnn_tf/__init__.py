"""Multi-label image tagging with a CNN and an RNN: from TFRecords to what TensorFlow Serving runs."""

from tfrecords.quiet import greet_silently

greet_silently()  # whichever module of the package is the first to import TensorFlow

"""From the bytes of an image file to its pixels, by TensorFlow: the one verdict on whether a file decodes."""

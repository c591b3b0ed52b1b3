"""The package's metadata, dependencies and console script; `pip install -e .` reads it."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

setup(
    name="cnnrnn-tf",
    version="0.1.0",
    description="CNN-RNN multi-label image tagging (Wang et al., CVPR 2016) in TensorFlow and Keras",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The cnnrnn-tf authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords="multi-label image-tagging cnn rnn lstm beam-search tensorflow keras tfrecord tf-serving",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["cnnrnn_tf", "cnnrnn_tf.*", "tfrecords", "tfrecords.*"]),
    install_requires=[
        "tensorflow>=2.21",
        "keras>=3.15",
        "tensorboard",
        "numpy",
        "protobuf",
        "google-crc32c",  # TFRecord's checksum, without an import of TensorFlow
        "tyro",
        "rich",
        "tqdm",
        "pillow>=11.3",  # reads AVIF
        "matplotlib",
        "scikit-learn",
        "scipy",
    ],
    extras_require={
        "beam": ["apache-beam"],
        "tfds": ["tensorflow-datasets", "importlib_resources"],  # the second is missing from its requirements
        "serving": ["tensorflow-serving-api"],
        "heif": ["pillow-heif"],  # HEIC, as phones write it
        "test": [
            "pytest",
            "pytest-xdist",
            "pillow-heif",
            "pycocotools",  # what COCO's own reader makes of a file is held against ours
            "ruff==0.17.*",  # its format changes between minor versions
            "nbclient",
            "nbformat",
            "ipykernel",
        ],
    },
    entry_points={"console_scripts": ["cnnrnn=cnnrnn_tf.commands.__main__:main"]},
)

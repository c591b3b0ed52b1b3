"""A server's URL and image files enter; each image's labels leave, as TensorFlow Serving gives them.

cnnrnn client --url http://localhost:8501 photos
photos/1.jpg: 2 labels, path probability 0.31
  sky     probability 0.982   step 0.951
  clouds  probability 0.544   step 0.480
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from cnnrnn_tf.commands.search_options import SearchOptions, split_given
from cnnrnn_tf.commands.tagging import Report, find_images, tag_paths
from tfrecords.progress import show_progress


@dataclass
class Client(SearchOptions):
    """Tag images with an export that TensorFlow Serving runs.

    The answers are those of `cnnrnn predict` on the same export. Exit status 1 if some image could not be
    tagged, 2 if none could, or the server does not answer.
    """

    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")] = ()
    """Files, folders (the images directly in them) or patterns such as 'photos/*.jpg'."""
    url: str = "http://localhost:8501"
    """Where the server is: http://host:8501 (REST), or grpc://host:8500 (gRPC, which takes
    `pip install 'cnnrnn-tf[serving]'`)."""
    model: str = "tagger"
    """The name that the server knows the model by (MODEL_NAME)."""
    version: int | None = None
    """Of the model; without it the server takes the highest."""
    absent: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A label known not to hold for any image; once for each: --absent sky --absent "sea, ocean"."""
    timeout_s: float = 60.0
    """Seconds that the server may leave a request unanswered."""
    retries: int = 3
    """How often to try again where there is no server, or a busy one, after 0.5 s, 1 s, 2 s at most."""
    batch_size: int = 32
    """Images in a request; not more than the server's max_batch_size."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one line of JSON an image."""

    def run(self) -> int:
        self.check_search()
        from cnnrnn_tf.serving import client

        server = client.Client(
            self.url, self.model, self.version, self.timeout_s, self.retries, batch_size=self.batch_size
        )
        found = find_images(self.images)
        given = self._read_given(server)
        options = self.search_options
        report = Report(self.json, given)
        for problem in found.problems:
            report.add_problem(*problem)
        with show_progress("tagging", total=len(found.paths), unit="image") as bar:
            report.print = bar.print
            for path, image in tag_paths(
                found.paths, lambda files: server.tag_each(files, given, options, self.absent)
            ):
                report.add(path, image)
                bar.update()
        report.account(found.others, found.num_folders)
        return report.exit_status(found.others)

    def _read_given(self, server) -> list[str]:
        """The labels given; where commas leave open which, the server says what labels there are."""
        from cnnrnn_tf.serving.client import ServerUnavailable, ServingError

        if not any("," in value for value in self.given):
            return split_given(self.given)
        try:
            return split_given(self.given, server.read_labels())
        except ServerUnavailable:
            raise
        except ServingError:  # an old export has no signature `scores`
            return split_given(self.given)

"""A source's name and arguments enter; the `Source` leaves. One module a source, imported on demand."""

from __future__ import annotations

from importlib import import_module

from tfrecords.errors import UserError, nearest
from tfrecords.sources.base import Source

SOURCES: dict[str, str] = {
    "demo": "tfrecords.sources.demo:DemoSource",
    "nuswide81": "tfrecords.sources.nuswide:NusWide81",
    "nuswide1000": "tfrecords.sources.nuswide:NusWide1000",
    "coco": "tfrecords.sources.coco_export:CocoSource",
    "coco2014": "tfrecords.sources.coco:Coco2014",
    "voc": "tfrecords.sources.voc_export:VocSource",
    "voc2007": "tfrecords.sources.voc:Voc2007",
    "table": "tfrecords.sources.table:TableSource",
    "tfds": "tfrecords.sources.tfds:TfdsSource",
}
"""The name of each source -> `module:class`; the class's constructor arguments are the source's options."""


def make_source(name: str, **arguments) -> Source:
    """The source called `name`.

    Raises:
        UserError: there is no such source, or the source refuses its arguments.
    """
    if name not in SOURCES:
        raise UserError(f"unknown source {name!r}{nearest(name, SOURCES)}: expected {' or '.join(SOURCES)}")
    module, _, class_name = SOURCES[name].partition(":")
    return getattr(import_module(module), class_name)(**arguments)

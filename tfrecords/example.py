"""Nothing enters; the classes of `tf.train.Example` and `Features` leave, without an import of TensorFlow.

TensorFlow takes seconds and 400 MB to import, in each worker of a build, and a build needs one message of it.
Its definition (tensorflow/core/example/{example,feature}.proto) has been frozen since 2015: every TFRecord in
the world is made of it.
"""

from __future__ import annotations

from functools import cache

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# message -> (field, number, type); a type that starts with a dot is one of these messages.
_LISTS = {
    "BytesList": ("value", 1, "BYTES"),
    "FloatList": ("value", 1, "FLOAT"),
    "Int64List": ("value", 1, "INT64"),
}
_KINDS = (("bytes_list", 1, "BytesList"), ("float_list", 2, "FloatList"), ("int64_list", 3, "Int64List"))


@cache
def example_class() -> type:
    """The protobuf class whose bytes are those of `tf.train.Example`."""
    return message_factory.GetMessageClass(_make_pool().FindMessageTypeByName("tensorflow.Example"))


@cache
def features_class() -> type:
    """The protobuf class whose bytes are those of `tf.train.Features`, the only field of an `Example`."""
    return message_factory.GetMessageClass(_make_pool().FindMessageTypeByName("tensorflow.Features"))


@cache
def _make_pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")
    for name, field in _LISTS.items():
        _add_field(file.message_type.add(name=name), *field, repeated=True)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for name, number, kind in _KINDS:
        _add_field(feature, name, number, f".tensorflow.{kind}").oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    _add_field(entry, "key", 1, "STRING")
    _add_field(entry, "value", 2, ".tensorflow.Feature")
    _add_field(features, "feature", 1, ".tensorflow.Features.FeatureEntry", repeated=True)

    _add_field(file.message_type.add(name="Example"), "features", 1, ".tensorflow.Features")
    pool = descriptor_pool.DescriptorPool()  # of our own: TensorFlow registers its own in the default one
    pool.Add(file)
    return pool


def _add_field(message, name: str, number: int, kind: str, repeated: bool = False):
    types = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(name=name, number=number)
    field.label = types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL
    if kind.startswith("."):
        field.type, field.type_name = types.TYPE_MESSAGE, kind
    else:
        field.type = types.Type.Value(f"TYPE_{kind}")
    return field

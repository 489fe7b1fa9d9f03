"""Makes classes of protobuf messages from the text of .proto files, without a compiler or generated modules.

The classes are in a descriptor pool of their own, so another package in the process, such as TensorFlow, may define
messages with the same names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2
from google.protobuf.message import Message

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    name.removeprefix("TYPE_").lower(): number
    for name, number in _Field.Type.items()
    if name not in ("TYPE_MESSAGE", "TYPE_ENUM", "TYPE_GROUP")
}
_WELL_KNOWN = (any_pb2.DESCRIPTOR, wrappers_pb2.DESCRIPTOR)  # every file may use these
_STATEMENT = re.compile(
    r"\s*(?:(?P<block>message|enum|oneof)\s+(?P<block_name>\w+)\s*\{"
    r"|(?P<end>\})"
    r"|map<(?P<key>\w+),\s*(?P<value>[\w.]+)>\s+(?P<map_name>\w+)\s*=\s*(?P<map_number>\d+)\s*;"
    r"|(?P<repeated>repeated\s+)?(?P<type>[\w.]+)\s+(?P<name>\w+)\s*=\s*(?P<number>\d+)\s*;"
    r"|(?P<constant>\w+)\s*=\s*(?P<constant_number>\d+)\s*;)\s*"
)


def message_classes(files: dict[str, str]) -> dict[str, type[Message]]:
    """A class for each message in .proto files with proto3 syntax.

    Args:
        files: The content of each file by its package. A file may use the types of the files before it, of any.proto
            and of wrappers.proto. It may declare messages, enums, oneofs and maps, but hold no options or comments.

    Returns:
        Classes by full name, such as "tensorflow.TensorShapeProto.Dim".

    Raises:
        ValueError: A file has a statement of another kind.
    """
    pool = descriptor_pool.DescriptorPool()
    for well_known in _WELL_KNOWN:
        pool.AddSerializedFile(well_known.serialized_pb)
    names: list[str] = []
    known = [well_known.name for well_known in _WELL_KNOWN]
    for package, text in files.items():
        file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
        file.dependency.extend(known)
        _read(text, file)
        pool.AddSerializedFile(file.SerializeToString())
        known.append(file.name)
        names += _full_names(package, file.message_type)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names}


def _read(text: str, file: descriptor_pb2.FileDescriptorProto) -> None:
    """Adds the messages and enums of a file's text to its descriptor."""
    position, open_blocks = 0, [file]
    while position < len(text):
        match = _STATEMENT.match(text, position)
        if match is None:
            raise ValueError(f"Not a statement that is read here: {text[position : position + 80]!r}.")
        position, block = match.end(), open_blocks[-1]
        if match["end"]:
            open_blocks.pop()
        elif match["block"]:
            open_blocks.append(_open(match["block"], match["block_name"], open_blocks))
        elif match["constant"]:
            block.value.add(name=match["constant"], number=int(match["constant_number"]))
        elif match["map_name"]:
            _add_map(block, match)
        elif isinstance(block, int):  # the index of a oneof; the enclosing block is its message
            _add_field(open_blocks[-2], match["type"], match["name"], match["number"]).oneof_index = block
        else:
            _add_field(block, match["type"], match["name"], match["number"], bool(match["repeated"]))


def _open(kind: str, name: str, open_blocks: list):
    """Begins a block in the innermost open one; returns the descriptor of a message or enum, or a oneof's index."""
    around = open_blocks[-1]
    if kind == "oneof":
        around.oneof_decl.add(name=name)
        return len(around.oneof_decl) - 1
    if kind == "enum":
        return around.enum_type.add(name=name)
    is_file = isinstance(around, descriptor_pb2.FileDescriptorProto)
    return (around.message_type if is_file else around.nested_type).add(name=name)


def _add_field(message, type_name: str, name: str, number: str, is_repeated: bool = False):
    label = _Field.LABEL_REPEATED if is_repeated else _Field.LABEL_OPTIONAL
    field = message.field.add(name=name, number=int(number), label=label)
    if type_name in _SCALARS:
        field.type = _SCALARS[type_name]
    else:
        field.type_name = type_name  # the pool finds the type, and whether it is a message or an enum
    return field


def _add_map(message, match: re.Match) -> None:
    """A map is a repeated message of a key and a value."""
    entry_name = "".join(word.capitalize() for word in match["map_name"].split("_")) + "Entry"
    entry = message.nested_type.add(name=entry_name)
    entry.options.map_entry = True
    _add_field(entry, match["key"], "key", "1")
    _add_field(entry, match["value"], "value", "2")
    _add_field(message, entry_name, match["map_name"], match["map_number"], is_repeated=True)


def _full_names(prefix: str, messages) -> Iterator[str]:
    for message in messages:
        if not message.options.map_entry:
            yield f"{prefix}.{message.name}"
            yield from _full_names(f"{prefix}.{message.name}", message.nested_type)

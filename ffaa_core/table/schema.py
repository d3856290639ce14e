"""The Arrow schemas of what a verdict table stores: a row, and a planned image.

A column is added at the end of its struct and raises `SCHEMA_VERSION`; none is renamed, retyped or removed.
"""

import pyarrow as pa

SCHEMA_VERSION = 1

BOX = pa.struct([pa.field(side, pa.int32(), nullable=False) for side in ("left", "top", "right", "bottom")])

ANSWER = pa.struct(
    [
        pa.field("question", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("result", pa.string()),
        pa.field("probability", pa.float64()),
        pa.field("forgery_type", pa.string()),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("constrained", pa.bool_(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("class_probabilities", pa.list_(pa.float64())),
        pa.field("match_score", pa.float64()),
    ]
)
"""One answer to one question; `class_probabilities` are four, or null where MIDS did not judge it."""

FACE = pa.struct(
    [
        pa.field("box", BOX, nullable=False),
        pa.field("detection_score", pa.float64()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("crop_sha256", pa.string(), nullable=False),
        pa.field("verdict", pa.string()),
        pa.field("forgery_type", pa.string()),
        pa.field("match_score", pa.float64()),
        pa.field("forgery_score", pa.float64()),
        pa.field("difficulty", pa.string()),
        pa.field("contested", pa.bool_()),
        pa.field("chosen", pa.string()),
        pa.field("description", pa.string()),
        pa.field("reasoning", pa.string()),
        pa.field("answers", pa.list_(ANSWER)),
        pa.field("crop", pa.large_binary()),
        pa.field("heatmap", pa.large_binary()),
    ]
)
"""One face. `crop` and `heatmap` are PNG bytes, null unless asked for; a shard's may exceed 2 GiB."""

ROW_SCHEMA = pa.schema(
    [
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("planned_version", pa.string()),
        pa.field("image_version", pa.string()),
        pa.field("image_sha256", pa.string()),
        pa.field("image_bytes", pa.int64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("format", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("status_detail", pa.string()),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("verdict", pa.string()),
        pa.field("forgery_score", pa.float64()),
        pa.field("contested", pa.bool_()),
        pa.field("n_faces_detected", pa.int32()),
        pa.field("n_faces", pa.int32()),
        pa.field("faces", pa.list_(FACE)),
        pa.field("run", pa.int32(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("scored_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ],
    metadata={"ffaa.schema_version": str(SCHEMA_VERSION)},
)
"""One row: one image under one fingerprint. `faces` is null where no face was looked for or found."""

_SHOWN = [field for field in FACE if not pa.types.is_large_binary(field.type)]

EXPORT_SCHEMA = pa.schema(
    [
        field.with_type(pa.list_(pa.struct(_SHOWN))) if field.name == "faces" else field
        for field in ROW_SCHEMA
    ],
    metadata=ROW_SCHEMA.metadata,
)
"""A row without pictures of its faces."""

EXPORT_COLUMNS = [
    *(name for name in ROW_SCHEMA.names if name != "faces"),
    *(f"faces.list.element.{field.name}" for field in _SHOWN),
]
"""The columns to read for it."""

KNOWN_SCHEMA = pa.schema(
    [
        ROW_SCHEMA.field(name)
        for name in ("image_uri", "planned_version", "image_version", "status", "attempts", "run")
    ],
    metadata=ROW_SCHEMA.metadata,
)
"""What planning needs of a row."""

PLAN_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("planned_version", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("attempts", pa.int32(), nullable=False),
    ],
    metadata={"ffaa.schema_version": str(SCHEMA_VERSION)},
)
"""One planned image. `attempts` counts the runs that tried it under the fingerprint, this one included."""

"""Every error this project raises on purpose, in one tree.

Errors say what was wrong, with what, and what to do. Those that can end a command carry its exit code.
Errors on one image never leave the stage they happen in: they become the image's status.
"""


class FFAAError(Exception):
    """Root of the tree. `exit_code` is what the command line exits with when this error reaches it."""

    exit_code = 2


class ConfigurationError(FFAAError):
    """A setting, option, path or credential is wrong. Told before any work starts."""


class BundleError(ConfigurationError):
    """A model bundle is missing, incomplete, or not what its digests say."""


class AdapterError(BundleError):
    """The LoRA adapter does not fit the model: a tensor maps to no module, or it changes no answer."""


class StorageError(FFAAError):
    """Storage failed for longer than the bounded retries allow."""

    exit_code = 75


class NotFoundError(StorageError):
    """The object asked for does not exist (any more)."""


class AlreadyExistsError(StorageError):
    """A create-only write found the object in place."""


class TableError(FFAAError):
    """The verdict table cannot be read or written as asked."""


class CorruptTableError(TableError):
    """What is stored contradicts itself: a checksum, a count, or a key does not match."""


class TornShardError(TableError):
    """Rows offered for a shard are not, key by key, the plan's rows of that shard."""


class RunConflictError(TableError):
    """Another run with other settings is open on this table."""

    exit_code = 75


class RunAbandonedError(TableError):
    """The run that was worked on has been abandoned; another run scores what has no row."""

    exit_code = 75


class JobError(FFAAError):
    """A distributed job ended before its work was done; what is committed stays."""

    exit_code = 75


class ExaminerError(FFAAError):
    """No process can be started to decode images in."""

    exit_code = 75


class ImageError(FFAAError):
    """One image cannot be scored for a reason that lies in its bytes. Becomes a row's status."""


class DecodeError(ImageError):
    """The bytes are not an image this project reads, or are damaged."""


class TooLargeError(ImageError):
    """The image exceeds the byte or pixel limit."""


class EngineError(FFAAError):
    """The answer engine could not answer one request."""

    exit_code = 75


class EngineDeadError(EngineError):
    """The answer engine is gone for good; its process must be replaced."""


class ContextLengthError(EngineError):
    """A conversation and the answer to it do not fit into the model's context."""

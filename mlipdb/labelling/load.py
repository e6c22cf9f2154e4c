"""From a teacher's name to a teacher."""

from mlipdb import registry
from mlipdb.labelling.foreign import ForeignTeacher
from mlipdb.labelling.teacher import LoadableTeacher, Teacher, TeacherOptions

GROUP = "mlipdb.teachers"
DEFAULTS = TeacherOptions()


def teacher_names() -> tuple[str, ...]:
    """Every teacher that can be asked for by name; nothing is imported."""
    return registry.names(GROUP)


def load_teacher(name: str, options: TeacherOptions = DEFAULTS) -> Teacher:
    """The teacher of a name; one with a colon, such as ``ase:module.Class``, is found by what stands before it.

    With options.worker_python it is loaded in that environment, which need not know what this one does.
    Raises ConfigError for an unknown name, MissingExtraError for a teacher that another package brings.
    """
    if options.worker_python is not None:
        return ForeignTeacher(name, options, python=options.worker_python)
    family = name.partition(":")[0]
    chosen: type[LoadableTeacher] = registry.load(GROUP, family)
    return chosen.load(name, options)

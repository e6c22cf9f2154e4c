"""From a teacher's name to a teacher."""

from mlipdb import registry
from mlipdb.errors import MissingExtraError
from mlipdb.labelling.foreign import ForeignTeacher
from mlipdb.labelling.teacher import LoadableTeacher, Teacher, TeacherOptions

GROUP = "mlipdb.teachers"
DEFAULTS = TeacherOptions()

# Well-known teachers whose adapters are not written yet, with what each will need; a name may go on after a dash.
PLANNED = {
    "esen": "mlipdb[fairchem]",
    "fairchem": "mlipdb[fairchem]",
    "m3gnet": "matgl",
    "matgl": "matgl",
    "tensornet": "matgl",
    "uma": "mlipdb[fairchem]",
}


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
    if family not in teacher_names():
        _refuse_planned(family)
        registry.check(GROUP, family, also=PLANNED)
    chosen: type[LoadableTeacher] = registry.load(GROUP, family)
    return chosen.load(name, options)


def _refuse_planned(name: str) -> None:
    word = name.lower()
    planned = next((known for known in PLANNED if word == known or word.startswith(f"{known}-")), None)
    if planned is None:
        return
    raise MissingExtraError(
        f"teacher {name!r} needs `pip install '{PLANNED[planned]}'`, and its adapter is not in this release of mlipdb "
        f"yet, so installing that is not enough today. Teachers in this release: {', '.join(teacher_names())}"
    )

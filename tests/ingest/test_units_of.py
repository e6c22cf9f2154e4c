"""--unit in every reader: a unit that is none, or that the format fixes, stops at once and says what to write."""

import pytest

from mlipdb import registry
from mlipdb.errors import ConfigError
from mlipdb.ingest.blocks import blocks
from mlipdb.ingest.units_of import checked_units
from mlipdb.testing.fuzzing import samples

READERS = registry.names("mlipdb.readers")


@pytest.fixture(scope="module")
def written(tmp_path_factory, request):
    """A sample of every reader by its name."""
    found = samples(request.path.parent, tmp_path_factory.mktemp("samples"))
    return {sample.name: sample for sample in found}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("unit", ["kcla/mol", "virial", "Å"])
def test_every_reader_refuses_a_unit_that_is_none_before_the_first_frame(written, name, unit):
    sample = written[name]
    options = {**sample.options, "units": {"energy": unit}}
    with pytest.raises(ConfigError, match=f"--unit energy={unit}: "):
        next(blocks(sample.reader, sample.path, file=sample.path.name, options=options))


def test_a_word_that_a_format_allows_is_for_its_quantity_alone():
    extra = {"stress": ("virial",)}
    assert checked_units({"stress": "virial"}, extra=extra) == {"stress": "virial"}
    with pytest.raises(ConfigError, match="no unit of energy"):
        checked_units({"energy": "virial"}, extra=extra)
    with pytest.raises(ConfigError, match=r"-virial: that is no unit of stress\. Did you mean 'virial'"):
        checked_units({"stress": "-virial"}, extra=extra)

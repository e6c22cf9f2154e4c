import io

import numpy as np
import pytest

from mlipdb.errors import CorruptError
from mlipdb.labelling.teacher import LabelRequest
from mlipdb.labelling.wire import (
    Message,
    pack_labels,
    pack_request,
    receive,
    send,
    unpack_labels,
    unpack_request,
)
from mlipdb.labels import FIELDS, Label
from mlipdb.structures import make_structure
from mlipdb.testing.potential import PairPotential
from mlipdb.testing.teachers import crystal, molecule, slab


def there_and_back(message):
    stream = io.BytesIO()
    send(stream, message)
    stream.seek(0)
    return receive(stream)


def test_structures_and_rows_arrive_as_they_were_sent():
    ion = make_structure([8, 1], [[0.0, 0.0, 0.0], [0.9, 0.0, 0.1]], charge=-1.0, spin_multiplicity=1)
    structures = [crystal(), ion, slab()]
    rows = [np.array([5, 0], np.int32), np.zeros(0, np.int32), np.array([3], np.int32)]
    request = LabelRequest(base=False, hessian_row_numbers=rows)
    found, asked = unpack_request(there_and_back(pack_request(structures, request)))
    assert [item.content_hash for item in found] == [item.content_hash for item in structures]
    assert [item.pbc for item in found] == [item.pbc for item in structures]
    assert [item.charge for item in found] == [None, -1.0, None]
    assert not asked.base
    assert [numbers.tolist() for numbers in asked.hessian_row_numbers] == [[5, 0], [], [3]]


def test_labels_arrive_with_every_bit():
    structures = [crystal(), molecule(), slab()]
    rows = [np.array([5, 0], np.int32), np.zeros(0, np.int32), np.array([3], np.int32)]
    labels = PairPotential().label(structures, LabelRequest(base=True, hessian_row_numbers=rows))
    found = unpack_labels(there_and_back(pack_labels(labels)))
    assert [label.content_hash for label in found] == [label.content_hash for label in labels]


def test_every_field_of_a_label_arrives():
    whole = Label(
        **{name: 0.1 * place for place, name in enumerate(FIELDS[:5])},
        forces=np.full((2, 3), 1 / 3),
        stress=np.eye(3),
        magmoms=np.array([0.5, -0.5]),
        atomic_energies=np.array([-1.0, -2.0]),
        atomic_energies_include_e0=False,
        hessian_row_numbers=np.array([4], np.int32),
        hessian_rows=np.full((1, 2, 3), 1 / 7),
        properties={"dipole": 0.3},
    )
    assert all(getattr(whole, name) is not None for name in FIELDS if not name.startswith("method"))
    found, nothing = unpack_labels(there_and_back(pack_labels([whole, Label()])))
    assert found.content_hash == whole.content_hash
    assert nothing.content_hash == Label().content_hash


def test_a_message_that_is_cut_is_the_end_at_every_byte():
    stream = io.BytesIO()
    send(stream, Message("labels", {"a": 1}, {"x": np.arange(3.0)}))
    whole = stream.getvalue()
    assert receive(io.BytesIO(whole)) is not None
    assert all(receive(io.BytesIO(whole[:length])) is None for length in range(len(whole)))


def test_text_between_messages_is_an_error_that_shows_it():
    with pytest.raises(CorruptError, match="Downloading weig"):
        receive(io.BytesIO(b"Downloading weights: 100%"))


def test_an_array_of_objects_is_refused():
    stream = io.BytesIO()
    send(stream, Message("labels", {}, {"x": np.array([1.0 + 2j])}))
    stream.seek(0)
    with pytest.raises(CorruptError, match="'<c16'"):
        receive(stream)

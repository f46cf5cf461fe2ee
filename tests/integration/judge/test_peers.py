"""The opposite error: right implementations that look nothing like ours are right here too, and no bug is seen in them.

`pytest --peers` runs the whole suite against them.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import peers
from tests.cases import target
from tests.cases.calls import arguments, drawn
from tests.judge.assertions import assert_equals_naive
from tests.judge.subject import Subject
from tests.judge.telling.diagnosis import diagnose

SUBJECTS = [Subject(layer, peer) for peer in peers.everything(compiled=False) for layer in peer.layers]
pytestmark = pytest.mark.filterwarnings("ignore")  # a layer of others may warn


@pytest.mark.parametrize("peer", SUBJECTS, ids=str)
@given(data=st.data())
def test_it_equals_the_naive_loops(peer, data):
    args, kwargs = arguments(peer.layer, data.draw(drawn(peer.layer, target.ALL, layouts=True)))
    assert_equals_naive(peer, *args, **kwargs)


@pytest.mark.parametrize("peer", SUBJECTS, ids=str)
def test_the_diagnosis_is_silent(peer):
    assert diagnose(peer.layer, peer.function) == []

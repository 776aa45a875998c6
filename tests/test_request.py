import json

import pytest

from stabdiag.settings.request import ScanRequest


def test_a_request_survives_json():
    request = ScanRequest(
        "net.py:Net", arguments={"width": 8}, inputs=["8x3"], thresholds={"SD201": {"error_share": 0.6}}, clip=1.0
    )
    assert ScanRequest.from_dict(json.loads(json.dumps(request.to_dict()))) == request


def test_a_key_without_a_field_is_refused():
    with pytest.raises(TypeError, match="precision"):
        ScanRequest.from_dict({"target": "net.py", "precision": "float16"})

"""Which files are specs."""

from __future__ import annotations

import pytest

from deploycheck.language import is_spec, near_miss


@pytest.mark.parametrize(
    "text",
    [
        "deploycheck: 1\n",
        "# top\n---\nname: x\ndeploycheck: 2\n",
        "'deploycheck': 1\n",
        '"deploycheck" : 1\n',
        "\ufeffdeploycheck: 1\n",
        '{"deploycheck": 1, "name": "x"}',
        '{"name": "x",\n "deploycheck": 1}\n',
        "{name: x, deploycheck: 1}",
        "  deploycheck: 1\n  name: x\n",
        "? deploycheck\n: 1\n",
        "name: {a: [1, {b: 2}]}\n? deploycheck\n: 1\n",
        "a: *b: c\ndeploycheck: 1\n",
    ],
)
def test_a_file_that_says_it_is_a_spec_is_one(text: str) -> None:
    assert is_spec(text)
    assert near_miss(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1\n",
        "a:\n  deploycheck: 1\n",
        "# deploycheck: 1\n",
        "x: deploycheck: 1\n",
        '{"a": {"deploycheck": 1}}',
        "[deploycheck]",
        "? {deploycheck: 1}\n: 2\n",
        "- deploycheck: 1\n",
        "deploycheck",
        "a: deploycheck\n",
        "{{ deploycheck }}",
    ],
)
def test_a_file_that_does_not_is_not_one(text: str) -> None:
    assert not is_spec(text)


@pytest.mark.parametrize("key", ["deploychek", "deploy_check", "deploy-check", "Deploycheck", "deploycheck1"])
def test_a_key_that_was_meant_so_is_a_near_miss(key: str) -> None:
    assert near_miss(f"name: x\n{key}: 1\n") == key
    assert near_miss(f'{{"name": "x", "{key}": 1}}') == key
    assert near_miss(f"  name: x\n  {key}: 1\n") == key


@pytest.mark.parametrize(
    "text", ["", "deploy: 1\n", "name: x\n", "a:\n  deploychek: 1\n", "check: 1\n", "a: deploychek\n", "[deploychek]"]
)
def test_any_other_key_is_not_a_near_miss(text: str) -> None:
    assert near_miss(text) is None

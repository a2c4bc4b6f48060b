"""The devices of a node, from the configuration file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cranehooks.model.gres import NodeDevice, device_types
from cranehooks.model.ids import NodeName
from cranehooks.settings import load
from cranehooks.settings.cluster import NodeSettings
from cranehooks.settings.devices import device_paths
from cranekit.yaml_lines import SettingsError

Write = Callable[[str], Path]

LISTED = """\
ClusterName: test
Nodes:
  - name: cn01
    address: 127.0.0.1:1
    gres:
      - name: gpu
        type: a100
        files: ["/dev/nvidia[0-1]"]
      - {name: nic}
      - name: gpu
        type: v100
        count: 1
        files: [[/dev/dri/card0, "/dev/dri/renderD[128-129]"]]
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write_file


def node_of(path: Path) -> NodeSettings:
    return load(path).nodes[NodeName("cn01")]


def test_a_list_names_files_and_numbers_the_devices_of_each_name(write: Write) -> None:
    node = node_of(write(LISTED))

    assert node.gres == "gpu:a100:2,nic:1,gpu:v100:1"
    assert node.devices == (
        NodeDevice("gpu", 0, "a100", ("/dev/nvidia0",)),
        NodeDevice("gpu", 1, "a100", ("/dev/nvidia1",)),
        NodeDevice("nic", 0),
        NodeDevice("gpu", 2, "v100", ("/dev/dri/card0", "/dev/dri/renderD128", "/dev/dri/renderD129")),
    )
    numbered = [device.type for device in node.devices if device.name == "gpu"]
    assert device_types(node.gres)["gpu"] == tuple(numbered)


def test_a_text_and_a_list_of_the_same_mean_the_same(write: Write) -> None:
    beginning, _, _ = LISTED.partition("    gres:")
    as_text = load(write(f"{beginning}    gres: 'gpu:a100:2, nic:1'\n"))
    as_list = load(write(f"{beginning}    gres: [{{name: gpu, type: a100, count: 2}}, {{name: nic}}]\n"))

    assert as_text.nodes == as_list.nodes
    assert node_of(write(f"{beginning}    gres: ''\n")).devices == ()


@pytest.mark.parametrize(
    ("gres", "problem"),
    [
        ("5", "5:11: gres: expected a text such as gpu:a100:4, or a list of entries"),
        ("gpu", "5:11: gres: expected name:count or name:type:count"),
        ("gpu:0", "5:11: gres: expected name:count or name:type:count"),
        ("[gpu]", "5:12: gres: expected a mapping of keys, not 'gpu'"),
        ("[{type: a100}]", "name is missing"),
        ("[{name: gpu, file: [/dev/x]}]", "5:24: unknown key file: did you mean files?"),
        ("[{name: 'a b'}]", "5:19: name: 'a b' does not match"),
        ("[{name: gpu, count: 0}]", "5:31: count: must be at least 1, not 0"),
        ("[{name: gpu, count: two}]", "5:31: count: expected a whole number, not 'two'"),
        ("[{name: gpu, files: /dev/x}]", "5:31: files: expected a list of device files, not '/dev/x'"),
        ("[{name: gpu, files: [dev/x]}]", "5:31: files: expected the absolute path of a device file"),
        ("[{name: gpu, files: [/dev/]}]", "5:31: files: '/dev/' is a directory"),
        ("[{name: gpu, files: ['/dev/x[3-1]']}]", "names no device files"),
        ("[{name: gpu, files: [/dev/x, 5]}]", "expected device files, or a list of them for one device, not 5"),
        ("[{name: gpu, files: [/dev/x, /dev/x]}]", "/dev/x stands there twice"),
        ("[{name: gpu, count: 3, files: ['/dev/x[0-1]']}]", "count is 3, but files names 2 devices"),
        ("[{name: gpu, files: [/dev/x]}, {name: nic, files: [/dev/x]}]", "5:11: gres: /dev/x is a file of entry 1 already"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(write: Write, gres: str, problem: str) -> None:
    beginning, _, _ = LISTED.partition("    gres:")
    with pytest.raises(SettingsError) as wrong:
        load(write(f"{beginning}    gres: {gres}\n"))
    assert problem in str(wrong.value)


def test_brackets_stand_for_numbers() -> None:
    assert device_paths("/dev/nvidia[0-1,4]") == ["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia4"]
    assert device_paths("/dev/nvidia0") == ["/dev/nvidia0"]

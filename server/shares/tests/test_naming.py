"""The names of users' cgroups with both drivers."""

import pytest

from server.containers.spec.build import check_cgroup_parent
from server.containers.spec.host import CGROUPFS, SYSTEMD
from server.shares.naming import Group, group_of, is_group, user_group


@pytest.mark.parametrize(
    ("owner", "parent", "group"),
    [
        ("alice", "", Group("/wharf/@alice", "/wharf/@alice")),
        ("alice", "/lab/", Group("/lab/@alice", "/lab/@alice")),
        ("alice:0f3c", "lab", Group("/lab/@alice/@0f3c", "/lab/@alice/@0f3c")),
    ],
)
def test_directories(owner: str, parent: str, group: Group) -> None:
    assert group_of(owner, parent, CGROUPFS) == group


@pytest.mark.parametrize(
    ("owner", "parent", "name", "path"),
    [
        ("alice", "", "wharf-alice.slice", "/wharf.slice/wharf-alice.slice"),
        ("alice", "system.slice", "wharf-alice.slice", "/wharf.slice/wharf-alice.slice"),
        ("alice", "-.slice", "wharf-alice.slice", "/wharf.slice/wharf-alice.slice"),
        ("alice", "a-lab.slice", "a-lab-alice.slice", "/a.slice/a-lab.slice/a-lab-alice.slice"),
        # A dash would make the user of this name a part of the user jean.
        ("jean-luc", "", "wharf-jean\\x2dluc.slice", "/wharf.slice/wharf-jean\\x2dluc.slice"),
        ("a+b@c$", "", "wharf-a\\x2bb\\x40c\\x24.slice", "/wharf.slice/wharf-a\\x2bb\\x40c\\x24.slice"),
        (
            "alice:0f3c",
            "",
            "wharf-alice-0f3c.slice",
            "/wharf.slice/wharf-alice.slice/wharf-alice-0f3c.slice",
        ),
    ],
)
def test_slices(owner: str, parent: str, name: str, path: str) -> None:
    assert group_of(owner, parent, SYSTEMD) == Group(name, path)
    check_cgroup_parent(name, SYSTEMD)
    assert is_group(name, parent, SYSTEMD)


def test_a_long_name_is_a_valid_unit() -> None:
    names = {group_of("a" + "-" * 62 + last, "", SYSTEMD).parent for last in "ab"}
    assert len(names) == 2
    assert all(len(name) < 128 for name in names)


def test_the_cgroup_of_a_job_is_below_that_of_its_user() -> None:
    for driver in (CGROUPFS, SYSTEMD):
        assert user_group("alice:0f3c", "", driver) == group_of("alice", "", driver)
        assert group_of("alice:0f3c", "", driver).path.startswith(group_of("alice", "", driver).path + "/")


def test_other_groups_are_not_users() -> None:
    assert not is_group("0f" * 32, "", CGROUPFS)
    assert not is_group("docker-1.scope", "", SYSTEMD)

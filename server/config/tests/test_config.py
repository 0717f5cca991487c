"""Flags and configuration file: parsing, merging, and errors."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from server.config import AddressPool, BuilderGc, Config, ConfigError, GcRule, Ulimit, load, reload
from server.config.check import parse_mark
from server.config.hosts import Host, parse_host
from server.config.options import OPTIONS


def read(tmp_path: Path, document: Any = None, *flags: str) -> Config:
    file = tmp_path / "daemon.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document or {}))
    return load(["--config-file", str(file), *flags])[0]


def test_defaults(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert config.hosts == ("unix:///run/wharf/docker.sock",)
    assert (config.log_driver, config.group, config.shutdown_timeout) == ("json-file", "docker", 15)
    assert config.builder == BuilderGc()
    assert config.embedded
    assert read(tmp_path, {}, "--exec-root", "/x").pidfile == Path("/x/wharfd.pid")


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = read(tmp_path, {"tlscert": "../cert.pem"}, "--tlskey", "key.pem", "--data-root", "data")
    assert (config.tlskey, config.tlscert) == (f"{tmp_path}/key.pem", f"{tmp_path.parent}/cert.pem")
    assert (config.data_root, config.tlscacert) == (tmp_path / "data", "")


def test_a_reload_in_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.json").write_text("{}")
    _, given = load(["--config-file", "own.json"])
    monkeypatch.chdir("/")
    (tmp_path / "own.json").write_text('{"authorization-plugins": ["a"]}')
    assert reload(given).authorization_plugins == ("a",)


def test_authorization_plugins_in_their_order(tmp_path: Path) -> None:
    words = ("--authorization-plugin", "b", "--authorization-plugin=a")
    assert read(tmp_path).authorization_plugins == ()
    assert read(tmp_path, {}, *words).authorization_plugins == ("b", "a")
    assert read(tmp_path, {"authorization-plugins": ["b", "a"]}).authorization_plugins == ("b", "a")
    both = r"authorization-plugins: \(from flag: \[b a\], from file: \[c\]\)"
    with pytest.raises(ConfigError, match=both):
        read(tmp_path, {"authorization-plugins": ["c"]}, *words)


def test_flags_in_all_their_spellings(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        None,
        *("-D", "-Hunix:///a", "-H", "tcp://:1", "--host=fd://", "-l", "warn", "--mtu=1400", "--icc=false"),
        *("--default-ulimit", "nofile=1:2", "--default-address-pool", "base=10.0.0.0/16,size=24"),
        *("--log-opt", "max-size=1m", "--label", "a=b", "--add-runtime", "mine=/bin/true", "-G", "wheel"),
    )
    assert (config.debug, config.hosts) == (True, ("unix:///a", "tcp://:1", "fd://"))
    assert (config.log_level, config.mtu, config.icc, config.group) == ("warn", 1400, False, "wheel")
    assert config.default_ulimits == {"nofile": Ulimit("nofile", 1, 2)}
    assert config.default_address_pools == (AddressPool("10.0.0.0/16", 24),)
    assert (config.log_opts, config.labels) == ({"max-size": "1m"}, ("a=b",))
    assert config.runtimes["mine"].path == "/bin/true"


def test_the_file_in_all_its_types(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        {
            "debug": True,
            "hosts": ["unix:///a"],
            "mtu": 1400,
            "proxies": {"http-proxy": "http://p"},
            "default-shm-size": "32M",
            "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 2, "Soft": 1}},
            "default-address-pools": [{"base": "10.0.0.0/16", "size": 24}],
            "runtimes": {"mine": {"path": "/bin/true", "runtimeArgs": ["-a"]}},
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "builder": {
                "gc": {
                    "enabled": True,
                    "defaultKeepStorage": "20GB",
                    "policy": [{"keepStorage": "5%", "filter": ["unused-for=48h"]}, {"all": True, "minFreeSpace": 7}],
                }
            },
        },
    )
    assert (config.debug, config.mtu, config.http_proxy) == (True, 1400, "http://p")
    assert config.default_shm_size == 32 * 1024 * 1024
    assert config.default_ulimits == {"nofile": Ulimit("nofile", 1, 2)}
    assert config.runtimes["mine"].args == ("-a",)
    assert config.exec_opts == {"native.cgroupdriver": "cgroupfs"}
    rules = (GcRule((("unused-for", "48h"),), reserved="5%"), GcRule(everything=True, free=7))
    assert config.builder == BuilderGc(rules=rules, reserved=20 * 1024**3)
    assert config.given["mtu"] == "file"


def test_cdi_can_be_switched_off(tmp_path: Path) -> None:
    assert read(tmp_path, {"features": {"cdi": True}}).cdi_spec_dirs == ("/etc/cdi", "/var/run/cdi")
    assert read(tmp_path, {"features": {"cdi": False}}, "--cdi-spec-dir", "/a").cdi_spec_dirs == ()
    assert read(tmp_path, {}, "--cdi-spec-dir", "/a").cdi_spec_dirs == ("/a",)
    assert read(tmp_path, {}, "--cdi-spec-dir=").cdi_spec_dirs == read(tmp_path, {"cdi-spec-dirs": []}).cdi_spec_dirs
    assert read(tmp_path, {}, "--cdi-spec-dir=").cdi_spec_dirs == ()


def test_features_as_flags(tmp_path: Path) -> None:
    assert read(tmp_path, {}, "--feature", "cdi=false").cdi_spec_dirs == ()
    assert read(tmp_path, {}, "--feature", "cdi=false", "--feature=cdi").cdi_spec_dirs != ()
    read(tmp_path, {}, "--feature", "containerd-snapshotter=true")
    for flag, words in (
        ("containerd-snapshotter=0", "feature containerd-snapshotter can't be switched off in this engine"),
        ("cdi=maybe", 'invalid argument "cdi=maybe" for "--feature" flag: strconv.ParseBool: parsing "maybe"'),
        ("=true", 'invalid argument "=true" for "--feature" flag: invalid option name: =true'),
    ):
        with pytest.raises(ConfigError) as raised:
            read(tmp_path, {}, "--feature", flag)
        assert words in str(raised.value)
    with pytest.raises(
        ConfigError, match=r"file: features: \(from flag: map\[cdi:true\], from file: map\[cdi:false\]\)"
    ):
        read(tmp_path, {"features": {"cdi": False}}, "--feature", "cdi")


def test_what_dockerd_29_added(tmp_path: Path) -> None:
    config = read(tmp_path, {"features": {"strict-api": True}, "default-stop-timeout": 3, "min-api-version": "1.40"})
    assert (config.strict_api, config.default_stop_timeout, config.oldest_version) == (True, 3, (1, 40))
    assert not read(tmp_path).strict_api
    for text, mark in (("0x10/0xff", (16, 255)), ("7", (7, None)), ("010/0b11", (8, 3))):
        assert parse_mark(read(tmp_path, {}, "--bridge-accept-fwmark", text).bridge_accept_fwmark) == mark
    for document, words in (
        ({"default-stop-timeout": -1}, "invalid default stop timeout: -1"),
        ({"min-api-version": "1.23"}, "minimum supported API version is 1.24: 1.23"),
        ({"min-api-version": "1.99"}, "maximum supported API version is 1.55: 1.99"),
        ({"min-api-version": "v1.40"}, 'API version must be provided without "v" prefix'),
        ({"bridge-accept-fwmark": "1/x"}, 'invalid firewall mask "1/x"'),
        ({"bridge-accept-fwmark": "4294967296"}, 'invalid firewall mark "4294967296"'),
    ):
        with pytest.raises(ConfigError, match=re.escape(words)):
            read(tmp_path, document)


def test_blobs_are_dropped_by_the_own_supervisor_only(tmp_path: Path) -> None:
    assert not read(tmp_path).drops_blobs
    assert read(tmp_path, {}, "--feature", "drop-blobs").drops_blobs
    assert not read(tmp_path, {}, "--feature", "drop-blobs=false", "--containerd", "/c.sock").drops_blobs
    with pytest.raises(ConfigError, match="feature drop-blobs needs the engine's own supervisor"):
        read(tmp_path, {"features": {"drop-blobs": True}}, "--containerd", "/c.sock")


def test_restart_is_a_flag_only(tmp_path: Path) -> None:
    assert read(tmp_path).restart
    assert not read(tmp_path, {}, "--restart=false").restart
    assert not read(tmp_path, {}, "-r=false").restart
    with pytest.raises(ConfigError, match="the following directives don't match any configuration option: restart"):
        read(tmp_path, {"restart": False})


def test_settings_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_MIN_API_VERSION", "1.44")
    monkeypatch.setenv("DOCKER_DRIVER", "native")
    config = read(tmp_path, {}, "--storage-driver", "overlayfs")
    assert (config.oldest_version, config.storage_driver) == ((1, 44), "native")
    assert read(tmp_path, {"min-api-version": "1.40"}).oldest_version == (1, 40)
    for version, words in (("1.9", "minimum supported API version is 1.24: 1.9"), ("new", "new")):
        monkeypatch.setenv("DOCKER_MIN_API_VERSION", version)
        with pytest.raises(ConfigError, match=f"^invalid DOCKER_MIN_API_VERSION: {words}$"):
            read(tmp_path)
    monkeypatch.setenv("DOCKER_MIN_API_VERSION", "")
    monkeypatch.setenv("DOCKER_DRIVER", "btrfs")
    with pytest.raises(ConfigError, match='storage driver "btrfs" is not supported'):
        read(tmp_path)


def test_snapshotters_of_other_processes(tmp_path: Path) -> None:
    stargz = "/run/containerd-stargz-grpc/containerd-stargz-grpc.sock"
    config = read(tmp_path, {"proxy-snapshotters": {"stargz": stargz}, "storage-driver": "stargz"})
    assert (dict(config.proxy_snapshotters), config.storage_driver) == ({"stargz": stargz}, "stargz")
    words = ("--proxy-snapshotter", f"stargz={stargz}")
    assert dict(read(tmp_path, {}, *words).proxy_snapshotters) == {"stargz": stargz}
    for wrong, sentence in (
        ("overlayfs=/run/a.sock", 'invalid name of a proxy snapshotter: "overlayfs"'),
        ("a/b=/run/a.sock", 'invalid name of a proxy snapshotter: "a/b"'),
        ("a=a.sock", 'proxy snapshotter a: "a.sock" is not the absolute path of a unix socket'),
    ):
        with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
            read(tmp_path, {}, "--proxy-snapshotter", wrong)
    with pytest.raises(ConfigError, match='storage driver "stargz" is not supported'):
        read(tmp_path, {}, "--storage-driver", "stargz")
    # A stock containerd has its own.
    stock = ("--containerd", "/run/containerd/containerd.sock")
    assert read(tmp_path, {}, *stock, "--storage-driver", "stargz").storage_driver == "stargz"
    with pytest.raises(ConfigError, match="are configured in the containerd"):
        read(tmp_path, {}, *stock, *words)


@pytest.mark.parametrize("name", ["DOCKER_RAMDISK", "DOCKER_TMPDIR", "DOCKER_INSECURE_NO_IPTABLES_RAW"])
def test_variables_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigError, match=f"^the environment variable {name} is not supported: "):
        read(tmp_path)


def test_only_runtimes_may_be_in_flags_and_file(tmp_path: Path) -> None:
    document = {"runtimes": {"one": {"path": "/bin/one"}}}
    assert set(read(tmp_path, document, "--add-runtime", "two=/bin/two").runtimes) == {"one", "two"}
    with pytest.raises(ConfigError, match=r"both as a flag and in the configuration file: hosts: \(from flag: \[unix"):
        read(tmp_path, {"hosts": ["unix:///a"]}, "-H", "unix:///b")
    with pytest.raises(ConfigError, match="http://xxxxx:xxxxx@b, from file: http://xxxxx:xxxxx@a"):
        read(tmp_path, {"http-proxy": "http://u:p@a"}, "--http-proxy", "http://u:p@b")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"nosuch": 1, "other": 2}, "the following directives don't match any configuration option: nosuch, other"),
        ({"debug": "x"}, "cannot unmarshal string into Go struct field Config.debug of type bool"),
        ({"hosts": [1]}, "cannot unmarshal number into Go struct field Config.hosts of type string"),
        ("[]", "cannot unmarshal array into Go value of type map"),
        ("{", "unexpected end of JSON input"),
        ({"labels": ["a"]}, "bad attribute format: a"),
        ({"labels": ["a=b", "a=c"]}, "conflict labels for a=c and a=b"),
        ({"mtu": -1}, "merged configuration validation from file and command line flags failed: invalid default MTU"),
        ({"bip": "10.0.0.0/24"}, "not the address of a host"),
        ({"dns": ["x"]}, "invalid IP address: x"),
        ({"log-driver": "nosuch"}, "no log driver named 'nosuch' is registered"),
        ({"registry-mirrors": ["ftp://x"]}, "invalid mirror"),
        ({"insecure-registries": ["http://x"]}, "should not contain '://'"),
        ({"default-runtime": "nosuch"}, "specified default runtime 'nosuch' does not exist"),
        ({"runtimes": {"runc": {"path": "/x"}}}, "runtime name 'runc' is reserved"),
        ({"exec-opts": ["native.cgroupdriver=x"]}, "invalid cgroup driver 'x'"),
        ({"features": {"nosuch": True}}, "feature nosuch can't be switched on"),
        ({"builder": {"gc": {"policy": [{"nosuch": 1}]}}}, "builder.gc.policy.nosuch is not supported"),
        ({"hosts": ["foo://x"]}, "unsupported proto 'foo'"),
    ],
)
def test_errors_name_the_option(tmp_path: Path, document: Any, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, document)
    assert words in str(raised.value)
    assert str(raised.value).startswith("unable to configure the Docker daemon with file ") or "builder" not in words


def test_every_option_that_is_refused_says_so_by_name(tmp_path: Path) -> None:
    examples: dict[str, Any] = {"bool": True, "int": 7, "string": "x", "list": ["x=y"], "map": {"x": "y"}, "bytes": 7}
    examples["name[=bool]"] = {"enable": True}
    for option in OPTIONS:
        if option.refused and option.allowed is not True:
            with pytest.raises(ConfigError, match=rf"^{option.name} is not supported: "):
                read(tmp_path, {option.name: examples[option.kind.value]})


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("unix:///a/b", Host("unix", "/a/b")),
        ("unix://", Host("unix", "/run/wharf/docker.sock")),
        ("unix:///a/b?mode=0666", Host("unix", "/a/b", mode=0o666)),
        ("unix:///a?scope=read", Host("unix", "/a", scope="read")),
        ("fd://", Host("fd")),
        ("fd://name", Host("fd", "name")),
        ("tcp://", Host("tcp", address="127.0.0.1", port=2375)),
        ("tcp://0.0.0.0:99", Host("tcp", address="0.0.0.0", port=99)),
        ("tcp://[::1]:99", Host("tcp", address="::1", port=99)),
        ("tcp://[::1]", Host("tcp", address="::1", port=2375)),
        ("10.0.0.1", Host("tcp", address="10.0.0.1", port=2375)),
    ],
)
def test_hosts(text: str, host: Host) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "foo://x",
        "unix://relative",
        "tcp://x:99999",
        "tcp://x:y",
        "tcp://a/b",
        "unix:///" + 120 * "x",
        "unix:///a?mode=9",
        "unix:///a?m=1",
        "unix:///a?scope=",
    ],
)
def test_bad_hosts(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^invalid (unix )?bind address"):
        parse_host(text)


def test_a_socket_for_everybody_needs_a_policy(tmp_path: Path) -> None:
    words = ("-H", f"unix://{tmp_path}/users.sock?mode=0666", "--policy-file")
    with pytest.raises(ConfigError, match="a socket for everybody needs a policy"):
        read(tmp_path, {}, *words, "")
    with pytest.raises(ConfigError, match="no such file"):
        read(tmp_path, {}, *words, str(tmp_path / "policy.toml"))
    (tmp_path / "policy.toml").touch()
    assert read(tmp_path, {}, *words, str(tmp_path / "policy.toml")).policy_file == str(tmp_path / "policy.toml")

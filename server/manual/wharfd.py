"""``wharfd`` as its table of options describes it."""

import re

from server.config.option import Kind, Option
from server.config.options import OPTIONS
from server.manual.command import Command, Flag, Section

# The values that a help text lists: ("debug" | "info").
_CHOICES = re.compile(r'\("[^)]*"\)')
_SINGLE = frozenset({Kind.TEXT, Kind.BOOL, Kind.INT, Kind.BYTES})


def wharfd() -> Command:
    shown = [option for option in OPTIONS if not option.refused]
    return Command(
        name="wharfd",
        summary="a Docker Engine",
        description=(
            "wharfd serves the Docker Engine API. It takes the flags of dockerd, and its configuration file has the "
            "keys of dockerd's. A setting may be a flag or a key, not both; one that is not supported is refused at "
            "the start, by name.",
            "Containers and their logs outlive the daemon: it can be stopped, killed or upgraded while they run.",
        ),
        flags=tuple(_flag(option) for option in shown if not option.only_file),
        sections=(
            Section(
                title="KEYS WITHOUT A FLAG",
                text=("Keys of the configuration file that no flag sets:",),
                terms=tuple((option.name, _sentence(option)) for option in shown if option.only_file),
            ),
            Section(
                title="SETTINGS THAT ARE REFUSED",
                text=("Of dockerd's flags and keys, these are refused with any other value than dockerd's default:",),
                terms=tuple((option.name, _ended(option.refused)) for option in OPTIONS if option.refused),
            ),
            Section(
                title="SIGNALS",
                terms=(
                    ("SIGHUP", "Reads the configuration file again and applies the keys that are marked as reloaded."),
                    ("SIGTERM, SIGINT", "Stops the daemon; containers continue."),
                    ("SIGUSR1", "Writes the stack of each thread and task to the log."),
                ),
            ),
            Section(
                title="FILES",
                terms=(
                    ("/etc/wharf/daemon.json", "The configuration, JSON."),
                    ("/etc/wharf/policy.toml", "Who may use the engine. Without it every client is an administrator."),
                    ("/etc/docker/certs.d", "Certificates and hosts.toml of each registry."),
                    ("/var/lib/wharf", "Images, volumes and the state of containers."),
                    ("/run/wharf/docker.sock", "The socket of the API. Who may connect to it is root on this machine."),
                ),
            ),
            Section(title="SEE ALSO", text=("docker(1), systemctl(1), journalctl(1)",)),
        ),
    )


def _flag(option: Option) -> Flag:
    notes = []
    if not option.only_flag and option.name != option.flag:
        notes.append(f"Key: {option.name}.")
    if option.only_flag:
        notes.append("It has no key in the file.")
    if option.reloads:
        notes.append("Reloaded by SIGHUP.")
    listed = _CHOICES.search(option.help)
    return Flag(
        long=option.flag,
        short=option.short,
        help=option.help,
        value="" if option.kind is Kind.BOOL else option.kind.value,
        choices=tuple(re.findall(r'"([^"]+)"', listed[0])) if listed else (),
        repeats=option.kind not in _SINGLE,
        notes=tuple(notes),
    )


def _sentence(option: Option) -> str:
    return _ended(option.help) + (" Reloaded by SIGHUP." if option.reloads else "")


def _ended(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."

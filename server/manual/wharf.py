"""``wharf`` as its parser describes it."""

from server.cli.client import DEFAULT_HOST
from server.cli.parser import SUMMARY, make_parser
from server.manual.command import Command, Section, from_parser


def wharf() -> Command:
    return from_parser(
        make_parser(),
        summary=SUMMARY,
        sections=(
            Section(
                title="ENVIRONMENT",
                terms=(
                    ("WHARF_HOST", "The engine's socket, unix:///PATH. It precedes DOCKER_HOST."),
                    ("DOCKER_HOST", f"The same, for the docker CLI, too. Without both: {DEFAULT_HOST}."),
                ),
            ),
            Section(
                title="EXIT STATUS",
                terms=(
                    ("0", "The command succeeded."),
                    ("1", "The engine can't be reached or refuses the request, or the policy file is invalid."),
                    ("2", "The arguments are wrong."),
                ),
            ),
            Section(
                title="FILES",
                terms=(
                    ("/etc/wharf/policy.toml", "The policy: who may use the engine, with which rights and limits."),
                    ("/run/wharf/users.sock", "By convention, the engine's socket for all users."),
                ),
            ),
            Section(title="SEE ALSO", text=("wharfd(8), docker(1)",)),
        ),
    )

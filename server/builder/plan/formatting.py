"""Formats instructions for the image history and the progress display; checks words that need no state."""

import json
import re
import signal
from collections.abc import Container, Mapping, Sequence

from server.builder.dockerfile import instructions as ins
from server.builder.dockerfile.errors import DockerfileError, Span
from server.builder.dockerfile.expand import Budget, expand_known
from server.builder.plan.model import PROXIES, Options
from server.builder.plan.steps import FILES, Copy

_NAMES = "|".join(name.name.removeprefix("SIG") for name in signal.Signals)
SIGNAL = re.compile(rf"\d+|(SIG)?({_NAMES}|RTMIN(\+\d+)?|RTMAX(-\d+)?)")


def refuse_flags(item: ins.Instruction, *names: str) -> None:
    """Refuse flags that only BuildKit supports. Raises :class:`DockerfileError` in dockerd's words."""
    for word in item.original.split()[1:]:
        if not word.startswith("--"):
            return
        if (name := word[2:].partition("=")[0]) in names:
            raise DockerfileError(
                f"the --{name} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to "
                "build images with BuildKit enabled",
                item.span,
            )


def refuse_variable(options: Options, from_: str) -> None:
    """``--from`` expands no variables. Raises :class:`DockerfileError` in BuildKit's words."""
    if "$" in from_ and not options.classic:
        raise DockerfileError(
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope "
            "as a workaround"
        )


def proxies(given: Mapping[str, str | None], env: Container[str], *, both: bool) -> dict[str, str]:
    """Return the client's proxy variables, without those that the image sets. ``both``: in lower and upper case, as
    BuildKit does."""
    found: dict[str, str] = {}
    for name, value in given.items():
        if name.lower() in PROXIES and value is not None:
            found[name] = value
            for other in (name.upper(), name.lower()) if both else ():
                if other not in given:
                    found[other] = value
    return {name: value for name, value in found.items() if name not in env}


def check_checksum(checksum: str, urls: Sequence[str], span: Span) -> None:
    """Check ``--checksum`` of an ``ADD``. Raises :class:`DockerfileError` in BuildKit's words."""
    if _COMMIT.fullmatch(checksum) and urls and not any(url.startswith("http") and ".git" not in url for url in urls):
        return
    if not _DIGEST.fullmatch(checksum):
        raise DockerfileError("invalid checksum digest format", span)
    if not urls:
        raise DockerfileError("checksum can't be specified for non-HTTP sources", span)


_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_DIGEST = re.compile(r"(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})")


def quoted(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def is_url(source: str) -> bool:
    return source.startswith(("http://", "https://", "git@", "git://", "ssh://")) or source.endswith(".git")


def copied_classic(name: str, operation: Copy) -> str:
    """Format a copy as in the classic builder's history, with a placeholder for the copied files."""
    owner = f"--chown={operation.chown} " if operation.chown else ""
    return f"/bin/sh -c #(nop) {name} {owner}{FILES} in {operation.target} "


def ports(text: str, span: Span) -> Sequence[str]:
    """Parse ``80``, ``80/udp`` or ``8000-8010/tcp`` to keys of ``ExposedPorts``."""
    numbers, _, protocol = text.partition("/")
    # A host address and a host port are ignored.
    numbers = numbers.rpartition(":")[2]
    protocol = (protocol or "tcp").lower()
    if protocol not in ("tcp", "udp", "sctp"):
        raise DockerfileError(f"Invalid proto: {protocol}", span)
    first, dash, last = numbers.partition("-")
    try:
        low, high = int(first), int(last) if dash else int(first)
        valid = 0 < low <= high < 65536
    except ValueError:
        valid = False
    if not valid:
        raise DockerfileError(f"Invalid containerPort: {text}", span)
    return [f"{port}/{protocol}" for port in range(low, high + 1)]


def words(items: Sequence[str]) -> str:
    """Format a list of words as Go's ``%q`` does, without the brackets."""
    return " ".join(quoted(item) for item in items)


def healthcheck(item: ins.Healthcheck) -> str:
    """Format a health check as in BuildKit's history: Go's ``%q`` of the structure."""
    times = (item.interval_ns, item.timeout_ns, item.start_period_ns, item.start_interval_ns)
    shown = " ".join(json.dumps(_duration(ns)) for ns in times)
    return f"HEALTHCHECK &{{[{words(item.test)}] {shown} {_rune(item.retries)}}}"


def health(item: ins.Healthcheck, before: object) -> dict[str, object]:
    """Return the configuration of a health check; missing fields are taken from ``before``."""
    check: dict[str, object] = {"Test": list(item.test)}
    for key, value in (
        ("Interval", item.interval_ns),
        ("Timeout", item.timeout_ns),
        ("StartPeriod", item.start_period_ns),
        ("StartInterval", item.start_interval_ns),
        ("Retries", item.retries),
    ):
        old = before.get(key) if isinstance(before, dict) else None
        if value or old:
            check[key] = value or old
    return check


def _duration(ns: int) -> str:
    """Format a duration as Go does: ``1m0s``, ``1.5s``, ``20ms``."""
    if not ns:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1000), ("ms", 10**6)):
        if ns < size * 1000:
            return f"{_number(ns / size)}{unit}"
    hours, rest = divmod(ns, 3600 * 10**9)
    minutes, rest = divmod(rest, 60 * 10**9)
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if hours or minutes else ""
    return f"{text}{_number(rest / 10**9)}s"


def _number(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".")


def _rune(number: int) -> str:
    """Go's ``%q`` of a number: the character with that code point."""
    named = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 39: "\\'", 92: "\\\\"}
    if number in named:
        return f"'{named[number]}'"
    if number < 32 or number == 127:
        return f"'\\x{number:02x}'"
    return f"'{chr(number)}'" if number < 0x110000 and chr(number).isprintable() else "'\ufffd'"


def copied(item: ins.Copy, sources: Sequence[str], target: str) -> str:
    """Format ``COPY`` and ``ADD`` as in BuildKit's history: with the flags that change the files."""
    parts = ["ADD" if item.add else "COPY"]
    parts += [f"--chown={item.chown}"] if item.chown else []
    parts += [f"--chmod={item.chmod}"] if item.chmod else []
    parts += sources
    return " ".join([*parts, *(f"<<{document.name}" for document in item.heredocs), target])


def process(item: ins.Run, shell: Sequence[str]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...], str]:
    """Return the arguments, the files for the process, and the text for the history."""
    if not item.shell:
        return item.args, (), " ".join(item.args)
    text = item.args[0]
    documents = item.heredocs
    if _is_script(item):
        content = documents[0].content
        if content.startswith("#!"):
            name = documents[0].name
            args = (*shell, f"/dev/pipes/{name}")
            return args, ((name, content),), " ".join(args)
        text = content
    else:
        for document in documents:
            text += f"\n{document.content}{document.name}"
    return (*shell, text), (), " ".join((*shell, text))


def _is_script(item: ins.Run) -> bool:
    """Whether the whole command is one here-document."""
    name = item.heredocs[0].name if len(item.heredocs) == 1 else ""
    return bool(name) and item.args[0].strip().replace("'", "").replace('"', "") in (f"<<{name}", f"<<-{name}")


def title(item: ins.Instruction, variables: Mapping[str, str], escape: str, budget: Budget | None = None) -> str:
    """Format an instruction for the progress display as BuildKit does: with known variables expanded."""
    text = item.original.split("\n", 1)[0]
    if isinstance(item, ins.Run) and item.shell and _is_script(item):
        first, *more = item.heredocs[0].content.strip().splitlines() or [""]
        text += f" ({first}{'...' if more else ''})"
    word, blank, rest = expand_known(text, variables, escape=escape, budget=budget).partition(" ")
    return f"{word.upper()}{blank}{rest}"


def cross(platform: str, variables: Mapping[str, str]) -> str:
    """Return the suffix of a stage's platform for cross builds: ``->arm64``."""
    os, arch = platform.split("/")[:2]
    target = [variables.get(f"TARGET{part}", "") for part in ("OS", "ARCH", "VARIANT")]
    if whole := variables.get("TARGETPLATFORM"):
        target = whole.split("/")
    target[:2] = [target[0] or os, target[1] or arch]
    if target[0] != os:
        return f"->{'/'.join(filter(None, target))}"
    return f"->{'/'.join(filter(None, target[1:]))}" if target[1] != arch else ""


def nop(text: str) -> str:
    """Format the history of a classic builder step that runs no process."""
    return f"/bin/sh -c #(nop)  {text}"

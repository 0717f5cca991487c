"""Instructions that change only the configuration of an image and create no layer."""

from server.builder.dockerfile import instructions as ins
from server.builder.dockerfile.errors import DockerfileError
from server.builder.dockerfile.expand import expand_words
from server.builder.plan import formatting
from server.builder.plan.context import StageContext

_SHOWN_PORTS = 3
"""How often a port is written: in the configuration, and in the history of each builder."""


def label(stage: StageContext, item: ins.Label) -> None:
    values = {stage.expand(name, item.span): stage.expand(text, item.span) for name, text in item.values}
    stage.config.merge_map("Labels", values)
    shown = " ".join(f"{name}={text}" for name, text in values.items())
    stage.history(f"LABEL {shown}", formatting.nop(f"LABEL {shown}"))


def command(stage: StageContext, item: ins.Command) -> None:
    words: list[str] = [*stage.config.shell, *item.args] if item.shell and item.args else list(item.args)
    shown = "[" + " ".join(formatting.quoted(word) for word in words) + "]"
    if item.entrypoint:
        stage.config.config["Entrypoint"] = words
        if not stage.cmd_set:
            stage.config.config["Cmd"] = None
        stage.history(f"ENTRYPOINT {shown}", formatting.nop(f"ENTRYPOINT {shown}"))
    else:
        stage.config.config["Cmd"] = words
        stage.cmd_set = True
        stage.history(f"CMD {shown}", formatting.nop(f"CMD {shown}"))
    if item.shell:
        windows = stage.config.document.get("os") == "windows"
        stage.config.config["ArgsEscaped"] = True if windows or not stage.options.classic else None


def healthcheck(stage: StageContext, item: ins.Healthcheck) -> None:
    # The classic builder merges a health check with the one of the parent.
    before = stage.config.config.get("Healthcheck") if stage.options.classic else None
    stage.config.config["Healthcheck"] = formatting.health(item, before)
    text = item.original.split(None, 1)[1]
    stage.history(formatting.healthcheck(item), formatting.nop(f"HEALTHCHECK {text}"))


def shell(stage: StageContext, item: ins.Shell) -> None:
    stage.config.config["Shell"] = list(item.args)
    shown = "[" + " ".join(item.args) + "]"
    stage.history(f"SHELL {shown}", formatting.nop(f"SHELL {shown}"))


def user(stage: StageContext, item: ins.User) -> None:
    stage.config.config["User"] = stage.expand(item.user, item.span)
    stage.history(f"USER {stage.config.user}", formatting.nop(f"USER {stage.config.user}"))


def expose(stage: StageContext, item: ins.Expose) -> None:
    ports: dict[str, object] = {}
    variables, planner = stage.variables, stage.planner
    for word in item.ports:
        found = planner.checked(
            lambda word=word: expand_words(  # type: ignore[misc]
                word, variables, escape=planner.file.escape, budget=planner.budget
            ),
            item.span,
            word,
        )
        for text in found.words:
            exposed = formatting.ports(text, item.span)
            planner.spend(sum(map(len, exposed)) * _SHOWN_PORTS, item.span)
            for port in exposed:
                ports[port] = {}
    stage.config.merge_map("ExposedPorts", ports)
    shown = " ".join(sorted(ports))
    stage.history(
        f"EXPOSE map[{' '.join(f'{port}:{{}}' for port in sorted(ports))}]", formatting.nop(f"EXPOSE {shown}")
    )


def volume(stage: StageContext, item: ins.Volume) -> None:
    paths = [stage.expand(path, item.span) for path in item.paths]
    if any(not path for path in paths):
        raise DockerfileError("VOLUME specified can not be an empty string", item.span)
    stage.config.merge_map("Volumes", {path: {} for path in paths})
    shown = " ".join(paths)
    stage.history(f"VOLUME [{shown}]", formatting.nop(f"VOLUME [{shown}]"))


def stopsignal(stage: StageContext, item: ins.StopSignal) -> None:
    name = stage.expand(item.signal, item.span)
    if not formatting.SIGNAL.fullmatch(name.upper()):
        raise DockerfileError(f"invalid signal: {name}", item.span)
    stage.config.config["StopSignal"] = name
    stage.history(f"STOPSIGNAL {name}", formatting.nop(f"STOPSIGNAL {name}"))


def maintainer(stage: StageContext, item: ins.Maintainer) -> None:
    stage.config.document["author"] = item.text
    stage.history(f"MAINTAINER {item.text}", formatting.nop(f"MAINTAINER {item.text}"))


def onbuild(stage: StageContext, item: ins.OnBuild) -> None:
    stage.config.add_trigger(item.text)
    stage.history("", formatting.nop(f"ONBUILD {item.text}"))

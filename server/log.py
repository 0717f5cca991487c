"""The daemon's own log: formats and level."""

import json
import logging

from server.config import Config


class JsonLines(logging.Formatter):
    """``--log-format json``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"level": record.levelname.lower(), "msg": record.getMessage(), "time": self.formatTime(record)}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


class Lines(logging.Formatter):
    """One line per message: a client's text may contain newlines and escape sequences, which could forge log lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = record.message.translate(_CONTROLS)
        return super().formatMessage(record)


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}


def set_up_log(config: Config) -> None:
    """Write the daemon's log to stderr, one line per message."""
    handler = logging.StreamHandler()
    text = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    handler.setFormatter(JsonLines() if config.log_format == "json" else Lines(text))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(config)


def set_level(config: Config) -> None:
    level = "debug" if config.debug else config.log_level
    names = {"trace": "debug", "warn": "warning", "fatal": "critical", "panic": "critical"}
    logging.getLogger().setLevel(names.get(level, level).upper())
    # The loggers of these libraries do not help to debug this daemon.
    for noisy in ("asyncio", "grpc", "httpcore", "httpx", "hpack"):
        logging.getLogger(noisy).setLevel(logging.WARNING)

"""``journald``: the native protocol of systemd's journal on this host."""

import re

from server.logdrivers.driver import META, Info, LogDriver

_INVALID = re.compile(r"[^A-Z0-9]")


def _settings(info: Info) -> dict[str, object]:
    fields = {
        "CONTAINER_ID": info.container_id[:12],
        "CONTAINER_ID_FULL": info.container_id,
        "CONTAINER_NAME": info.container_name,
        "CONTAINER_TAG": info.tag,
        "IMAGE_NAME": info.image_name,
        "SYSLOG_IDENTIFIER": info.tag,
    }
    for key, value in info.attributes().items():
        # Field names consist of capitals, digits and underscores; a leading underscore is reserved
        # (systemd.journal-fields(7)).
        fields[_INVALID.sub("_", key.upper()).lstrip("_")] = value
    return {"fields": fields}


DRIVERS = (LogDriver(name="journald", options=META, settings=_settings),)

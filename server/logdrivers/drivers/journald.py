"""``journald``: the native protocol of systemd's journal on this host."""

import re

from server.logdrivers.driver import META, Info, LogDriver

_NOT_IN_A_FIELD = re.compile(r"[^A-Z0-9]")


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
        # The journal takes capitals, digits and underscores, and keeps names that begin with one for itself.
        fields[_NOT_IN_A_FIELD.sub("_", key.upper()).lstrip("_")] = value
    return {"fields": fields}


DRIVERS = (LogDriver(name="journald", options=META, settings=_settings),)

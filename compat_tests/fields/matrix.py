"""The matrix of create: every field of API 1.51's Config, HostConfig and endpoint settings, where it is honoured, and
what proves it.

``HONOURED``: field → (the module that acts on it, the test that proves it). ``SHOWN``: metadata that Docker on Linux
only keeps and shows. ``REFUSED``: fields that cannot be honoured, with the test of their refusal.
``test_fields.py`` checks that each field of the models stands in exactly one table, that modules and tests exist, and
that what is only shown comes back as it was sent.
"""

from __future__ import annotations

LIMITS = "server/containers/spec/resources.py"
PROCESS = "server/containers/spec/process.py"
BUILD = "server/containers/spec/build.py"
ASSEMBLE = "server/containers/run/assemble.py"
MOUNTS = "server/containers/mounts/mounts.py"
STDIO = "server/containers/stdio/stdio.py"
NETWORKS = "server/networks/service.py"
ENDPOINTS = "server/networks/endpoints.py"
CONTAINERS = "server/containers"

T = "compat_tests/fields/test_fields.py::"
LIMITED = "compat_tests/fields/test_limits.py::"
NET = "compat_tests/fields/test_fields_networks.py::"
POINT = "compat_tests/fields/test_fields_endpoints.py::"
RUN = "compat_tests/clients/containers/test_run.py::"
LIFE = "compat_tests/clients/containers/test_lifecycle.py::"
HEALTH = "compat_tests/clients/containers/test_stats_update_health.py::"
VOLUMES = "compat_tests/clients/test_volumes.py::"
RESTART = "compat_tests/clients/containers/test_restart.py::"
SEEN = T + "test_seen_from_inside"
KERNEL = LIMITED + "test_limits_reach_the_kernel"
BAD = T + "test_refused"

HONOURED: dict[str, tuple[str, str]] = {
    # Config
    "Config.Hostname": (PROCESS, RUN + "test_what_the_process_is_given"),
    "Config.Domainname": (BUILD, SEEN),
    "Config.User": ("server/containers/spec/users.py", RUN + "test_what_the_process_is_given"),
    "Config.ExposedPorts": (f"{CONTAINERS}/create/merge.py", "compat_tests/clients/test_inspect_list.py::test_filters"),
    "Config.Tty": (PROCESS, RUN + "test_a_terminal"),
    "Config.OpenStdin": (STDIO, RUN + "test_stdin_reaches_the_process_and_its_end_too"),
    "Config.StdinOnce": (STDIO, RUN + "test_stdin_reaches_the_process_and_its_end_too"),
    "Config.Env": (PROCESS, RUN + "test_what_the_process_is_given"),
    "Config.Cmd": (f"{CONTAINERS}/create/defaults.py", RUN + "test_entrypoint_and_command"),
    "Config.Entrypoint": (f"{CONTAINERS}/create/merge.py", RUN + "test_entrypoint_and_command"),
    "Config.Healthcheck": (f"{CONTAINERS}/exec/health.py", HEALTH + "test_health_follows_its_probe"),
    "Config.Image": (f"{CONTAINERS}/create/create.py", RUN + "test_a_missing_image_and_a_bad_option"),
    "Config.Volumes": (MOUNTS, VOLUMES + "test_a_volume_of_the_image_and_volumes_from"),
    "Config.WorkingDir": (PROCESS, RUN + "test_what_the_process_is_given"),
    "Config.NetworkDisabled": (ENDPOINTS, NET + "test_network_disabled"),
    "Config.MacAddress": (f"{CONTAINERS}/create/compat.py", NET + "test_mac_address"),
    "Config.Labels": (f"{CONTAINERS}/create/merge.py", LIFE + "test_from_created_to_removed"),
    "Config.Shell": (f"{CONTAINERS}/exec/health.py", HEALTH + "test_a_probe_runs_in_the_shell_of_its_container"),
    "Config.StopSignal": (f"{CONTAINERS}/run/stop.py", T + "test_stop_signal_and_timeout"),
    "Config.StopTimeout": (f"{CONTAINERS}/run/stop.py", T + "test_stop_signal_and_timeout"),
    # HostConfig: limits
    "HostConfig.CpuShares": (LIMITS, KERNEL),
    "HostConfig.Memory": (LIMITS, KERNEL),
    "HostConfig.NanoCpus": (LIMITS, KERNEL),
    "HostConfig.CgroupParent": (BUILD, LIMITED + "test_cgroup_parent"),
    "HostConfig.BlkioWeight": (LIMITS, LIMITED + "test_a_weight_of_block_devices"),
    "HostConfig.BlkioWeightDevice": (LIMITS, LIMITED + "test_a_weight_of_one_block_device"),
    "HostConfig.BlkioDeviceReadBps": (LIMITS, LIMITED + "test_block_devices"),
    "HostConfig.BlkioDeviceWriteBps": (LIMITS, LIMITED + "test_block_devices"),
    "HostConfig.BlkioDeviceReadIOps": (LIMITS, LIMITED + "test_block_devices"),
    "HostConfig.BlkioDeviceWriteIOps": (LIMITS, LIMITED + "test_block_devices"),
    "HostConfig.CpuPeriod": (LIMITS, KERNEL),
    "HostConfig.CpuQuota": (LIMITS, KERNEL),
    "HostConfig.CpuRealtimePeriod": (LIMITS, LIMITED + "test_real_time"),
    "HostConfig.CpuRealtimeRuntime": (LIMITS, LIMITED + "test_real_time"),
    "HostConfig.CpusetCpus": (LIMITS, KERNEL),
    "HostConfig.CpusetMems": (LIMITS, KERNEL),
    "HostConfig.Devices": ("server/containers/spec/devices.py", SEEN),
    "HostConfig.DeviceCgroupRules": ("server/containers/spec/devices.py", SEEN),
    "HostConfig.DeviceRequests": (f"{CONTAINERS}/run/devicerequests.py", LIMITED + "test_devices_of_cdi"),
    "HostConfig.MemoryReservation": (LIMITS, KERNEL),
    "HostConfig.MemorySwap": (LIMITS, KERNEL),
    "HostConfig.MemorySwappiness": (LIMITS, KERNEL),
    "HostConfig.OomKillDisable": (LIMITS, LIMITED + "test_oom_kill_disable"),
    "HostConfig.PidsLimit": (LIMITS, KERNEL),
    "HostConfig.Ulimits": (PROCESS, RUN + "test_what_the_process_is_given"),
    # HostConfig: the rest
    "HostConfig.Binds": (MOUNTS, VOLUMES + "test_binds"),
    "HostConfig.LogConfig": ("server/logdrivers/options.py", T + "test_log_settings"),
    "HostConfig.NetworkMode": (ENDPOINTS, NET + "test_network_modes"),
    "HostConfig.PortBindings": ("server/networks/ports/portmap.py", NET + "test_published_ports"),
    "HostConfig.RestartPolicy": (f"{CONTAINERS}/restarts.py", RESTART + "test_on_failure_gives_up_after_its_count"),
    "HostConfig.AutoRemove": (
        f"{CONTAINERS}/run/exits.py",
        RUN + "test_rm_leaves_no_container_and_no_anonymous_volume",
    ),
    "HostConfig.VolumeDriver": (MOUNTS, VOLUMES + "test_a_volume_plugin"),
    "HostConfig.VolumesFrom": (MOUNTS, VOLUMES + "test_a_volume_of_the_image_and_volumes_from"),
    "HostConfig.ConsoleSize": (PROCESS, T + "test_console_size"),
    "HostConfig.Annotations": (BUILD, T + "test_annotations"),
    "HostConfig.Mounts": (MOUNTS, VOLUMES + "test_a_named_volume_keeps_what_is_written"),
    "HostConfig.CapAdd": ("server/containers/spec/caps.py", RUN + "test_security_of_an_ordinary_container"),
    "HostConfig.CapDrop": ("server/containers/spec/caps.py", RUN + "test_security_of_an_ordinary_container"),
    "HostConfig.CgroupnsMode": (ASSEMBLE, T + "test_namespaces"),
    "HostConfig.Dns": ("server/networks/dns/hosts_file.py", SEEN),
    "HostConfig.DnsOptions": ("server/networks/dns/hosts_file.py", SEEN),
    "HostConfig.DnsSearch": ("server/networks/dns/hosts_file.py", SEEN),
    "HostConfig.ExtraHosts": ("server/networks/dns/hosts_file.py", SEEN),
    "HostConfig.GroupAdd": ("server/containers/spec/users.py", SEEN),
    "HostConfig.IpcMode": (f"{CONTAINERS}/mounts/mounting.py", T + "test_shared_ipc_and_pid"),
    "HostConfig.Links": ("server/networks/dns/hosts_file.py", NET + "test_links"),
    "HostConfig.OomScoreAdj": (PROCESS, RUN + "test_what_the_process_is_given"),
    "HostConfig.PidMode": (ASSEMBLE, T + "test_shared_ipc_and_pid"),
    "HostConfig.Privileged": (BUILD, T + "test_privileged"),
    "HostConfig.PublishAllPorts": ("server/networks/ports/portmap.py", NET + "test_published_ports"),
    "HostConfig.ReadonlyRootfs": (BUILD, RUN + "test_a_read_only_root"),
    "HostConfig.SecurityOpt": ("server/containers/spec/security.py", RUN + "test_security_of_an_ordinary_container"),
    "HostConfig.Tmpfs": (f"{CONTAINERS}/mounts/mounting.py", VOLUMES + "test_tmpfs"),
    "HostConfig.UTSMode": (ASSEMBLE, T + "test_namespaces"),
    "HostConfig.UsernsMode": (
        "server/containers/remap.py",
        "compat_tests/clients/test_userns.py::test_host_ids_on_request",
    ),
    "HostConfig.StorageOpt": (
        f"{CONTAINERS}/mounts/disklimit.py",
        "compat_tests/clients/containers/test_disk_limits.py::test_a_container_is_full",
    ),
    "HostConfig.ShmSize": ("server/containers/spec/mounts.py", SEEN),
    "HostConfig.Sysctls": (BUILD, SEEN),
    "HostConfig.Runtime": (f"{CONTAINERS}/host/runtimes.py", T + "test_runtimes"),
    "HostConfig.MaskedPaths": (BUILD, T + "test_masked_and_readonly_paths"),
    "HostConfig.ReadonlyPaths": (BUILD, T + "test_masked_and_readonly_paths"),
    "HostConfig.Init": (PROCESS, RUN + "test_init_reaps_and_forwards"),
    # Endpoints
    "Endpoint.IPAMConfig": (ENDPOINTS, NET + "test_endpoint_settings"),
    "Endpoint.Links": ("server/networks/dns/names.py", POINT + "test_an_endpoints_links"),
    "Endpoint.Aliases": (ENDPOINTS, NET + "test_endpoint_settings"),
    "Endpoint.MacAddress": (ENDPOINTS, NET + "test_mac_address"),
    "Endpoint.DriverOpts": ("server/networks/bridges/attach.py", POINT + "test_an_endpoints_sysctls"),
    "Endpoint.GwPriority": (ENDPOINTS, POINT + "test_a_gateways_priority"),
}

#: What Docker on Linux keeps and shows without acting on it.
SHOWN = frozenset(
    (
        *("Config.AttachStdin", "Config.AttachStdout", "Config.AttachStderr", "Config.OnBuild"),
        "HostConfig.ContainerIDFile",
    )
)

#: What cannot be honoured on Linux, or not by this engine: refused by name (dockerd refuses or drops most alike).
REFUSED: dict[str, str] = {
    "Config.ArgsEscaped": BAD,
    "HostConfig.Cgroup": BAD,
    "HostConfig.Isolation": BAD,
    "HostConfig.IOMaximumIOps": BAD,
    "HostConfig.IOMaximumBandwidth": BAD,
    # Discarded with a warning, as in dockerd.
    "HostConfig.CpuCount": T + "test_discarded_with_a_warning",
    "HostConfig.CpuPercent": T + "test_discarded_with_a_warning",
    # Neither runc nor today's kernels enforce it.
    "HostConfig.KernelMemoryTCP": T + "test_discarded_with_a_warning",
    # Gone from the API since 1.42: older clients get a warning.
    "HostConfig.KernelMemory": T + "test_discarded_with_a_warning",
}

#: What the engine fills in: ignored in a request.
OPERATIONAL = frozenset(
    f"Endpoint.{name}"
    for name in (
        *("NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6Address"),
        *("GlobalIPv6PrefixLen", "DNSNames"),
    )
)

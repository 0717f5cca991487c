"""Log drivers that send lines to a server: syslog, gelf, fluentd, journald. Imported only by shims that need one."""

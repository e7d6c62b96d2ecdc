"""One file per written group of commands; each has ``command``, a click command or group, named as the file."""

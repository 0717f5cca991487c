#!/bin/sh
printf '#!/bin/sh\necho %s\n' "$GREETING" >/usr/local/bin/hello
chmod +x /usr/local/bin/hello

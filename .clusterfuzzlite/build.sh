#!/bin/bash -eu
exec "$SRC/guestmem/ci/oss-fuzz/build.sh"

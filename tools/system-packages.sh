#!/usr/bin/env bash
# Sees to what pip cannot install: a Python with headers and venv, a C compiler, and the tools that build private networks.
# As root on Debian or Ubuntu it installs what is missing; otherwise it names it in one line.
# Usage: tools/system-packages.sh PYTHON [dev]      dev: also what the tests judge by, tshark and Chromium
set -euo pipefail
python=$1
dev=${2:-}

missing=()  # without these nothing can be built
command -v "$python" >/dev/null || missing+=(python3)
"$python" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
"$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null || missing+=(python3-dev)
command -v gcc >/dev/null || missing+=(gcc libc6-dev)

wires=()  # without these the demo and some tests have no private network to run in
command -v ip >/dev/null || [ -x /sbin/ip ] || wires+=(iproute2)
command -v nft >/dev/null || [ -x /usr/sbin/nft ] || wires+=(nftables)

judges=()  # without these some tests cannot run
if [ "$dev" = dev ]; then
    command -v tshark >/dev/null || judges+=(tshark)
    command -v chromium >/dev/null || command -v google-chrome >/dev/null || judges+=(chromium fonts-dejavu-core)
fi

all=("${missing[@]}" "${wires[@]}" "${judges[@]}")
if [ ${#all[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing ${all[*]}"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "${all[@]}" >/dev/null
    else
        if [ ${#missing[@]} -gt 0 ]; then need="to build fourtuple"
        elif [ ${#wires[@]} -gt 0 ]; then need="for private networks"
        else need="for all tests"; fi
        echo "please install, as root, $need: apt-get install ${all[*]}" >&2
        [ ${#missing[@]} -eq 0 ] || exit 1
    fi
fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "fourtuple needs Python 3.11 or newer; this is $("$python" -V). Say which: make PYTHON=python3.12 ..." >&2; exit 1; }

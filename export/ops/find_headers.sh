#!/bin/sh
# Prints the folder that holds the headers of ONNX Runtime; says on stderr what went wrong otherwise.
#
# Looks at ONNXRUNTIME_INCLUDE_DIR, then at the system, then at what it downloaded before, then asks
# apt for the package libonnxruntime-dev and unpacks it under build/, without installing it. Debian 12
# does not have that package but its keyring verifies the archive of Debian 13, which does, so
# there the machine's own package sources are read with the release's name changed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
package=libonnxruntime-dev
header=onnxruntime_cxx_api.h
work=$here/build/headers

# Prints the folder at or below $1 that holds the header, if any.
folder_in() {
    for folder in "$1" "$1/onnxruntime" "$1/onnxruntime/core/session"; do
        if [ -f "$folder/$header" ]; then
            echo "$folder"
            return 0
        fi
    done
    return 1
}

if [ -n "${ONNXRUNTIME_INCLUDE_DIR:-}" ]; then
    folder_in "$ONNXRUNTIME_INCLUDE_DIR" && exit 0
    echo "ONNXRUNTIME_INCLUDE_DIR=$ONNXRUNTIME_INCLUDE_DIR holds no $header; correct or unset it" >&2
    exit 1
fi
for place in /usr/include /usr/local/include /opt/homebrew/include "$work/unpacked/usr/include"; do
    folder_in "$place" && exit 0
done

advice="install the package $package, or set ONNXRUNTIME_INCLUDE_DIR to a folder with $header"
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "no headers of ONNX Runtime were found; $advice" >&2
    exit 1
fi

rm -rf "$work"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
cd "$work"
log=$work/log.txt
# Runs apt-get so that it writes nothing outside this folder, and gives up soon without a network.
own_apt() {
    apt-get -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" \
        -o APT::Sandbox::User=root -o Acquire::http::Timeout=20 -o Acquire::Retries=1 \
        "$@" >>"$log" 2>&1
}
fetch() { own_apt "$@" update && own_apt "$@" download "$package"; }

next_release() {
    release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [ "$release" = bookworm ] || return 1
    if [ -f /etc/apt/sources.list.d/debian.sources ]; then
        sources=next.sources
        sed 's/bookworm/trixie/g' /etc/apt/sources.list.d/debian.sources >$sources
    else
        sources=next.list
        sed 's/bookworm/trixie/g' /etc/apt/sources.list >$sources
    fi
    fetch -o "Dir::Etc::sourcelist=$work/$sources" -o Dir::Etc::sourceparts=-
}

# The system's own lists first, as they are; then a fresh copy of them; then the next release.
if ! { apt-get download "$package" >>"$log" 2>&1 || next_release || fetch; }; then
    echo "apt could not get $package: $(tail -n 1 "$log" 2>/dev/null); $advice" >&2
    exit 1
fi
# Under another name until it is whole: an interrupted run must not leave half of it to be found.
dpkg-deb -x "$package"_*.deb unpacked.tmp
mv unpacked.tmp unpacked
rm -rf lists cache "$package"_*.deb
folder_in "$work/unpacked/usr/include"

#!/usr/bin/env bash
# Installs a real Triton Inference Server (2.51.0, Python backend, CPU only) without Docker or root, from the
# nvidia-pytriton wheel, and this project beside it, from the clone that this file lies in:
#     bash tools/triton/install.sh [DIR [PART]]         default .triton, and both parts: packages, project
# DIR/venv is the Python of the models, DIR/server and DIR/backends are the server. PYTHON picks another
# interpreter (3.11 or 3.12; the wheel's backend needs numpy < 2, which there is no later one for).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-.triton}
part=${2:-all}
python=${PYTHON:-python3.11}
pins=$here/requirements.txt
pip=("$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check)

packages() {
    rm -rf "$dir"
    "$python" -m venv "$dir/venv"
    "${pip[@]}" --requirement <(grep -v pytriton "$pins")
    "${pip[@]}" --no-deps --target "$dir/server" "$(grep -o 'nvidia-pytriton[^ ]*' "$pins")"
    local version server=$dir/server/pytriton/tritonserver backend=$dir/backends/python
    version=$("$dir/venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    mkdir -p "$backend"
    # copies, not links: the server refuses links that leave the backend's directory
    cp "$server/backends/python/libtriton_python.so" "$server/backends/python/triton_python_backend_utils.py" \
        "$server/python_backend_stubs/$version/triton_python_backend_stub" "$backend/"
    chmod +x "$backend/triton_python_backend_stub"
    rm -rf "$server/python_backend_stubs" "$server/backends"
    touch "$dir/packages"
}

project() {
    "${pip[@]}" --no-deps --editable "$here/../.."
    touch "$dir/ready"
}

case $part in
all)
    packages
    project
    ;;
packages | project) "$part" ;;
*) echo "no part is called $part: packages or project" >&2 && exit 2 ;;
esac
